"""Rollbacks of runs: everything as it was, proven by digest, whatever came before."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from chromactl.snapshot.manifest import read_manifest
from support.databases import Database, assert_holds
from support.migrations import CHANGES, in_snapshot, watched
from support.records import Made, Record, plain
from support.rollbacks import FORMER, NASTY, PETS, Place
from support.servers import chroma_server
from support.trees import tree


def record(target: Database, name: str) -> Record:
    """Any record of the collection."""
    return next(iter(target.records(name).values()))


def changed_vector(target: Database) -> None:
    one = record(target, "pets")
    target.upsert("pets", Record(one.id, one.embedding + np.float32(1e-2), one.document, one.uri, one.metadata))


def dropped(target: Database) -> None:
    # Not by the drop alone: 1.5.9 leaves lists of metadata behind, for the next records of these ids (7594).
    target.delete("nasty", *target.records("nasty"))
    target.drop("nasty")


FAILURES: dict[str, Callable[[Database], None]] = {
    "nothing": lambda target: None,
    "a lost record": lambda target: target.delete("pets", record(target, "pets").id),
    "a changed vector": changed_vector,
    "many lost records": lambda target: target.delete("pets", *list(target.records("pets"))[:300]),
    "extra records": lambda target: target.upsert("pets", *plain(3, 16, prefix="extra")),
    "a dropped collection": dropped,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_after_a_failure_nothing_is_there_where_nothing_was(place: Place, failure: str) -> None:
    run = place.migrate()["run"]
    FAILURES[failure](place.target)
    imported = {name: place.target.records(name) for name in place.target.names()}
    report = place.rolled_back("--run", run)
    assert (report["changed"], report["status"], report["run"]) == (True, "restored", run)
    assert place.target.names() == []
    archive = in_snapshot(report["archive"])
    assert set(archive) == set(imported)
    for name, records in imported.items():
        assert_holds(archive[name], records.values(), "l2")
    again = place.rolled_back("--run", run)
    assert (again["changed"], again["status"], again["archive"]) == (False, "unchanged", None)
    assert place.migrate()["status"] == "complete"
    place.holds(PETS, NASTY)


@pytest.mark.parametrize("failure", FAILURES)
def test_after_a_failure_the_replaced_collection_is_back_and_its_digest_is_the_snapshots(
    place: Place, failure: str
) -> None:
    place.target.put(FORMER)
    before = place.state()
    migrated = place.migrate("--replace")
    FAILURES[failure](place.target)
    report = place.rolled_back("--run", migrated["run"])
    assert place.state() == before
    place.holds(FORMER)
    (kept,) = read_manifest(Path(migrated["backup"])).collections
    assert report["collections"]["pets"] == {
        "way": "renamed",
        "records": kept.count,
        "digest": kept.digest,
        "verified": True,
    }
    # The proof without a word of chromactl's: the same records as in the snapshot made before.
    assert_holds(place.target.records("pets"), in_snapshot(migrated["backup"])["pets"].values(), "l2")
    again = place.rolled_back("--run", migrated["run"])
    assert (again["changed"], again["status"]) == (False, "unchanged")
    assert place.state() == before
    assert place.migrate("--replace")["status"] == "complete"
    place.holds(PETS, NASTY)


def test_only_one_collection_goes_back(place: Place) -> None:
    place.target.put(FORMER)
    run = place.migrate("--replace")["run"]
    report = place.rolled_back("--run", run, "--collection", "pets")
    assert list(report["collections"]) == ["pets"]
    assert report["now"] == {"pets": len(FORMER.records)}
    place.holds(FORMER, NASTY)
    report = place.rolled_back("--run", run)
    ways = {name: entry["way"] for name, entry in report["collections"].items()}
    assert ways == {"pets": "as_it_was", "nasty": "removed"}
    assert report["now"] == {"pets": len(FORMER.records), "nasty": None}
    place.holds(FORMER)


def test_a_delta_run_is_undone_record_by_record_and_then_the_run_before_it(place: Place) -> None:
    first = place.migrate()["run"]
    before = place.state()
    records = place.target.records("pets")
    gone, new = PETS.records[3].id, plain(20, 16, prefix="new", seed=2)
    other = Record(PETS.records[0].id, PETS.records[0].embedding, "other", None, {"only": "this"})
    place.source.delete("pets", gone, other.id)
    place.source.upsert("pets", other, *new)
    delta = place.migrate()
    assert delta["carried"] == {"added": 20, "changed": 1, "removed": 1}
    refused = place.rollback("--run", first)
    assert refused.code == 3
    assert f"run {delta['run']} has changed pets since" in refused.complaint
    report = place.rolled_back("--run", delta["run"])
    assert report["collections"]["pets"]["way"] == "amended"
    assert report["collections"]["nasty"]["way"] == "as_it_was"
    assert place.state() == before
    assert_holds(place.target.records("pets"), records.values(), "cosine")
    assert place.rolled_back("--run", delta["run"])["status"] == "unchanged"
    assert place.rolled_back("--run", first, "--dry-run")["collections"]["pets"]["way"] == "removed"
    again = place.migrate()
    assert again["status"] == "complete"
    assert set(place.target.records("pets")) == {record.id for record in (*PETS.records, *new)} - {gone}
    place.rolled_back("--run", again["run"])
    assert_holds(place.target.records("pets"), records.values(), "cosine")


@pytest.mark.parametrize("moment", [1, 2, 3])
@pytest.mark.parametrize("based_on", ["the first run", "a delta run"])
def test_what_half_a_delta_run_has_done_goes_with_the_run_before_it(place: Place, based_on: str, moment: int) -> None:
    """It broke off while it changed live collections, so they hold some of its records."""
    with watched(place.source, place.target, place.chromactl) as way:
        run = way.report()["run"]
        before: dict[str, dict[str, Record]] = {}
        if based_on == "a delta run":
            before = {name: place.target.records(name) for name in place.target.names()}
            place.source.delete("pets", PETS.records[1].id)
            place.source.upsert("pets", replace(PETS.records[2], document="new"), *plain(3, 16, prefix="some", seed=2))
            run = way.report()["run"]
        # What the delta run has added, changed and removed, and others, are changed, removed and brought again.
        place.source.delete("pets", "some00000", PETS.records[3].id)
        place.source.upsert("pets", PETS.records[1], replace(PETS.records[2], document="newer"))
        place.source.upsert("pets", *plain(3, 16, prefix="more", seed=3), replace(PETS.records[600], document="new"))
        way.watch.counts = lambda side, path, body: side == "target" and path.endswith(CHANGES)
        way.watch.begin(at=moment, drop=True)
        broken = way.chromactl(*way.arguments("--max-retries", "0", "--workers", "1"))
        assert broken.code == 1, broken.err
        way.watch.begin()
        assert place.rolled_back("--run", run)["status"] == "restored"
        assert place.target.names() == sorted(before)
        for name, records in before.items():
            assert_holds(place.target.records(name), records.values(), "cosine")
        assert place.rolled_back("--run", run)["status"] == "unchanged"
        assert way.report()["status"] == "complete"
        assert_holds(place.target.records("pets"), place.source.records("pets").values(), "cosine")


def test_the_run_that_a_validation_has_failed_is_found_by_its_report(place: Place) -> None:
    run = place.migrate()["run"]
    sides = ["--old-db-url", place.source.url, "--new-db-url", place.target.url, "--database", place.source.name]
    validate = ["validate", *sides, "--profile", "identity", "--json", "--stored-queries", "3"]
    assert place.chromactl(*validate).code == 0
    refused = place.rollback("--validation-report", "validation_report.md")
    assert refused.code == 3
    assert "the verdict is PASSED and asks for no rollback" in refused.complaint
    place.target.delete("pets", *list(place.target.records("pets"))[:300])
    assert place.chromactl(*validate).code == 4
    report = place.rolled_back("--validation-report", "validation_report.md", "--report-output", "out/back.md")
    assert (report["run"], report["reason"]) == (run, "Data Loss Detected")
    assert place.target.names() == []
    page = Path("out/back.md").read_text(encoding="utf-8")
    assert "Data Loss Detected" in page
    assert run in page
    assert orjson.loads(Path("out/back.json").read_bytes()) == report
    lines = [orjson.loads(line) for line in Path("migration_logs/audit.jsonl").read_bytes().splitlines()]
    deeds = [(line["command"], line["outcome"], line.get("run")) for line in lines if line["outcome"] != "begun"]
    assert deeds == [("migrate", "complete", run), ("rollback", "restored", run)]
    lines = [orjson.loads(line) for line in Path("validation_logs/audit.jsonl").read_bytes().splitlines()]
    assert [line["outcome"] for line in lines] == ["begun", "PASSED", "begun", "FAILED"]


@pytest.mark.parametrize("former", [(), (FORMER,)], ids=["empty", "occupied"])
def test_a_run_that_broke_off_is_cleared_away(place: Place, former: tuple[Made, ...]) -> None:
    place.target.put(*former)
    before = place.state()
    with watched(place.source, place.target, place.chromactl) as way:
        way.watch.counts = lambda side, path, body: path.endswith("/add")
        way.watch.begin(at=2, drop=True)
        broken = way.chromactl(*way.arguments("--max-retries", "0", "--replace"))
        assert broken.code == 1, broken.err
        (folder,) = Path("migration_checkpoints").glob("run-*")
        run = folder.name.removeprefix("run-")
        assert len(place.target.names()) > len(before)
        assert place.rolled_back("--run", run)["status"] == "restored"
        assert place.state() == before
        way.watch.begin()
        assert way.report("--replace")["status"] == "complete"
    place.holds(PETS, NASTY)


def test_a_directory_goes_back_and_a_dry_run_leaves_its_bytes(place: Place, tmp_path: Path) -> None:
    with chroma_server(tmp_path / "new") as server:
        Database(server).put(FORMER)
    options = [
        "--source-url",
        place.source.url,
        "--database",
        place.source.name,
        "--target-url",
        f"path:{tmp_path}/new",
    ]
    place_of = ["--target-database", "default_database"]
    migrated = place.chromactl("migrate", *options, *place_of, "--profile", "identity", "--replace", "--json")
    assert migrated.code == 0, migrated.err
    before = tree(tmp_path / "new")
    assert place.rolled_back("--run", migrated.json["run"], "--dry-run")["status"] == "dry-run"
    assert tree(tmp_path / "new") == before
    report = place.rolled_back("--run", migrated.json["run"])
    assert {name: entry["way"] for name, entry in report["collections"].items()} == {
        "pets": "renamed",
        "nasty": "removed",
    }
    with chroma_server(tmp_path / "new") as server:
        assert Database(server).names() == ["pets"]
        assert_holds(Database(server).records("pets"), FORMER.records, "l2")


# A dry run


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(place: Place) -> None:
    place.target.put(FORMER)
    run = place.migrate("--replace")["run"]
    before = place.state()
    report = place.rolled_back("--run", run, "--dry-run")
    assert (report["changed"], report["status"], report["archive"]) == (True, "dry-run", None)
    assert {name: entry["way"] for name, entry in report["collections"].items()} == {
        "pets": "renamed",
        "nasty": "removed",
    }
    assert place.state() == before
    assert not Path("rollback_report.md").exists()
    assert not list(Path("migration_backups").glob("failed-*"))


def test_a_target_that_lost_vectors_is_rolled_back_and_the_archive_says_what_it_lacks(
    place: Place, tmp_path: Path
) -> None:
    """The index lost them, the counts are right: just what a rollback is for must not stop it."""
    target = f"path:{tmp_path}/new"
    source = ["--source-url", place.source.url, "--database", place.source.name]
    migrate = ["migrate", *source, "--target-url", target, "--target-database", "default_database"]
    migrated = place.chromactl(*migrate, "--profile", "identity", "--json")
    assert migrated.code == 0, migrated.err
    lost = [record.id for record in PETS.records[:3]]
    with closing(sqlite3.connect(tmp_path / "new" / "chroma.sqlite3")) as connection, connection:
        for name in lost:
            assert connection.execute("DELETE FROM embeddings_queue WHERE id = ?", (name,)).rowcount
    report = place.rolled_back("--run", migrated.json["run"])
    assert report["status"] == "restored"
    assert report["not_archived"] == {"pets": 3}
    assert set(in_snapshot(report["archive"])["pets"]) == {record.id for record in PETS.records} - set(lost)
    page = Path("rollback_report.md").read_text(encoding="utf-8")
    assert all(name in page for name in lost)
