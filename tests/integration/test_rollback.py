"""Rollbacks: everything as it was, proven by digest, whatever came before; and refusals that touch nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from chromactl import location
from chromactl.lock import locked
from chromactl.snapshot.manifest import read_manifest
from chromactl.stores.opening import Access
from support.command import Chromactl, Ended
from support.databases import Database, assert_holds, new_database
from support.migrations import Watched, in_snapshot, watched
from support.process import running
from support.records import Made, Record, nasty, plain
from support.servers import Server, chroma_server
from support.trees import tree

Pair = tuple[Database, Database]
Begin = Callable[[Watched, Database, list[str]], tuple[list[str], dict[str, Made]]]
PETS = Made("pets", "cosine", plain(700, 16))
NASTY = Made("nasty", "l2", nasty(lists=True))
FORMER = Made("pets", "l2", plain(90, 8, seed=5, prefix="former"), {"about": "what was there before", "n": 1})


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


class Place:
    """Two databases, and the commands between them."""

    def __init__(self, pair: Pair, chromactl: Chromactl, folder: Path) -> None:
        self.source, self.target = pair
        self.chromactl = chromactl
        self.folder = folder

    def migrate(self, *more: str) -> dict[str, Any]:
        place = ["--source-url", self.source.url, "--target-url", self.target.url, "--database", self.source.name]
        ended = self.chromactl("migrate", *place, "--profile", "identity", "--json", *more)
        assert ended.code == 0, ended.err
        return ended.json

    def rollback(self, *more: object) -> Ended:
        return self.chromactl("rollback", "--json", *more)

    def rolled_back(self, *more: object) -> dict[str, Any]:
        ended = self.rollback(*more)
        assert ended.code == 0, ended.err
        return ended.json

    def state(self) -> dict[str, tuple[str, int, Any]]:
        """Names, keys, counts and metadata of everything in the target."""
        counts = self.target.counts()
        about = {name: self.target.description(name) for name in counts}
        return {name: (about[name]["id"], counts[name], about[name]["metadata"]) for name in counts}

    def holds(self, *collections: Made) -> None:
        """Exactly these collections, beside what runs have kept."""
        assert [name for name in self.target.names() if "--before-" not in name] == sorted(
            made.name for made in collections
        )
        for made in collections:
            assert_holds(self.target.records(made.name), made.records, made.space)


@pytest.fixture
def place(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> Place:
    pair[0].put(PETS, NASTY)
    return Place(pair, chromactl, tmp_path)


# What a run left is undone


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
    place.holds(FORMER, NASTY)
    ways = {name: entry["way"] for name, entry in place.rolled_back("--run", run)["collections"].items()}
    assert ways == {"pets": "as_it_was", "nasty": "removed"}
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
    assert (report["changed"], report["status"], report["archive"]) == (False, "dry-run", None)
    assert {name: entry["way"] for name, entry in report["collections"].items()} == {
        "pets": "renamed",
        "nasty": "removed",
    }
    assert place.state() == before
    assert not Path("rollback_report.md").exists()
    assert not list(Path("migration_backups").glob("failed-*"))


# Going back to a backup


@pytest.fixture
def backups(place: Place, tmp_path: Path) -> dict[str, str]:
    """The source's records as a snapshot, as a JSON file and as a directory."""
    found = {"snapshot": f"snapshot:{tmp_path}/backup", "json": f"{tmp_path}/backup.json"}
    for url in found.values():
        ended = place.chromactl(
            "migrate", "--source-url", place.source.url, "--database", place.source.name, "--target-url", url,
            "--profile", "identity", "--checkpoint-dir", "elsewhere",
        )  # fmt: skip
        assert ended.code == 0, ended.err
    with chroma_server(tmp_path / "directory") as server:
        Database(server).put(PETS, NASTY)
    return {**found, "directory": f"{tmp_path}/directory"}


@pytest.fixture
def default(tmp_path: Path) -> Iterator[Database]:
    """The default database of a new server."""
    with chroma_server(tmp_path / "new") as server:
        yield Database(server)


@pytest.mark.parametrize("kind", ["snapshot", "json", "directory"])
@pytest.mark.parametrize("there", ["nothing", "others"])
def test_a_backup_comes_back(place: Place, backups: dict[str, str], default: Database, kind: str, there: str) -> None:
    untouched = Made("untouched", "l2", plain(4))
    if there == "others":
        place.target.put(FORMER, untouched)
    if kind == "directory":  # of the database that directories have
        place.target = default
        default.put(*([FORMER, untouched] if there == "others" else []))
    options = ["--backup-path", backups[kind], "--restore-url", place.target.url, "--database", place.target.name]
    report = place.rolled_back(*options)
    assert report["status"] == "restored"
    assert {entry["way"] for entry in report["collections"].values()} == {"rewritten"}
    place.holds(PETS, NASTY, *([untouched] if there == "others" else []))
    assert place.target.metric("pets") == "cosine"
    if there == "others":
        assert_holds(in_snapshot(report["archive"])["pets"], FORMER.records, "l2")
    again = place.rolled_back(*options)
    assert (again["status"], again["changed"]) == ("unchanged", False)
    place.target.delete("pets", PETS.records[0].id)
    assert {name: entry["way"] for name, entry in place.rolled_back(*options)["collections"].items()} == {
        "nasty": "as_it_was",
        "pets": "rewritten",
    }
    place.holds(PETS, NASTY, *([untouched] if there == "others" else []))


