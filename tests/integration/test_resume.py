"""A run that was cut off is taken up where it was, by the right command only; what was done is not done again."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from chromactl.migrate.plan import PIECE_RECORDS
from support.command import Chromactl
from support.databases import Database, assert_holds, same_database
from support.migrations import Watched, watched
from support.process import running
from support.records import Made, plain
from support.servers import Server

Pair = tuple[Database, Database]
PETS = Made("pets", "l2", plain(3300))
ZOO = Made("zoo", "cosine", plain(30, prefix="z"))


@pytest.fixture
def place(pair: Pair, chromactl: Chromactl) -> Iterator[Watched]:
    with watched(*pair, chromactl) as made:
        made.source.put(PETS, ZOO)
        yield made


def an_add(side: str, path: str, body: dict[str, Any]) -> bool:
    return side == "target" and path.endswith("/add")


def a_rename(side: str, path: str, body: dict[str, Any]) -> bool:
    return "new_name" in body


def killed(
    place: Watched,
    folder: Path,
    *more: object,
    at: int = 3,
    drop: bool = False,
    counts: Callable[[str, str, dict[str, Any]], bool] = an_add,
) -> None:
    """A run that is killed at the `at`-th of these requests."""
    with running(folder, *place.arguments(*more)) as run:
        place.watch.counts = counts
        place.watch.begin(at=at, act=run.strike, drop=drop)
        run.process.wait()
        assert place.watch.happened.is_set(), run.end().err
        assert run.gone().code == -signal.SIGKILL


def check(target: Database) -> None:
    assert target.names() == ["pets", "zoo"]
    for made in (PETS, ZOO):
        assert_holds(target.records(made.name), made.records, made.space)


def checkpoints(folder: Path) -> dict[str, Path]:
    """The newest checkpoint of each phase."""
    paths = sorted(folder.glob("migration_checkpoints/checkpoint_*.json"))
    return {orjson.loads(path.read_bytes())["phase"]: path for path in paths}


def ledger(folder: Path, step: str) -> set[tuple[str, int]]:
    (path,) = folder.glob("migration_checkpoints/run-*/ledger.jsonl")
    entries = [orjson.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return {(entry["collection"], entry["number"]) for entry in entries if entry["step"] == step}


def ids_of(folder: Path, pieces: set[tuple[str, int]]) -> set[str]:
    (path,) = folder.glob("migration_checkpoints/run-*/plan.json")
    names = {entry["spec"]["name"]: entry["pieces"] for entry in orjson.loads(path.read_bytes())["collections"]}
    return {record for name, number in pieces for record in names[name][number]}


@pytest.mark.parametrize("mode", [(), ("--strict-phases",)], ids=["overlapping", "strict"])
def test_what_was_done_is_said_and_neither_read_nor_written_again(
    place: Watched, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    killed(place, tmp_path, *mode, "--workers", "1")
    done = {step: ledger(tmp_path, step) for step in ("export", "examine", "import", "verify")}
    exported, imported = (ids_of(tmp_path, done[step]) for step in ("export", "import"))
    assert exported
    assert imported
    report = place.report(*mode, "--workers", "1")
    assert report["reused"] == {step: len(pieces) for step, pieces in done.items() if pieces}
    assert not place.watch.asked("source", "/get") & exported
    assert not place.written & imported
    said = Path(report["log_file"]).read_text()
    assert re.search(rf"Reused: export of {len(done['export'])} pieces, .*not read or written again", said)
    assert f"Resuming run {report['run']} after its phase" in said
    check(place.target)


def test_what_was_proven_is_only_sampled(place: Watched, tmp_path: Path) -> None:
    killed(place, tmp_path, "--strict-phases", counts=a_rename, at=1, drop=True)
    report = place.report("--strict-phases")
    assert report["reused"]["verify"] == -(-3300 // PIECE_RECORDS) + 1
    assert place.written == set()
    assert place.watch.asked("source", "/get") == set()
    assert place.watch.asked("target", "/get") == set()
    check(place.target)


# Checkpoints that are named


@pytest.mark.parametrize(
    ("option", "phase", "bare"),
    [("--checkpoint-file", "preflight", True), ("--resume-from", "export", False), ("--resume-from", "validate", True)],
)
def test_an_older_checkpoint_of_the_run_can_be_named(
    place: Watched, tmp_path: Path, option: str, phase: str, bare: bool
) -> None:
    killed(place, tmp_path, "--strict-phases")
    path = checkpoints(tmp_path)[phase]
    run = orjson.loads(path.read_bytes())["run"]
    exported = ids_of(tmp_path, ledger(tmp_path, "export"))
    report = place.report("--strict-phases", option, path.name if bare else path)
    assert report["run"] == run
    assert not place.watch.asked("source", "/get") & exported
    check(place.target)
    again = place.report(option, path.name if bare else path)
    assert (again["changed"], again["run"]) == (False, run)


def test_a_checkpoint_whose_run_folder_is_gone_is_refused(place: Watched, tmp_path: Path) -> None:
    killed(place, tmp_path, "--strict-phases")
    path = checkpoints(tmp_path)["export"]
    (folder,) = tmp_path.glob("migration_checkpoints/run-*")
    shutil.rmtree(folder)
    ended = place.run("--strict-phases", "--checkpoint-file", path.name)
    assert ended.code == 3
    assert "is gone, so nothing can be resumed from it; run the same command without this option" in ended.complaint


def test_the_checkpoint_of_a_finished_run_leads_to_nothing_to_do(place: Watched) -> None:
    report = place.report()
    again = place.report("--checkpoint-file", report["checkpoint_file"])
    assert (again["changed"], again["run"]) == (False, report["run"])


@pytest.mark.parametrize(
    ("more", "what", "values"),
    [
        (["--batch-size", "77"], "batch size", ("'500'", "'77'")),
        (["--collection", "pets"], "collections", ("'all'", "'pets'")),
        (["--rename", "pets=animals"], "renames", ("'none'", "'pets=animals'")),
        (["--profile", "own.yml"], "profile", ("identity", "own")),
        (["--target-database", "another"], "target database", ("default_tenant/another",)),
        (["--target-url", "path:elsewhere"], "target", ("elsewhere",)),
        (["--source-url", "path:elsewhere"], "source", ("elsewhere",)),
        (["--database", "another", "--target-database", "same"], "source database", ("default_tenant/another",)),
    ],
)
def test_a_checkpoint_of_another_command_is_refused_with_both_values(
    place: Watched, tmp_path: Path, more: list[str], what: str, values: tuple[str, ...]
) -> None:
    (tmp_path / "own.yml").write_text(yaml.safe_dump({"name": "own"}))
    killed(place, tmp_path)
    before = sorted(path.name for path in tmp_path.glob("migration_checkpoints/*"))
    staged = place.target.names()
    body = orjson.loads(checkpoints(tmp_path)["preflight"].read_bytes())
    (tmp_path / "elsewhere").mkdir()
    more = [place.target.name if word == "same" else word for word in more]
    ended = place.run(*more, "--resume-from", checkpoints(tmp_path)["preflight"])
    assert (ended.code, ended.out) == (3, "")
    assert f"of another migration: its {what} is {body['fingerprint'][what]!r}, the command's is" in ended.complaint
    assert all(value in ended.complaint for value in values)
    assert sorted(path.name for path in tmp_path.glob("migration_checkpoints/*")) == before
    assert place.target.names() == staged
    place.report()
    check(place.target)


# Runs that are not taken up


def test_an_unfinished_run_with_another_batch_size_is_superseded(place: Watched, tmp_path: Path) -> None:
    killed(place, tmp_path)
    (folder,) = tmp_path.glob("migration_checkpoints/run-*")
    assert all("--m" in name for name in place.target.names())
    report = place.report("--batch-size", "400")
    assert f"run-{report['run']}" != folder.name
    assert report["reused"] == {}
    check(place.target)
    assert [path.name for path in tmp_path.glob("migration_checkpoints/run-*")] == [f"run-{report['run']}"]
    runs = {orjson.loads(path.read_bytes())["run"] for path in checkpoints(tmp_path).values()}
    assert runs == {report["run"]}


def test_only_the_newest_finished_run_keeps_its_folder_and_other_migrations_keep_theirs(
    place: Watched, receiving: Server, tmp_path: Path
) -> None:
    other = same_database(receiving, f"{place.target.name}_other")
    first = place.report("--target-database", other.name)
    runs = [place.report()]
    for number in range(2):
        place.source.upsert("zoo", *plain(1, prefix=f"new{number}"))
        runs.append(place.report())
    place.source.put(Made("late", "l2", plain(2)))
    runs.append(place.report())
    folders = {path.parent.name for path in tmp_path.glob("migration_checkpoints/run-*/plan.json")}
    assert folders == {path.parents[1].name for path in tmp_path.glob("migration_checkpoints/run-*/*/*.parquet")}
    assert folders == {f"run-{first['run']}", f"run-{runs[-1]['run']}"}
    assert place.report("--target-database", other.name)["carried"] is None


# The swap


@pytest.mark.parametrize(("moment", "drop"), [(1, True), (1, False), (2, True), (2, False), (3, False), (4, True)])
def test_a_swap_that_was_cut_off_is_brought_to_its_end(place: Watched, tmp_path: Path, moment: int, drop: bool) -> None:
    """Two live collections are replaced: four renames, killed at each of them."""
    theirs = {"pets": plain(5, prefix="theirs"), "zoo": plain(6, prefix="theirs")}
    place.target.put(*(Made(name, "l2", records) for name, records in theirs.items()))
    killed(place, tmp_path, "--replace", at=moment, drop=drop, counts=a_rename)
    report = place.report("--replace")
    assert report["kept"] == {name: f"{name}--before-{report['run']}" for name in theirs}
    assert place.target.names() == sorted([*theirs, *report["kept"].values()])
    for name, records in theirs.items():
        assert_holds(place.target.records(report["kept"][name]), records, "l2")
    for made in (PETS, ZOO):
        assert_holds(place.target.records(made.name), made.records, made.space)
    assert place.written == set()
    assert place.report()["changed"] is False


def test_a_collection_that_came_under_a_live_name_during_the_run_is_refused(place: Watched, tmp_path: Path) -> None:
    theirs = Made("zoo", "l2", plain(4, prefix="theirs"))
    place.watch.counts = an_add
    place.watch.begin(at=2, act=lambda: place.target.put(theirs))
    ended = place.chromactl(*place.arguments())
    assert (ended.code, ended.out) == (1, "")
    assert "already holds a collection zoo with other content (made while this run was at work)" in ended.complaint
    assert_holds(place.target.records("zoo"), theirs.records, "l2")
    assert "pets" not in place.target.names()
    place.target.drop("zoo")
    place.report()
    assert place.written == set()
    check(place.target)


@pytest.mark.parametrize("moment", [1, 2])
def test_a_target_that_lost_proven_records_is_not_made_live(place: Watched, tmp_path: Path, moment: int) -> None:
    """A server may have been put back to an older state between the proof and the swap."""
    killed(place, tmp_path, counts=a_rename, at=moment, drop=True)
    (staged,) = [name for name in place.target.names() if name.startswith("zoo--m")]
    place.target.delete(staged, ZOO.records[3].id)
    ended = place.run()
    assert (ended.code, ended.out) == (4, "")
    assert "zoo was proven with 30 records and holds 29 now" in ended.complaint
    assert "zoo" not in place.target.names()
    place.report()
    check(place.target)
