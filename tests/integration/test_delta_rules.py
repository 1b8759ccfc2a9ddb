"""A changed source is carried over through a profile: records move, fall out, or would be too many to lose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.migrations import Watched, in_snapshot, watched
from support.records import Made, Record, plain

Pair = tuple[Database, Database]


@pytest.fixture
def place(pair: Pair, chromactl: Chromactl) -> Iterator[Watched]:
    with watched(*pair, chromactl) as made:
        yield made


def profile(folder: Path, collections: dict[str, Any], **more: Any) -> tuple[str, str]:
    path = folder / "own.yml"
    path.write_text(yaml.safe_dump({"name": "own", "collections": collections, **more}, sort_keys=False))
    return "--profile", str(path)


def kinds(*names: str, seed: int = 0) -> list[Record]:
    return [
        replace(record, metadata={"kind": name})
        for record, name in zip(plain(len(names), seed=seed), names, strict=True)
    ]


SPLIT = {"cats": {"from": ["pets"], "where": {"field": "kind", "in": ["cat"]}}, "dogs": {"from": ["pets"]}}
AGES = {"age": {"type": "int", "minimum": 0}}


def aged(count: int, *, bad: int = 0) -> list[Record]:
    return [
        replace(record, metadata={"age": -1 if number < bad else number}) for number, record in enumerate(plain(count))
    ]


def test_a_record_moves_between_targets_when_the_field_that_decides_changes(place: Watched, tmp_path: Path) -> None:
    source, target = place.source, place.target
    options = profile(tmp_path, SPLIT)
    records = kinds("cat", "dog", "cat", "dog")
    source.put(Made("pets", "l2", records))
    place.report(*options)
    moved = replace(records[0], metadata={"kind": "dog"})
    source.upsert("pets", moved)
    report = place.report(*options)
    assert report["carried"] == {"added": 1, "changed": 0, "removed": 1}
    assert (place.written, place.deleted) == ({moved.id}, {moved.id})
    assert_holds(target.records("cats"), [records[2]], "l2")
    assert_holds(target.records("dogs"), [moved, records[1], records[3]], "l2")
    (kept,) = in_snapshot(report["backup"]).items()
    assert kept[0] == "cats"
    assert_holds(kept[1], [records[0]], "l2")
    assert place.report(*options)["changed"] is False
    source.upsert("pets", records[0])
    place.report(*options)
    assert_holds(target.records("cats"), [records[0], records[2]], "l2")
    assert_holds(target.records("dogs"), [records[1], records[3]], "l2")


def test_a_record_that_becomes_a_reject_is_removed_and_counted_and_comes_back(place: Watched, tmp_path: Path) -> None:
    source, target = place.source, place.target
    options = profile(tmp_path, {"pets": {"fields": AGES}})
    records = aged(40)
    source.put(Made("pets", "l2", records))
    place.report(*options)
    source.upsert("pets", replace(records[7], metadata={"age": -1}))
    report = place.report(*options)
    assert report["carried"] == {"added": 0, "changed": 0, "removed": 1}
    assert report["rejects"]["by_reason"] == {"invalid_age": 1}
    entry = report["collections"]["pets"]
    assert (entry["source"], entry["imported"], entry["verified"], entry["rejected"]) == (40, 39, 39, 1)
    (line,) = Path(report["rejects_file"]).read_text().splitlines()
    assert orjson.loads(line)["id"] == records[7].id
    assert_holds(target.records("pets"), [one for one in records if one.id != records[7].id], "l2")
    again = place.report(*options)
    assert (again["changed"], again["rejects"]["total"]) == (False, 1)
    source.upsert("pets", records[7])
    report = place.report(*options)
    assert (report["carried"]["added"], report["rejects"]["total"]) == (1, 0)
    assert_holds(target.records("pets"), records, "l2")


def test_rejects_of_a_piece_that_did_not_change_are_counted_and_listed_on(place: Watched, tmp_path: Path) -> None:
    source, _ = place.source, place.target
    options = profile(tmp_path, {"pets": {"fields": AGES}, "zoo": {"fields": AGES}})
    source.put(Made("pets", "l2", aged(60, bad=2)), Made("zoo", "l2", aged(5)))
    place.report(*options)
    source.upsert("zoo", *plain(1, prefix="new"))
    report = place.report(*options)
    assert report["rejects"]["by_reason"] == {"invalid_age": 2}
    lines = [orjson.loads(line) for line in Path(report["rejects_file"]).read_text().splitlines()]
    assert {(line["collection"], line["id"]) for line in lines} == {("pets", "r00000"), ("pets", "r00001")}


def test_over_the_limit_the_target_stays_as_it_was(place: Watched, tmp_path: Path) -> None:
    source, target = place.source, place.target
    options = profile(tmp_path, {"pets": {"fields": AGES}})
    records = aged(40)
    source.put(Made("pets", "l2", records))
    place.report(*options)
    checkpoints = sorted((tmp_path / "migration_checkpoints").iterdir())
    source.upsert("pets", *aged(40, bad=3), *plain(1, prefix="new"))
    for _ in range(2):
        ended = place.run(*options)
        assert (ended.code, ended.out) == (4, "")
        assert "--max-reject-rate" in ended.complaint
        assert place.changes() == []
        assert_holds(target.records("pets"), records, "l2")
        assert sorted((tmp_path / "migration_checkpoints").iterdir()) == checkpoints
    assert place.report(*options, "--max-reject-rate", "0.1")["carried"] == {"added": 1, "changed": 0, "removed": 3}
    assert target.counts() == {"pets": 38}


def test_new_ids_follow_the_template(place: Watched, tmp_path: Path) -> None:
    source, target = place.source, place.target
    options = profile(tmp_path, {"animals": {"from": ["cats", "dogs"], "ids": "{collection}:{id}"}})
    source.put(Made("cats", "l2", plain(5)), Made("dogs", "l2", plain(5, seed=1)))
    place.report(*options)
    source.delete("cats", "r00001")
    source.upsert("dogs", replace(plain(5, seed=1)[1], document="other"), *plain(1, prefix="new"))
    report = place.report(*options)
    assert report["carried"] == {"added": 1, "changed": 1, "removed": 1}
    assert place.written == {"dogs:r00001", "dogs:new00000"}
    assert place.deleted == {"cats:r00001"}
    wanted = [replace(one, id=f"{name}:{one.id}") for name in ("cats", "dogs") for one in source.records(name).values()]
    assert_holds(target.records("animals"), wanted, "l2")


def test_an_id_that_two_merged_collections_come_to_share_takes_the_place_of_nothing(
    place: Watched, tmp_path: Path
) -> None:
    """The whole way again: which of the two goes is the same as if both had been there from the start."""
    source, target = place.source, place.target
    options = profile(tmp_path, {"animals": {"from": ["cats", "dogs"]}})
    cats, dogs = plain(30, prefix="c"), plain(30, prefix="d", seed=1)
    source.put(Made("cats", "l2", cats), Made("dogs", "l2", dogs))
    place.report(*options)
    source.upsert("dogs", replace(dogs[0], id=cats[3].id))
    report = place.report(*options)
    assert report["rejects"]["by_reason"] == {"duplicate_id": 1}
    assert_holds(target.records("animals"), [*cats, *dogs], "l2")
    again = place.report(*options)
    assert (again["changed"], again["rejects"]["total"]) == (False, 1)
    source.delete("cats", cats[3].id)
    report = place.report(*options)
    assert report["rejects"]["total"] == 0
    wanted = [*(one for one in cats if one.id != cats[3].id), *dogs, replace(dogs[0], id=cats[3].id)]
    assert_holds(target.records("animals"), wanted, "l2")