def test_only_one_collection_of_a_backup_comes_back(place: Place, backups: dict[str, str]) -> None:
    place.rolled_back(
        "--backup-path", backups["snapshot"], "--restore-url", place.target.url, "--database", place.target.name,
        "--collection", "nasty",
    )  # fmt: skip
    place.holds(NASTY)


def test_the_runbooks_script_goes_back_to_a_backup(place: Place, backups: dict[str, str]) -> None:
    script = Path(__file__).parents[2] / "scripts" / "chromadb_rollback.py"
    done = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, script, "--backup-path", backups["snapshot"], "--restore-url", place.target.url,
         "--database", place.target.name, "--report-output", "rollback_report.md"],
        check=False, capture_output=True, text=True, cwd=place.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place.holds(PETS, NASTY)
    assert "# Rollback report" in (place.folder / "rollback_report.md").read_text(encoding="utf-8")


# Refusals: exit code 3, and nothing touched


def replaced(place: Place) -> dict[str, Any]:
    place.target.put(FORMER)
    return place.migrate("--replace")


def refused(place: Place, *options: object) -> str:
    before = place.state()
    ended = place.rollback(*options)
    assert ended.code == 3, ended.err
    assert place.state() == before
    assert not list(Path("migration_backups").glob("failed-*"))
    assert "nothing was changed" in ended.complaint or "check" in ended.complaint
    return ended.complaint


def test_refused_where_the_kept_collection_was_pruned(place: Place) -> None:
    migrated = replaced(place)
    place.target.drop(migrated["kept"]["pets"])
    words = refused(place, "--run", migrated["run"])
    assert f"--backup-path {migrated['backup']} writes it anew" in words
    place.rolled_back(
        "--backup-path", migrated["backup"], "--restore-url", place.target.url, "--database", place.target.name
    )
    assert_holds(place.target.records("pets"), FORMER.records, "l2")


def test_refused_where_the_kept_collection_was_changed(place: Place) -> None:
    migrated = replaced(place)
    place.target.delete(migrated["kept"]["pets"], FORMER.records[0].id)
    assert "is not what its snapshot says it was (89 records, 90 then)" in refused(place, "--run", migrated["run"])


