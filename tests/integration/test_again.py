"""A migration run again: nothing to do, something new to bring, or somebody else was there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chromactl.compare import Comparison
from chromactl.stores.snapshot import SnapshotStore
from support.command import Chromactl
from support.databases import Database, assert_holds
from support.ended import Ended
from support.records import Made, batch_of, menagerie, nasty, plain
from support.servers import chroma_server
from support.trees import tree

Pair = tuple[Database, Database]


def migrate(chromactl: Chromactl, pair: Pair, *more: object) -> Ended:
    source, target = pair
    place = ["--source-url", source.url, "--target-url", target.url, "--database", source.name]
    return chromactl("migrate", *place, "--profile", "identity", "--json", *more)


def changed(chromactl: Chromactl, pair: Pair, *more: object) -> dict[str, Any]:
    ended = migrate(chromactl, pair, *more)
    assert ended.code == 0, ended.err
    return ended.json


def test_again_changes_nothing_and_leaves_nothing(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, target = pair
    source.put(*menagerie(lists=True))
    first = changed(chromactl, pair)
    before = target.counts()
    keys = {name: target.description(name)["id"] for name in before}
    checkpoints = tree(tmp_path / "migration_checkpoints")
    again = changed(chromactl, pair)
    assert (again["changed"], again["status"], again["kept"]) == (False, "unchanged", {})
    assert target.counts() == before
    assert {name: target.description(name)["id"] for name in before} == keys
    assert tree(tmp_path / "migration_checkpoints") == checkpoints
    assert again["run"] == first["run"]
    assert again["checkpoint_file"] == first["checkpoint_file"]
    counts = {name: (entry["imported"], entry["verified"]) for name, entry in again["collections"].items()}
    assert counts == {name: (entry["imported"], entry["verified"]) for name, entry in first["collections"].items()}


def test_again_into_a_directory_changes_nothing(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    with chroma_server(tmp_path / "old") as server:
        Database(server).put(Made("pets", "cosine", nasty(lists=True)))
        place = ("migrate", "--source-url", server.url, "--target-url", f"path:{tmp_path}/new")
        for expected in (True, False, False):
            ended = chromactl(*place, "--profile", "identity", "--json")
            assert ended.code == 0, ended.err
            assert ended.json["changed"] is expected


FILES = pytest.mark.parametrize("url", ["snapshot:out", "out.json"])


def into_file(chromactl: Chromactl, source: Database, url: str) -> Ended:
    place = ("migrate", "--source-url", source.url, "--target-url", url, "--database", source.name)
    return chromactl(*place, "--profile", "identity", "--json")


def content(path: Path) -> object:
    return tree(path) if path.is_dir() else path.read_bytes()


@FILES
def test_a_finished_file_is_found_so_and_left_as_it_is(
    pair: Pair, chromactl: Chromactl, tmp_path: Path, url: str
) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(20)))
    first = into_file(chromactl, source, url).json
    out = tmp_path / url.removeprefix("snapshot:")
    before = content(out)
    for _ in range(2):
        again = into_file(chromactl, source, url).json
        assert (again["changed"], again["status"], again["run"]) == (False, "unchanged", first["run"])
    assert content(out) == before


@FILES
def test_files_are_never_overwritten_when_the_source_has_changed(
    pair: Pair, chromactl: Chromactl, tmp_path: Path, url: str
) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(20)))
    assert into_file(chromactl, source, url).code == 0
    out = tmp_path / url.removeprefix("snapshot:")
    before = content(out)
    source.upsert("pets", *plain(1, prefix="new"))
    for _ in range(2):
        ended = into_file(chromactl, source, url)
        assert (ended.code, ended.out) == (3, "")
        assert str(out) in ended.complaint
        assert "give a new name" in ended.complaint
    assert content(out) == before


@FILES
def test_somebody_elses_file_is_never_overwritten(pair: Pair, chromactl: Chromactl, tmp_path: Path, url: str) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(20)))
    out = tmp_path / url.removeprefix("snapshot:")
    if url.startswith("snapshot:"):
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        out.write_text("{}")
    before = content(out)
    ended = into_file(chromactl, source, url)
    assert ended.code == 3
    assert str(out) in ended.complaint
    assert content(out) == before


@FILES
def test_a_file_that_was_damaged_since_is_refused(pair: Pair, chromactl: Chromactl, tmp_path: Path, url: str) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(20)))
    assert into_file(chromactl, source, url).code == 0
    out = tmp_path / url.removeprefix("snapshot:")
    hurt = max(out.rglob("*.parquet")) if out.is_dir() else out
    damaged = hurt.read_bytes().replace(b"document 7 of r", b"document 8 of r")
    if out.is_dir():
        damaged = damaged[: len(damaged) // 2] + b"?" + damaged[len(damaged) // 2 + 1 :]
    hurt.write_bytes(damaged)
    ended = into_file(chromactl, source, url)
    assert ended.code in (1, 3)
    assert ended.out == ""
    assert out.name in ended.complaint
    assert hurt.read_bytes() == damaged


def test_ones_own_work_is_known_after_a_restart_of_the_server(chromactl: Chromactl, tmp_path: Path) -> None:
    """Cosine embeddings and floats are rounded by the server; the digest of what it gives must not move."""
    records = nasty(lists=True) + plain(1500, 16)[:0] + plain(200)
    with chroma_server(tmp_path / "old") as old:
        source = Database(old)
        source.put(Made("pets", "cosine", records))
        with chroma_server(tmp_path / "new") as new:
            changed(chromactl, (source, Database(new)))
            port = new.port
        source.upsert("pets", *plain(1, prefix="late"))
        with chroma_server(tmp_path / "new", port=port) as new:
            report = changed(chromactl, (source, Database(new)))
            assert report["changed"] is True
            assert_holds(Database(new).records("pets"), [*records, *plain(1, prefix="late")], "cosine")


def occupied(pair: Pair, chromactl: Chromactl) -> tuple[list[Any], dict[str, int]]:
    """A finished migration whose target somebody else has written to since, in every way there is."""
    source, target = pair
    records = plain(20)
    source.put(Made("pets", "l2", records))
    changed(chromactl, pair)
    foreign = [*records, *plain(1, prefix="foreign")]
    target.upsert("pets", foreign[-1])
    return foreign, target.counts()


@pytest.mark.parametrize("source_moves", [False, True])
def test_a_target_that_somebody_else_wrote_to_is_refused(pair: Pair, chromactl: Chromactl, source_moves: bool) -> None:
    source, target = pair
    foreign, before = occupied(pair, chromactl)
    if source_moves:
        source.upsert("pets", *plain(2, prefix="late"))
    ended = migrate(chromactl, pair)
    assert (ended.code, ended.out) == (3, "")
    assert "already holds a collection pets with other content" in ended.complaint
    assert "--replace" in ended.complaint
    assert target.counts() == before
    assert_holds(target.records("pets"), foreign, "l2")


def test_replacing_keeps_the_former_one_and_a_snapshot_of_it(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, target = pair
    foreign, _ = occupied(pair, chromactl)
    report = changed(chromactl, pair, "--replace", "--backup-dir", tmp_path / "backups")
    kept = f"pets--before-{report['run']}"
    assert target.names() == sorted(["pets", kept])
    assert_holds(target.records("pets"), source.records("pets").values(), "l2")
    assert_holds(target.records(kept), foreign, "l2")
    assert Path(report["backup"]).parent == tmp_path / "backups"
    snapshot = SnapshotStore(Path(report["backup"]))
    (collection,) = snapshot.collections()
    batch, _ = snapshot.read(collection, [record.id for record in foreign])
    comparison = Comparison()
    comparison.add(batch_of(foreign), batch, space="l2")
    assert (collection.name, len(batch), comparison.differences) == ("pets", 21, [])
    assert changed(chromactl, pair)["changed"] is False


@pytest.mark.parametrize(
    "theirs",
    [
        Made("pets", "l2", plain(20, prefix="foreign")),
        Made("pets", "l2", plain(3)),
        Made("pets", "l2", plain(20, seed=9)),
        Made("pets", "l2", []),
        Made("pets", "cosine", plain(20)),
        Made("pets", "l2", [*plain(19), replace(plain(20)[19], document="other")]),
    ],
    ids=["other ids", "fewer", "other vectors", "empty", "other metric", "one document"],
)
def test_a_target_with_other_content_is_refused_as_it_is(pair: Pair, chromactl: Chromactl, theirs: Made) -> None:
    source, target = pair
    source.put(Made("pets", "l2", plain(20)))
    target.put(theirs)
    before = target.description("pets")
    ended = migrate(chromactl, pair)
    assert (ended.code, ended.out) == (3, "")
    assert "already holds a collection pets with other content" in ended.complaint
    assert target.description("pets") == before
    assert_holds(target.records("pets"), theirs.records, theirs.space)
    assert target.names() == ["pets"]


def test_a_target_that_holds_everything_already_is_left_as_it_is(pair: Pair, chromactl: Chromactl) -> None:
    source, target = pair
    made = menagerie(lists=True)
    source.put(*made)
    target.put(*made)
    assert changed(chromactl, pair)["changed"] is False
    assert target.names() == [entry.name for entry in made]


def test_a_collection_that_is_gone_from_the_source_makes_one_run_go_the_whole_way_and_no_more(
    pair: Pair, chromactl: Chromactl
) -> None:
    source, target = pair
    source.put(Made("pets", "l2", plain(20)), Made("gone", "l2", plain(5)))
    changed(chromactl, pair)
    source.drop("gone")
    phases = []
    for _ in range(3):
        again = changed(chromactl, pair)
        assert (again["changed"], again["status"]) == (False, "unchanged")
        phases.append([phase["name"] for phase in again["phases"]])
    assert "export" in phases[0]
    assert phases[1] == phases[2] == ["recheck"]
    assert target.counts() == {"pets": 20, "gone": 5}
    source.upsert("pets", *plain(1, prefix="late"))
    assert changed(chromactl, pair)["carried"] == {"added": 1, "changed": 0, "removed": 0}
