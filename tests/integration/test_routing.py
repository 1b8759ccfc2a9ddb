"""One collection into several and several into one, by a profile or a rename; every record is somewhere or rejected."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.migrations import Watched, watched
from support.process import running
from support.records import Made, Record, plain

Pair = tuple[Database, Database]
MERGED = {"animals": {"from": ["cats", "dogs"]}}


@pytest.fixture
def place(pair: Pair, chromactl: Chromactl) -> Iterator[Watched]:
    with watched(*pair, chromactl) as made:
        yield made


def profile(folder: Path, collections: dict[str, Any]) -> tuple[str, str]:
    path = folder / "own.yml"
    path.write_text(yaml.safe_dump({"name": "own", "collections": collections}, sort_keys=False))
    return "--profile", str(path)


def of_kind(count: int, *names: str) -> list[Record]:
    """Records whose kinds are these in turn."""
    return [
        replace(record, metadata={"kind": names[number % len(names)]}) for number, record in enumerate(plain(count))
    ]


def rejects(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    lines = [orjson.loads(line) for line in Path(report["rejects_file"]).read_text().splitlines()]
    return {(line["collection"], line["id"], line["reason"]) for line in lines}


def assert_adds_up(report: dict[str, Any], records: int) -> None:
    """Every record of the source is imported or rejected."""
    imported = sum(entry["imported"] for entry in report["collections"].values())
    assert imported + report["rejects"]["total"] == records
    assert sum(report["rejects"]["by_reason"].values()) == report["rejects"]["total"]
    assert all(entry["imported"] == entry["verified"] for entry in report["collections"].values())


# One into several


def test_one_into_several_by_what_records_say(place: Watched, tmp_path: Path) -> None:
    records = of_kind(1300, "cat", "dog", "bird")
    place.source.put(Made("pets", "cosine", records))
    collections = {
        "cats": {"from": ["pets"], "where": {"field": "kind", "in": ["cat"]}},
        "dogs": {"from": ["pets"], "where": {"field": "kind", "matches": "^do"}},
        "others": {"from": ["pets"]},
    }
    report = place.report(*profile(tmp_path, collections))
    for name, kind in (("cats", "cat"), ("dogs", "dog"), ("others", "bird")):
        wanted = [record for record in records if (record.metadata or {})["kind"] == kind]
        assert_holds(place.target.records(name), wanted, "cosine")
        assert place.target.metric(name) == "cosine"
    assert_adds_up(report, 1300)
    assert place.report(*profile(tmp_path, collections))["changed"] is False


def test_records_that_no_target_takes_are_rejects_of_no_single_target(place: Watched, tmp_path: Path) -> None:
    records = of_kind(40, *["cat"] * 19, "dog")
    place.source.put(Made("pets", "l2", records))
    collections = {
        "cats": {"from": ["pets"], "where": {"field": "kind", "in": ["cat"]}},
        "birds": {"from": ["pets"], "where": {"field": "kind", "in": ["bird"]}},
    }
    report = place.report(*profile(tmp_path, collections))
    assert report["rejects"] == {"total": 2, "by_reason": {"no_collection": 2}, "unplaced": {"pets": 2}}
    assert rejects(report) == {("pets", "r00019", "no_collection"), ("pets", "r00039", "no_collection")}
    assert place.target.counts() == {"birds": 0, "cats": 38}
    assert_adds_up(report, 40)
    assert place.report(*profile(tmp_path, collections))["changed"] is False


# Several into one


def test_several_into_one(place: Watched, tmp_path: Path) -> None:
    cats, dogs = plain(1100, prefix="c"), plain(30, prefix="d", seed=1)
    place.source.put(Made("cats", "ip", cats), Made("dogs", "ip", dogs), Made("more", "l2", plain(2)))
    report = place.report(*profile(tmp_path, MERGED))
    assert_holds(place.target.records("animals"), [*cats, *dogs], "ip")
    assert report["collections"]["animals"]["sources"] == ["cats", "dogs"]
    assert report["skipped"] == ["more"]
    assert_adds_up(report, 1130)
    assert place.report(*profile(tmp_path, MERGED))["changed"] is False


def test_different_metrics_need_a_word_from_the_profile(place: Watched, tmp_path: Path) -> None:
    place.source.put(Made("cats", "ip", plain(3, prefix="c")), Made("dogs", "l2", plain(3, prefix="d")))
    ended = place.run(*profile(tmp_path, MERGED))
    assert ended.code == 3
    assert "cats, dogs have different metrics (ip, l2)" in ended.complaint
    assert "`space:`" in ended.complaint
    assert place.changes() == []
    place.report(*profile(tmp_path, {"animals": {**MERGED["animals"], "space": "cosine"}}))
    assert place.target.metric("animals") == "cosine"


def test_different_dimensions_cannot_be_merged(place: Watched, tmp_path: Path) -> None:
    place.source.put(Made("cats", "l2", plain(3, 8)), Made("dogs", "l2", plain(3, 16)))
    ended = place.run(*profile(tmp_path, MERGED))
    assert ended.code == 3
    assert "different dimensions (8, 16)" in ended.complaint
    assert (place.changes(), place.target.names()) == ([], [])


def test_of_two_records_with_one_id_the_first_collections_stays(place: Watched, tmp_path: Path) -> None:
    cats, dogs = plain(60, prefix="c"), [*plain(60, prefix="d", seed=1), *plain(3, prefix="c", seed=2)]
    place.source.put(Made("cats", "l2", cats), Made("dogs", "l2", dogs))
    report = place.report(*profile(tmp_path, MERGED))
    assert_holds(place.target.records("animals"), [*cats, *dogs[:60]], "l2")
    assert rejects(report) == {("dogs", record.id, "duplicate_id") for record in dogs[60:]}
    assert_adds_up(report, 123)
    again = place.report(*profile(tmp_path, MERGED))
    assert (again["changed"], again["rejects"]["total"]) == (False, 3)


def test_too_many_of_one_id_leave_the_target_as_it_was(place: Watched, tmp_path: Path) -> None:
    place.source.put(Made("cats", "l2", plain(10)), Made("dogs", "l2", plain(10, seed=1)))
    assert place.run(*profile(tmp_path, MERGED)).code == 4
    assert place.target.names() == []


@pytest.mark.parametrize("template", ["{collection}:{id}", "{id}@{collection}"])
def test_a_template_that_tells_collections_apart_keeps_both(place: Watched, tmp_path: Path, template: str) -> None:
    made = {"cats": plain(30), "dogs": plain(30, seed=1)}
    place.source.put(*(Made(name, "l2", records) for name, records in made.items()))
    options = profile(tmp_path, {"animals": {**MERGED["animals"], "ids": template}})
    report = place.report(*options)
    wanted = [
        replace(record, id=template.format(collection=name, id=record.id))
        for name, records in made.items()
        for record in records
    ]
    assert_holds(place.target.records("animals"), wanted, "l2")
    assert report["rejects"]["total"] == 0
    assert place.report(*options)["changed"] is False


def test_a_template_that_does_not_tell_them_apart_doubles_nothing(place: Watched, tmp_path: Path) -> None:
    place.source.put(Made("cats", "l2", plain(40)), Made("dogs", "l2", plain(2, seed=1)))
    options = profile(tmp_path, {"animals": {**MERGED["animals"], "ids": "x-{id}"}})
    report = place.report(*options)
    assert_holds(place.target.records("animals"), [replace(one, id=f"x-{one.id}") for one in plain(40)], "l2")
    assert rejects(report) == {("dogs", f"x-r0000{number}", "duplicate_id") for number in range(2)}
    assert_adds_up(report, 42)


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_killed_and_resumed_the_same_records_stay(place: Watched, tmp_path: Path, moment: int) -> None:
    cats, dogs = plain(1100, prefix="c"), [*plain(1100, prefix="d", seed=1), *plain(30, prefix="c", seed=2)]
    place.source.put(Made("cats", "l2", cats), Made("dogs", "l2", dogs))
    options = profile(tmp_path, MERGED)
    with running(tmp_path, *place.arguments(*options)) as run:
        place.watch.counts = lambda side, path, body: path.endswith("/add")
        place.watch.begin(at=moment, act=run.strike, drop=moment % 2 == 0)
        run.process.wait()
        assert place.watch.happened.is_set(), run.end().err
        assert run.gone().code == -signal.SIGKILL
    report = place.report(*options)
    assert_holds(place.target.records("animals"), [*cats, *dogs[:1100]], "l2")
    assert rejects(report) == {("dogs", record.id, "duplicate_id") for record in dogs[1100:]}
    assert_adds_up(report, 2230)


# Renames


def test_a_renamed_collection_arrives_under_its_new_name(place: Watched) -> None:
    place.source.put(Made("pets", "ip", plain(20), {"owner": "ü"}), Made("other", "l2", plain(5)))
    report = place.report("--rename", "pets=animals")
    assert place.target.names() == ["animals", "other"]
    assert_holds(place.target.records("animals"), plain(20), "ip")
    assert place.target.description("animals")["metadata"] == {"owner": "ü"}
    assert report["collections"]["animals"]["sources"] == ["pets"]
    assert place.report("--rename", "pets=animals")["changed"] is False


def test_names_can_be_exchanged(place: Watched) -> None:
    place.source.put(Made("one", "l2", plain(3, prefix="one")), Made("two", "l2", plain(3, prefix="two")))
    place.report("--rename", "one=two", "--rename", "two=one")
    assert_holds(place.target.records("two"), plain(3, prefix="one"), "l2")
    assert_holds(place.target.records("one"), plain(3, prefix="two"), "l2")


@pytest.mark.parametrize(
    ("renames", "words"),
    [
        (["nobody=animals"], "no collection nobody results from this migration"),
        (["one=two"], "2 collections would be called two"),
        (["one=xyz", "two=xyz"], "2 collections would be called xyz"),
        (["one=abc", "one=xyz"], "given 2 times"),
        (["one=x"], "cannot be the name of a collection"),
        (["one=a b c"], "cannot be the name of a collection"),
        (["one"], "give OLD=NEW"),
        (["=x"], "give OLD=NEW"),
        (["one="], "give OLD=NEW"),
    ],
)
def test_a_rename_that_cannot_be_is_a_matter_of_usage(place: Watched, renames: list[str], words: str) -> None:
    place.source.put(Made("one", "l2", plain(3)), Made("two", "l2", plain(3)))
    ended = place.run(*(word for rename in renames for word in ("--rename", rename)))
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.complaint
    assert (place.changes(), place.target.names()) == ([], [])


def test_a_rename_is_of_the_target_that_a_profile_names(place: Watched, tmp_path: Path) -> None:
    place.source.put(Made("cats", "l2", plain(3, prefix="c")), Made("dogs", "l2", plain(3, prefix="d")))
    place.report(*profile(tmp_path, MERGED), "--rename", "animals=zoo")
    assert place.target.counts() == {"zoo": 6}