def test_refused_where_the_snapshot_is_damaged(place: Place) -> None:
    migrated = replaced(place)
    (shard, *_) = sorted(Path(migrated["backup"]).glob("pets/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    for options in (
        ["--run", migrated["run"]],
        ["--backup-path", migrated["backup"], "--restore-url", place.target.url, "--database", place.target.name],
    ):
        before = place.state()
        ended = place.rollback(*options)
        assert ended.code == 3, ended.err
        assert str(shard) in ended.complaint
        assert place.state() == before


def test_refused_where_the_snapshot_is_gone(place: Place) -> None:
    migrated = replaced(place)
    shutil.rmtree(migrated["backup"])
    assert "nothing proves what pets was" in refused(place, "--run", migrated["run"])


def test_refused_where_somebody_replaced_the_collection_since(place: Place) -> None:
    migrated = replaced(place)
    place.target.drop("pets")
    place.target.put(Made("pets", "l2", plain(3)))
    assert "is not what run" in refused(place, "--run", migrated["run"])


def test_refused_where_a_later_run_replaced_it(place: Place) -> None:
    first = place.migrate()["run"]
    imported = place.target.records("pets")
    place.source.drop("pets")
    place.source.put(Made("pets", "cosine", plain(5, 16, seed=9)))
    second = place.migrate("--batch-size", "50")
    words = refused(place, "--run", first)
    assert f"undo that one first (--run {second['run']})" in words
    place.rolled_back("--run", second["run"])
    assert_holds(place.target.records("pets"), imported.values(), "cosine")
    place.rolled_back("--run", first)
    assert [name for name in place.target.names() if "--before-" not in name] == []


def test_refused_unknown_runs_and_strange_backups(place: Place, tmp_path: Path) -> None:
    run = place.migrate()["run"]
    assert f"it knows {run}" in refused(place, "--run", "20200101T000000-abcdef")
    where = ["--restore-url", place.target.url, "--database", place.target.name]
    (tmp_path / "empty").mkdir()
    ended = place.rollback("--backup-path", tmp_path / "empty", *where)
    assert ended.code == 3
    for wrong, words in (
        ([], "one of them says what to go back to"),
        (["--run", run, "--backup-path", "x.json"], "give one of them"),
        (["--backup-path", "x.json"], "--restore-url is missing"),
        (["--run", run, "--restore-url", "http://127.0.0.1:1"], "wrote to"),
        (["--run", run, "--collection", "none"], "has none of this name"),
        (["--backup-path", "x.json", "--restore-url", "snapshot:x"], "never changed once it is complete"),
    ):
        ended = place.rollback(*wrong)
        assert ended.code == 2, ended.err
        assert words in ended.complaint
    place.holds(PETS, NASTY)


def test_refused_to_take_the_backup_of_a_delta_for_all_there_was(place: Place) -> None:
    place.migrate()
    place.source.delete("pets", PETS.records[0].id)
    delta = place.migrate()
    words = refused(
        place, "--backup-path", delta["backup"], "--restore-url", place.target.url, "--database", place.target.name
    )
    assert f"--run {delta['run']}" in words


def test_refused_while_another_chromactl_changes_the_database(place: Place) -> None:
    run = place.migrate()["run"]
    with locked(Access(location.parse(place.target.url), "restore", database=place.target.name)):
        ended = place.rollback("--run", run)
    assert ended.code == 5
    assert "another chromactl is changing this database" in ended.complaint
    place.holds(PETS, NASTY)


# Interrupted


SMALL = (Made("pets", "cosine", plain(30, 8)), Made("new", "l2", plain(5)))


def undo_a_run(way: Watched, target: Database, kept: list[str]) -> tuple[list[str], dict[str, Made]]:
    """What has to be rolled back is made; the command's words, and what has to be there afterwards."""
    target.put(FORMER)
    run = way.report("--replace", "--target-database", target.name, *kept)["run"]
    return ["--run", run], {"pets": FORMER}


def undo_a_delta_run(way: Watched, target: Database, kept: list[str]) -> tuple[list[str], dict[str, Made]]:
    way.report("--target-database", target.name, *kept)
    before = {made.name: made.only(list(target.records(made.name).values())) for made in SMALL}
    way.source.delete("pets", "r00000", "r00001")
    way.source.upsert("pets", *plain(3, 8, prefix="late"), Record("r00002", SMALL[0].records[5].embedding, "other"))
    run = way.report("--target-database", target.name, *kept)["run"]
    return ["--run", run], before


def go_back_to_a_backup(way: Watched, target: Database, kept: list[str]) -> tuple[list[str], dict[str, Made]]:
    target.put(FORMER)
    backup = way.report("--replace", "--target-database", target.name, *kept)["backup"]
    place = ["--restore-url", way.target_url, "--database", target.name]
    return ["--backup-path", backup, *place], {"pets": FORMER, "new": SMALL[1]}


def changes(side: str, path: str, body: dict[str, Any]) -> bool:
    return side == "target" and not path.endswith(("/get", "/count", "/query")) and (bool(body) or "?" not in path)


@pytest.mark.parametrize("begin", [undo_a_run, undo_a_delta_run, go_back_to_a_backup])
def test_a_rollback_that_is_cut_off_at_any_request_is_finished_by_the_same_command(
    modern: Server, receiving: Server, chromactl: Chromactl, tmp_path: Path, begin: Begin
) -> None:
    """At each of its requests that may change something: SIGKILL, or (every second) a server that does not do it."""
    cuts = 0
    for moment in range(1, 60):
        how = "killed" if moment % 2 else "refused"
        folder = tmp_path / str(moment)
        folder.mkdir()
        source, target = new_database(modern), new_database(receiving)
        source.put(*SMALL)
        with watched(source, target, chromactl) as way:
            way.watch.counts = changes
            kept = [f"--{name}-dir={folder}/{name}" for name in ("checkpoint", "backup", "log")]
            words, wanted = begin(way, target, kept)
            back = ["rollback", *words, "--json", "--max-retries=0", f"--report-output={folder}/report.md", *kept]
            with running(folder, *back) as run:
                way.watch.begin(at=moment, act=run.strike if how == "killed" else lambda: None, drop=True)
                ended = run.gone()
            if way.watch.happened.is_set():
                assert ended.code in ((-9,) if how == "killed" else (0, 1, 3)), ended.err
                assert "Traceback" not in ended.err
                cuts += 1
                way.watch.begin()
                ended = chromactl(*back)
            assert ended.code == 0, ended.err
            assert not [name for name in target.names() if "--" in name and "--before-" not in name]
            live = {name for name in target.names() if "--" not in name}
            assert live == set(wanted)
            for name, made in wanted.items():
                assert_holds(target.records(name), made.records, made.space)
            assert not list(folder.glob("**/*.partial"))
            if not way.watch.counted or moment > cuts:
                break
    assert cuts >= 4
