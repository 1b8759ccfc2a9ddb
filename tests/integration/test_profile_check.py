"""`profile check` on a real server: it says what a migration then does, and writes nothing."""

from __future__ import annotations

from pathlib import Path

from support.command import Chromactl
from support.databases import Database
from support.records import Made, Record, plain
from support.servers import Server

Pair = tuple[Database, Database]

PROFILE = """
name: own
fields:
  number: {type: float, from: [number], required: true}
  kind: {from: [{collection: "(.+)s$"}]}
collections:
  high: {from: [cats, dogs], where: {field: level, in: [high]}, ids: "{collection}/{id}"}
  cats: {}
"""


def test_what_it_says_of_a_server(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, _ = pair
    high = [Record(one.id, one.embedding, one.document, None, {"number": 1, "level": "high"}) for one in plain(10)]
    low = [*plain(19, prefix="low"), Record("bad", plain(1)[0].embedding, None, None, {"number": "many", "x": True})]
    source.put(Made("cats", "l2", high + low), Made("dogs", "cosine", high + low[:5]), Made("birds", "l2", high))
    before = source.counts()
    (tmp_path / "own.yml").write_text(PROFILE)
    place = ["--url", source.url, "--database", source.name]
    ended = chromactl("profile", "check", "own.yml", *place, "--json")
    assert (ended.code, ended.err) == (0, "")
    report = ended.json
    assert report["sources"] == {
        "cats": {"records": 30, "targets": {"high": 10, "cats": 19}, "nowhere": 0, "refused": 1},
        "dogs": {"records": 15, "targets": {"high": 10}, "nowhere": 5, "refused": 0},
    }
    assert report["rejects"]["by_reason"] == {"invalid_number": 1, "no_collection": 5}
    number = report["targets"]["cats"]["fields"]["number"]
    assert (number["from"], number["converted"]) == ({"number": 20}, {"int to float": 19})
    assert number["examples"] == {"invalid_number": "bad"}
    assert report["targets"]["cats"]["untouched"] == {"odd": 19, "x": 1}
    assert report["targets"]["high"]["fields"]["kind"]["from"] == {"the collection's name": 20}
    assert (report["skipped"], report["changed"], report["advice"]) == (["birds"], False, "INVESTIGATE")
    assert source.counts() == before
    assert [path.name for path in tmp_path.iterdir()] == ["own.yml"]


def test_it_goes_where_a_token_is_needed(legacy: Server, legacy_token: Path, chromactl: Chromactl) -> None:
    ended = chromactl("profile", "check", "identity", "--url", legacy.url, "--token-file", legacy_token)
    assert ended.code == 0, ended.err
    assert "plain-l2: 120 records, 120 to plain-l2" in ended.err.splitlines()
    assert ended.err.splitlines()[-1] == "Recommendation: PROCEED"
