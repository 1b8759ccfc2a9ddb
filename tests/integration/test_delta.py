"""A changed source is carried over by the same command: every kind of change, and nothing but the changes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds, new_database, same_database
from support.migrations import CHANGES, Watched, in_snapshot, watched
from support.process import running
from support.records import Made, Record, plain
from support.servers import Server, chroma_server

Pair = tuple[Database, Database]
REST = plain(30, prefix="rest")


def one(**fields: Any) -> Record:
    settings: dict[str, Any] = {"document": "text", "uri": "file:///a", "metadata": {"key": 1, "other": "ü"}} | fields
    return Record("one", np.arange(1, 9, dtype=np.float32), **settings)


@pytest.fixture
def place(pair: Pair, chromactl: Chromactl) -> Iterator[Watched]:
    with watched(*pair, chromactl) as made:
        yield made


def to_be(source: Database, name: str, *records: Record) -> None:
    """Make the source's records exactly these: an upsert alone would merge."""
    source.delete(name, *(record.id for record in records))
    source.upsert(name, *records)


KINDS: dict[str, tuple[Record | None, Record | None]] = {
    "added": (None, one()),
    "deleted": (one(), None),
    "document": (one(), one(document="other")),
    "document to None": (one(), one(document=None)),
    "document from None": (one(document=None), one()),
    "document from empty to None": (one(document=""), one(document=None)),
    "uri": (one(), one(uri="file:///b")),
    "uri removed": (one(), one(uri=None)),
    "metadata value": (one(), one(metadata={"key": 2, "other": "ü"})),
    "metadata key removed": (one(), one(metadata={"key": 1})),
    "metadata key added": (one(), one(metadata={"key": 1, "other": "ü", "new": True})),
    "metadata removed": (one(), one(metadata=None)),
    "metadata from None": (one(metadata=None), one()),
    "int to float": (one(), one(metadata={"key": 1.0, "other": "ü"})),
    "int to bool": (one(), one(metadata={"key": True, "other": "ü"})),
    "list shortened": (one(metadata={"key": ["a", "b", "c"]}), one(metadata={"key": ["a", "b"]})),
    "list in another order": (one(metadata={"key": [1, 2]}), one(metadata={"key": [2, 1]})),
    "list to scalar": (one(metadata={"key": ["a"]}), one(metadata={"key": "a"})),
    "embedding alone": (one(), replace(one(), embedding=np.arange(2, 10, dtype=np.float32))),
    "all at once": (one(), replace(one(document=None, uri=None, metadata=None), embedding=np.ones(8, np.float32))),
}


@pytest.mark.parametrize(("before", "after"), KINDS.values(), ids=KINDS)
def test_one_change_is_carried_over_and_only_it(place: Watched, before: Record | None, after: Record | None) -> None:
    source, target = place.source, place.target
    source.put(Made("pets", "l2", [*REST, *([before] if before else [])]), Made("other", "cosine", plain(5)))
    place.report()
    keys = {name: target.description(name)["id"] for name in target.names()}
    if after is None:
        source.delete("pets", "one")
    else:
        to_be(source, "pets", after)
    report = place.report()
    counts = {"added": before is None, "changed": bool(before and after), "removed": after is None}
    assert report["carried"] == {name: int(count) for name, count in counts.items()}
    assert (report["changed"], report["status"], report["kept"]) == (True, "complete", {})
    assert place.written == ({"one"} if after else set())
    assert place.deleted <= {"one"}
    assert {name: target.description(name)["id"] for name in target.names()} == keys
    assert_holds(target.records("pets"), [*REST, *([after] if after else [])], "l2")
    entry = report["collections"]["pets"]
    assert {entry[name] for name in ("source", "imported", "verified")} == {len(REST) + (after is not None)}
    if before is None:
        assert report["backup"] is None
    else:
        assert Path(report["backup"]).name == f"before-{report['run']}"
        (kept,) = in_snapshot(report["backup"]).items()
        assert kept[0] == "pets"
        assert_holds(kept[1], [before], "l2")
    assert place.report()["changed"] is False
    assert place.changes() == []


