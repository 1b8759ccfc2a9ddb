"""A migration from end to end, read back by Chroma's own client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.records import Made, menagerie, plain
from support.servers import Server, chroma_server
from support.trees import tree

SOURCES = ["0.6.3", "1.5.9", "path 0.6.3", "path 1.5.9", "snapshot", "json"]
WAYS = [
    *((source, "1.5.9") for source in SOURCES),
    *((source, "path") for source in ("0.6.3", "path 0.6.3", "path 1.5.9", "snapshot")),
    *((source, "snapshot") for source in ("0.6.3", "1.5.9", "json")),
    *((source, "json") for source in ("0.6.3", "1.5.9", "snapshot")),
]


@dataclass(frozen=True, slots=True)
class Sources:
    """Every kind of source with the menagerie in it: how options name it."""

    legacy: Server
    modern: Server
    directories: dict[str, Path]
    token: Path
    files: Path

    def options(self, kind: str) -> list[str]:
        if kind == "0.6.3":
            return ["--source-url", self.legacy.url, "--source-token-file", str(self.token)]
        if kind == "1.5.9":
            return ["--source-url", self.modern.url]
        if kind.startswith("path "):
            return ["--source-url", f"path:{self.directories[kind.removeprefix('path ')]}"]
        return ["--source-url", f"snapshot:{self.files}/s" if kind == "snapshot" else f"{self.files}/b.json"]

    def lists(self, kind: str) -> bool:
        return "0.6.3" not in kind

    def state(self) -> object:
        """What no migration may change."""
        servers = [Database(server) for server in (self.legacy, self.modern)]
        there = [
            ({name: database.description(name) for name in database.names()}, database.counts()) for database in servers
        ]
        return there, {version: tree(path) for version, path in self.directories.items()}, tree(self.files)


@pytest.fixture
def sources(
    legacy: Server,
    modern: Server,
    directories: dict[str, Path],
    legacy_token: Path,
    tmp_path_factory: pytest.TempPathFactory,
    chromactl: Chromactl,
) -> Sources:
    files = tmp_path_factory.getbasetemp() / "files"
    if not files.exists():
        for url in (f"snapshot:{files}/s", f"{files}/b.json"):
            ended = chromactl("migrate", "--source-url", modern.url, "--target-url", url, "--profile", "identity")
            assert ended.code == 0, ended.err
    return Sources(legacy, modern, directories, legacy_token, files)


@contextmanager
def read_back(kind: str, url: str, folder: Path, chromactl: Chromactl) -> Iterator[Database]:
    """The target under a server of its own kind; files are brought into one first."""
    if kind == "path":
        with chroma_server(folder / "new") as server:
            yield Database(server)
    else:
        with chroma_server(folder / "read back") as server:
            ended = chromactl("migrate", "--source-url", url, "--target-url", server.url, "--profile", "identity")
            assert ended.code == 0, ended.err
            yield Database(server)


def check(database: Database, wanted: list[Made]) -> None:
    assert database.names() == [made.name for made in wanted]
    for made in wanted:
        assert_holds(database.records(made.name), made.records, made.space)
        described = database.description(made.name)
        index = described["configuration_json"]["hnsw"]
        assert index["space"] == made.space
        assert {key: index[key] for key in made.hnsw} == made.hnsw
        metadata = {key: value for key, value in (described["metadata"] or {}).items() if not key.startswith("hnsw:")}
        assert metadata == (made.metadata or {})
        if made.records:
            assert database.metric(made.name) == made.space


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_everything_arrives_and_the_source_stays(
    source: str, target: str, sources: Sources, chromactl: Chromactl, tmp_path: Path
) -> None:
    wanted = menagerie(lists=sources.lists(source))
    before = sources.state()
    options = ["migrate", *sources.options(source), "--profile", "identity", "--json"]
    if target == "1.5.9":
        with chroma_server(tmp_path / "new") as server:
            ended = chromactl(*options, "--target-url", server.url)
            assert ended.code == 0, ended.err
            check(Database(server), wanted)
    else:
        url = {"path": f"path:{tmp_path}/new", "snapshot": f"snapshot:{tmp_path}/n", "json": f"{tmp_path}/n.json"}
        ended = chromactl(*options, "--target-url", url[target])
        assert ended.code == 0, ended.err
        with read_back(target, url[target], tmp_path, chromactl) as database:
            check(database, wanted)
    assert sources.state() == before
    report = ended.json
    assert (report["changed"], report["status"]) == (True, "complete")
    counts = {name: (entry["source"], entry["imported"], entry["verified"], entry["rejected"])
              for name, entry in report["collections"].items()}  # fmt: skip
    assert counts == {made.name: (*[len(made.records)] * 3, 0) for made in wanted}
    assert {name: entry["space"] for name, entry in report["collections"].items()} == {
        made.name: made.space for made in wanted
    }


def test_old_cosine_collections_that_call_themselves_l2_stay_cosine(
    sources: Sources, legacy: Server, receiving: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    described = Database(legacy).description("nasty_cosine")
    assert described["configuration_json"]["hnsw_configuration"]["space"] == "l2"
    with chroma_server(tmp_path / "new") as server:
        ended = chromactl("migrate", *sources.options("0.6.3"), "--target-url", server.url, "--profile", "identity")
        assert ended.code == 0, ended.err
        assert Database(server).metric("nasty_cosine") == "cosine"


def test_the_runbooks_sample_arrives_in_the_new_schema(pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    source, target = pair
    place = ["--database", source.name, "--json"]
    made = chromactl("sample", "--url", source.url, "--chunks", 200, "--dim", 16, *place)
    assert (made.code, made.json["changed"]) == (0, True), made.err
    again = chromactl("sample", "--url", source.url, "--chunks", 200, "--dim", 16, *place)
    assert (again.code, again.json["changed"]) == (0, False), again.err
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, *place)
    assert ended.code == 0, ended.err
    assert target.counts() == source.counts() == made.json["collections"]
    assert ended.json["rejects"] == {"total": 0, "by_reason": {}}
    for name in target.names():
        old, new = source.records(name), target.records(name)
        assert set(old) == set(new)
        for record, now in new.items():
            assert now.document == old[record].document
            metadata, was = now.metadata or {}, old[record].metadata or {}
            assert metadata["source_file"] == was["file"]
            assert metadata["source_line"] == was["line"]
            assert metadata["authenticity_score"] == was["authenticity"]
            assert metadata["collection_type"] == name.removeprefix("sergio_")
            assert metadata["language"] == {"english": "en", "spanish": "es", "mixed": "es_en"}[was["lang"]]
            assert "lang" not in metadata
        assert target.metric(name) == "cosine"


def test_a_collection_that_the_profile_does_not_name_is_left_alone_and_said(
    pair: tuple[Database, Database], chromactl: Chromactl
) -> None:
    source, target = pair
    source.put(Made("sergio_corpus", "l2", plain(5)), Made("other", "l2", plain(5)))
    ended = chromactl(
        "migrate", "--source-url", source.url, "--target-url", target.url, "--database", source.name, "--json"
    )
    assert ended.code == 0, ended.err
    assert target.names() == ["sergio_corpus"]
    assert ended.json["skipped"] == ["other"]


def test_only_the_collections_that_were_asked_for(pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    source, target = pair
    source.put(*(Made(name, "l2", plain(5)) for name in ("aaa", "bbb", "ccc")))
    options = ["--database", source.name, "--profile", "identity", "--collection", "aaa", "--collection", "ccc"]
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, *options)
    assert ended.code == 0, ended.err
    assert target.names() == ["aaa", "ccc"]


def test_small_batches_and_several_shards_arrive_whole(pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    source, target = pair
    made = Made("pets", "l2", plain(2300))
    source.put(made)
    options = ["--database", source.name, "--profile", "identity", "--batch-size", "77"]
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, *options)
    assert ended.code == 0, ended.err
    assert_holds(target.records("pets"), made.records, "l2")
