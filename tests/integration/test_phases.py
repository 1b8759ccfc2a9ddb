"""Phases, overlapping or one after the other: the same lines and checkpoints, and a gate that guards the target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import yaml

from support.command import Chromactl
from support.databases import Database, assert_holds, same_database
from support.ended import Ended
from support.migrations import Watched, watched
from support.records import Made, Record, plain
from support.servers import Server

Pair = tuple[Database, Database]
PHASES = ["preflight", "export", "transform", "validate", "import", "verify", "complete"]
MODES = pytest.mark.parametrize("mode", [(), ("--strict-phases",)], ids=["overlapping", "strict"])
SCHEMA = {"name": "own", "fields": {"number": {"type": "int", "minimum": 0}}}


@pytest.fixture
def place(pair: Pair, chromactl: Chromactl) -> Iterator[Watched]:
    with watched(*pair, chromactl) as made:
        yield made


@pytest.fixture
def profile(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "own.yml"
    path.write_text(yaml.safe_dump(SCHEMA))
    return "--profile", str(path)


def bad(records: list[Record], *numbers: int) -> list[Record]:
    return [
        replace(record, metadata={"number": -1}) if number in numbers else record
        for number, record in enumerate(records)
    ]


def checkpoints(folder: Path) -> list[str]:
    paths = sorted(folder.glob("migration_checkpoints/checkpoint_*.json"))
    assert all(re.fullmatch(r"checkpoint_\d{8}_\d{6}\.json", path.name) for path in paths)
    return [orjson.loads(path.read_bytes())["phase"] for path in paths]


def for_people(place: Watched, *more: str) -> Ended:
    """The command without --json."""
    place.watch.begin()
    return place.chromactl(*(word for word in place.arguments(*more) if word != "--json"))


def phase_lines(said: str) -> list[str]:
    words = ("✓", "Total chunks", "Transformed", "Issues found", "[DRY-RUN]")
    return [line for line in said.splitlines() if line.startswith(words)]


@MODES
def test_the_lines_and_checkpoints_that_runbooks_look_for(
    place: Watched, profile: tuple[str, str], tmp_path: Path, mode: tuple[str, ...]
) -> None:
    place.source.put(Made("pets", "l2", bad(plain(1250), 3, 1200)), Made("zoo", "cosine", plain(30)))
    ended = for_people(place, *profile, *mode, "--batch-size", "100")
    assert ended.code == 0, ended.err
    expected = [
        "Total chunks to migrate: 1,280",
        "✓ Phase 1 Complete: 1,280 chunks saved",
        "Transformed 1,248 chunks of pets",
        "Transformed 30 chunks of zoo",
        "✓ Phase 2 Complete: 1,278 chunks classified",
        "Issues found: invalid_number 2",
        "✓ Phase 3 Complete: Validation passed (99.84% success rate)",
        "✓ Phase 4 Complete: Loaded 1,278 chunks into 2 collections",
        "✓ Phase 5 Complete: Migration passed all verifications",
    ]
    assert phase_lines(ended.err) == expected
    assert checkpoints(tmp_path) == PHASES
    (log,) = tmp_path.glob("migration_logs/migration_*.log")
    text = log.read_text()
    assert all(line in text for line in expected)
    batches = [(int(one), int(of)) for one, of in re.findall(r"batch (\d+)/(\d+)", text)]
    assert sorted(one for one, _ in batches) == list(range(1, 15))
    assert {of for _, of in batches} == {14}


@MODES
def test_nothing_goes_to_the_target_before_the_gate_where_phases_are_strict_and_much_does_otherwise(
    place: Watched, profile: tuple[str, str], tmp_path: Path, mode: tuple[str, ...]
) -> None:
    place.source.put(Made("pets", "l2", plain(6300, 2)))
    reached: list[list[str]] = []
    place.watch.counts = lambda side, path, body: bool(
        side == "target" and body and not path.endswith(("/get", "/count", "/query"))
    )
    place.watch.begin(at=1 if mode else 2, act=lambda: reached.append(checkpoints(tmp_path)))
    ended = place.chromactl(*place.arguments(*profile, *mode, "--workers", "1"))
    assert ended.code == 0, ended.err
    assert reached == [PHASES[:4] if mode else PHASES[:1]]


@MODES
def test_a_run_that_fails_the_gate_leaves_the_target_as_it_was(
    place: Watched, profile: tuple[str, str], tmp_path: Path, mode: tuple[str, ...]
) -> None:
    """Also the part of rejects that was examined after it was clear that there are too many."""
    theirs = Made("theirs", "ip", plain(7, prefix="theirs"))
    place.target.put(theirs)
    wrong = [0, 5, 700, 1300, 2100, *range(2200, 2400)]
    place.source.put(Made("pets", "l2", bad(plain(2500, 4), *wrong)), Made("zoo", "l2", plain(1500, 4, prefix="z")))
    ended = place.run(*profile, *mode)
    assert (ended.code, ended.out) == (4, "")
    assert "5.1% of the records cannot be migrated, more than the 5.0% of --max-reject-rate" in ended.complaint
    assert (place.target.names(), checkpoints(tmp_path)) == (["theirs"], [])
    assert_holds(place.target.records("theirs"), theirs.records, "ip")
    assert list(tmp_path.glob("migration_checkpoints/run-*")) == []
    if mode:
        assert place.changes() == []
    (rejects,) = tmp_path.glob("migration_logs/*.rejects.jsonl")
    assert str(rejects) in ended.complaint
    lines = [orjson.loads(line) for line in rejects.read_bytes().splitlines()]
    assert {line["id"] for line in lines} == {f"r{number:05d}" for number in wrong}
    assert {(line["collection"], line["field"], line["reason"]) for line in lines} == {
        ("pets", "number", "invalid_number")
    }
    (log,) = tmp_path.glob("migration_logs/migration_*.log")
    assert "Validation FAILED (94.88% success rate)" in log.read_text()


def test_too_many_rejects_stop_the_writing_at_once(place: Watched, profile: tuple[str, str]) -> None:
    good = plain(1000, 2, prefix="good")
    rest = plain(4000, 2, prefix="rest")
    place.source.put(
        Made("aaa", "l2", good), Made("bbb", "l2", bad(plain(1000, 2), *range(1000))), Made("ccc", "l2", rest)
    )
    assert place.run(*profile, "--workers", "1").code == 4
    assert place.written <= {record.id for record in good}
    assert place.target.names() == []


def test_overlapping_and_strict_phases_bring_the_same(
    place: Watched, receiving: Server, profile: tuple[str, str], chromactl: Chromactl
) -> None:
    records = bad(plain(2100), 1, 1999)
    place.source.put(Made("pets", "cosine", records))
    one = place.report(*profile)
    other = same_database(receiving, f"{place.target.name}_strict")
    two = place.report(*profile, "--strict-phases", "--target-database", other.name)
    for database in (place.target, other):
        wanted = [record for record in records if (record.metadata or {})["number"] >= 0]
        assert_holds(database.records("pets"), wanted, "cosine")
    same = ("collections", "rejects", "rounded", "kept", "skipped", "status", "changed")
    assert {key: one[key] for key in same} == {key: two[key] for key in same}
    assert [(phase["name"], phase["records"]) for phase in one["phases"]] == [
        (phase["name"], phase["records"]) for phase in two["phases"]
    ]


@MODES
def test_a_dry_run_says_what_it_would_do(
    place: Watched, profile: tuple[str, str], tmp_path: Path, mode: tuple[str, ...]
) -> None:
    place.source.put(Made("pets", "l2", bad(plain(1250), 3, 1200)), Made("zoo", "cosine", plain(30)))
    ended = for_people(place, *profile, *mode, "--dry-run", "--batch-size", "100")
    assert ended.code == 0, ended.err
    assert phase_lines(ended.err) == [
        "Total chunks to migrate: 1,280",
        "✓ Phase 1 Complete: 1,280 chunks saved",
        "Transformed 1,248 chunks of pets",
        "Transformed 30 chunks of zoo",
        "✓ Phase 2 Complete: 1,278 chunks classified",
        "Issues found: invalid_number 2",
        "✓ Phase 3 Complete: Validation passed (99.84% success rate)",
        "[DRY-RUN] Would import 1,278 chunks into 2 collections",
        "[DRY-RUN] Recommendation: PROCEED",
    ]
    assert place.changes() == []
    assert not (tmp_path / "migration_checkpoints").exists()


@MODES
def test_phases_without_a_record(place: Watched, tmp_path: Path, mode: tuple[str, ...]) -> None:
    place.source.put(Made("empty", "cosine", [], {"why": "nothing yet"}))
    ended = for_people(place, *mode)
    assert ended.code == 0, ended.err
    assert "✓ Phase 1 Complete: 0 chunks saved" in ended.err
    assert "Validation passed (100.00% success rate)" in ended.err
    assert "Loaded 0 chunks into 1 collections" in ended.err
    assert checkpoints(tmp_path) == PHASES
    assert place.target.description("empty")["metadata"] == {"why": "nothing yet"}
    assert place.report(*mode)["changed"] is False