def test_what_changed_in_several_pieces_and_collections_is_all_that_is_written(place: Watched) -> None:
    source, target = place.source, place.target
    made = {"big": Made("big", "cosine", plain(2300)), "small": Made("small", "ip", plain(40))}
    source.put(*made.values())
    place.report()
    gone = [f"r{number:05d}" for number in (3, 999, 1000, 2299)]
    other = [replace(record, document="other") for record in made["big"].records[1500:1510]]
    new = plain(1100, prefix="new")
    source.delete("big", *gone)
    source.upsert("big", *other, *new)
    source.upsert("small", replace(made["small"].records[7], metadata={"number": 7.0, "odd": True}))
    report = place.report()
    assert report["carried"] == {"added": 1100, "changed": 11, "removed": 4}
    assert place.written == {record.id for record in [*other, *new]} | {"r00007"}
    assert place.deleted == set(gone)
    for name in made:
        assert_holds(target.records(name), source.records(name).values(), made[name].space)
    assert {name: len(records) for name, records in in_snapshot(report["backup"]).items()} == {"big": 14, "small": 1}
    assert place.report()["changed"] is False


def test_one_delta_after_the_other(place: Watched) -> None:
    """Each goes by what the last one left, and only the newest run's folder is kept."""
    source, target = place.source, place.target
    source.put(Made("pets", "cosine", REST))
    place.report()
    steps: list[Callable[[], None]] = [
        lambda: source.upsert("pets", *plain(3, prefix="new")),
        lambda: to_be(source, "pets", replace(REST[3], document=None), *plain(1, prefix="new", seed=5)),
        lambda: source.delete("pets", "new00001", REST[4].id),
        lambda: source.upsert("pets", REST[4], *plain(1, prefix="more")),
        lambda: source.delete("pets", *(record.id for record in REST)),
        lambda: source.upsert("pets", *REST),
    ]
    for step in steps:
        step()
        report = place.report()
        assert report["changed"] is True
        assert_holds(target.records("pets"), source.records("pets").values(), "cosine")
        folder = Path(report["checkpoint_file"]).parent
        assert [path.parent.name for path in folder.glob("run-*/plan.json")] == [f"run-{report['run']}"]
        assert place.report()["changed"] is False
    assert target.names() == ["pets"]


def test_a_collection_emptied_and_filled_again(place: Watched) -> None:
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST))
    place.report()
    source.delete("pets", *(record.id for record in REST))
    assert place.report()["carried"] == {"added": 0, "changed": 0, "removed": len(REST)}
    assert target.counts() == {"pets": 0}
    source.upsert("pets", *REST)
    place.report()
    assert_holds(target.records("pets"), REST, "l2")


def test_from_an_old_server(legacy: Server, receiving: Server, legacy_token: Path, chromactl: Chromactl) -> None:
    source = new_database(legacy)
    target = same_database(receiving, source.name)
    source.put(Made("pets", "cosine", REST))
    with watched(source, target, chromactl) as place:
        place.report("--source-token-file", legacy_token)
        source.delete("pets", REST[0].id)
        source.upsert("pets", replace(REST[1], document="other"), *plain(1, prefix="new"))
        report = place.report("--source-token-file", legacy_token)
        assert report["carried"] == {"added": 1, "changed": 1, "removed": 1}
        assert place.written == {REST[1].id, "new00000"}
        assert_holds(target.records("pets"), source.records("pets").values(), "cosine")
        assert place.report("--source-token-file", legacy_token)["changed"] is False


def test_into_a_directory(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, _ = pair
    source.put(Made("pets", "cosine", REST))
    place = ["--source-url", source.url, "--database", source.name, "--target-url", f"path:{tmp_path}/new"]
    arguments = ["migrate", *place, "--target-database", "default_database", "--profile", "identity", "--json"]
    assert chromactl(*arguments).code == 0
    source.delete("pets", REST[0].id)
    to_be(source, "pets", replace(REST[1], document=None, metadata=None), *plain(1, prefix="new"))
    report = chromactl(*arguments).json
    assert report["carried"] == {"added": 1, "changed": 1, "removed": 1}
    assert chromactl(*arguments).json["changed"] is False
    with chroma_server(tmp_path / "new") as server:
        assert_holds(Database(server).records("pets"), source.records("pets").values(), "cosine")


@pytest.mark.parametrize(
    ("moment", "drop"), [(1, True), (1, False), (2, True), (3, False), (4, True), (5, False), (6, True), (7, False)]
)
def test_a_delta_killed_between_any_two_changes_is_finished_by_the_same_command(
    place: Watched, tmp_path: Path, moment: int, drop: bool
) -> None:
    source, target = place.source, place.target
    records = plain(2100)
    source.put(Made("pets", "l2", records), Made("other", "cosine", REST))
    place.report()
    source.delete("pets", "r00001", "r01500")
    to_be(source, "pets", replace(records[2], document=None), replace(records[0], metadata={"number": 0.0}))
    source.upsert("pets", *plain(2, prefix="new"))
    to_be(source, "other", replace(REST[0], document=None))
    with running(tmp_path, *place.arguments()) as run:
        place.watch.counts = lambda side, path, body: side == "target" and path.endswith(CHANGES)
        place.watch.begin(at=moment, act=run.strike, drop=drop)
        run.process.wait()
        assert place.watch.happened.is_set(), run.end().err
        assert run.gone().code == -signal.SIGKILL
    report = place.report()
    assert report["carried"] == {"added": 2, "changed": 3, "removed": 2}
    assert place.written | place.deleted <= {"r00000", "r00001", "r00002", "r01500", "new00000", "new00001"} | {
        REST[0].id
    }
    for name, space in (("pets", "l2"), ("other", "cosine")):
        assert_holds(target.records(name), source.records(name).values(), space)
    kept = in_snapshot(report["backup"])
    assert_holds(kept["pets"], [records[number] for number in (0, 1, 2, 1500)], "l2")
    assert_holds(kept["other"], REST[:1], "cosine")
    assert place.report()["changed"] is False


def test_a_target_that_somebody_changed_meanwhile_is_refused_as_it_is(place: Watched) -> None:
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST))
    place.report()
    source.upsert("pets", *plain(1, prefix="new"))
    foreign = replace(REST[5], document="theirs")
    target.upsert("pets", foreign)
    ended = place.run()
    assert (ended.code, ended.out) == (3, "")
    assert "already holds a collection pets with other content" in ended.complaint
    assert place.changes() == []
    assert_holds(target.records("pets"), [foreign if one.id == foreign.id else one for one in REST], "l2")


def test_after_both_have_changed_the_whole_way_is_gone_again(place: Watched) -> None:
    """What was read for a delta run that cannot be does not count as exported."""
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST))
    place.report()
    changed = [replace(REST[2], document="ours"), *plain(2, prefix="new")]
    source.upsert("pets", *changed)
    target.upsert("pets", replace(REST[5], document="theirs"))
    assert place.run().code == 3
    report = place.report("--replace")
    assert_holds(target.records("pets"), [*REST[:2], *REST[3:], *changed], "l2")
    assert target.records(report["kept"]["pets"])[REST[5].id].document == "theirs"


def test_a_collection_that_came_to_the_source_is_migrated_and_the_others_are_kept(place: Watched) -> None:
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST))
    place.report()
    source.put(Made("late", "cosine", plain(4)))
    report = place.report()
    assert report["carried"] is None
    assert_holds(target.records("late"), plain(4), "cosine")
    assert_holds(target.records("pets"), REST, "l2")
    assert target.names() == ["late", "pets"]
    assert place.report()["changed"] is False


def test_a_collection_that_left_the_source_stays_in_the_target(place: Watched) -> None:
    """Nothing of a target is removed because a whole collection is gone; that may be somebody's mistake."""
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST), Made("late", "cosine", plain(4)))
    place.report()
    source.drop("late")
    place.report()
    assert target.counts() == {"late": 4, "pets": len(REST)}


def test_a_collection_made_anew_in_the_source_is_carried_over_record_by_record(place: Watched) -> None:
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST))
    place.report()
    source.drop("pets")
    source.put(Made("pets", "l2", REST[:-1]))
    assert place.report()["carried"] == {"added": 0, "changed": 0, "removed": 1}
    assert_holds(target.records("pets"), REST[:-1], "l2")


def test_a_collection_with_another_metric_is_migrated_as_a_whole(place: Watched) -> None:
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST))
    place.report()
    source.drop("pets")
    source.put(Made("pets", "ip", REST))
    report = place.report()
    assert target.metric("pets") == "ip"
    assert_holds(target.records("pets"), REST, "ip")
    assert target.metric(report["kept"]["pets"]) == "l2"
    assert place.report()["changed"] is False


def test_other_metadata_of_a_collection_is_brought_by_migrating_it_as_a_whole(place: Watched) -> None:
    source, target = place.source, place.target
    source.put(Made("pets", "l2", REST, {"owner": "ü"}))
    place.report()
    key = source.description("pets")["id"]
    source.request("PUT", f"/collections/{key}", {"new_metadata": {"owner": "ö", "n": 1}})
    assert place.report()["changed"] is True
    assert target.description("pets")["metadata"] == {"owner": "ö", "n": 1}
    assert_holds(target.records("pets"), REST, "l2")
    assert place.report()["changed"] is False
