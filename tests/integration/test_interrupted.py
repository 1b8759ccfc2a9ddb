"""Killed, terminated and interrupted runs, at every phase; and a target server that dies."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.ended import Ended
from support.process import Running, children, lives, running
from support.records import Made, nasty, plain
from support.servers import chroma_server

Pair = tuple[Database, Database]
DATA = [Made("nasty", "cosine", nasty(lists=True)), Made("pets", "l2", plain(2200, 32))]

MOMENTS: dict[str, Callable[[Running], bool]] = {
    "at the start": lambda run: any(run.folder.glob("migration_checkpoints")),
    "with the plan made": lambda run: any(run.folder.glob("migration_checkpoints/run-*/plan.json")),
    "in export": lambda run: run.ledger("export") >= 2,
    "after export": lambda run: run.reached("export"),
    "after validate": lambda run: run.reached("validate"),
    "in import": lambda run: run.ledger("import-begun") >= 2,
    "later in import": lambda run: run.ledger("import") >= 3,
    "after import": lambda run: run.reached("import"),
    "after verify": lambda run: run.reached("verify"),
}


def arguments(source: Database, target: str) -> list[str]:
    place = ["--source-url", source.url, "--target-url", target, "--database", source.name]
    return ["migrate", *place, "--profile", "identity", "--json", "--batch-size", "25"]


def check(target: Database) -> None:
    assert target.names() == [made.name for made in DATA]
    for made in DATA:
        assert_holds(target.records(made.name), made.records, made.space)


def finish(chromactl: Chromactl, folder: Path, source: Database, target: str) -> Ended:
    """The same command again; it takes the run up that had come to its plan."""
    last: dict[str, str] = {}
    for path in sorted(folder.glob("migration_checkpoints/checkpoint_*.json")):
        body = orjson.loads(path.read_bytes())
        if (path.parent / f"run-{body['run']}" / "plan.json").exists() or body["phase"] == "complete":
            last[body["run"]] = body["phase"]
    ended = chromactl(*arguments(source, target))
    assert ended.code == 0, ended.err
    if unfinished := {run for run, phase in last.items() if phase != "complete"}:
        assert {ended.json["run"]} == unfinished
    return ended


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_is_finished_by_the_same_command(
    pair: Pair, chromactl: Chromactl, tmp_path: Path, moment: str
) -> None:
    source, target = pair
    source.put(*DATA)
    with running(tmp_path, *arguments(source, target.url)) as run:
        run.until(lambda: MOMENTS[moment](run))
        run.send(signal.SIGKILL)
        run.end()
    finish(chromactl, tmp_path, source, target.url)
    check(target)
    again = chromactl(*arguments(source, target.url))
    assert (again.code, again.json["changed"]) == (0, False), again.err


def test_a_run_killed_again_and_again_comes_to_its_end(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, target = pair
    source.put(*DATA)
    kills = 0
    for count in range(1, 40):
        with running(tmp_path, *arguments(source, target.url)) as run:
            begun = run.ledger("export") + run.ledger("import")
            if not run.until(lambda run=run, begun=begun: run.ledger("export") + run.ledger("import") > begun):  # type: ignore[misc]
                ended = run.end()
                break
            run.send(signal.SIGKILL)
            run.end()
            kills = count
    assert ended.code == 0, ended.err
    assert kills >= 2
    check(target)


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("snapshot:out", "in import"),
        ("snapshot:out", "after import"),
        ("out.json", "later in import"),
        ("path:out", "in export"),
        ("path:out", "later in import"),
    ],
)
def test_a_killed_run_into_files_is_finished_too(
    pair: Pair, chromactl: Chromactl, tmp_path: Path, kind: str, moment: str
) -> None:
    with chroma_server(tmp_path / "old") as old:
        source = Database(old)
        source.put(*DATA)
        with running(tmp_path, *arguments(source, kind)) as run:
            run.until(lambda: MOMENTS[moment](run))
            started = children(run.process.pid)
            run.send(signal.SIGKILL)
            run.end()
        deadline = time.monotonic() + 30
        while any(map(lives, started)):
            assert time.monotonic() < deadline, "a server outlived its chromactl"
            time.sleep(0.02)
        finish(chromactl, tmp_path, source, kind)
    assert not list(tmp_path.glob(".*partial"))
    with chroma_server(tmp_path / "check") as server:
        if kind == "path:out":
            with chroma_server(tmp_path / "out") as out:
                check(Database(out))
        else:
            place = ["--source-url", kind, "--target-url", server.url]
            ended = chromactl("migrate", *place, "--profile", "identity")
            assert ended.code == 0, ended.err
            check(Database(server))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["in export", "in import"])
def test_a_signal_ends_with_its_code_and_one_line(
    pair: Pair, chromactl: Chromactl, tmp_path: Path, number: signal.Signals, code: int, moment: str
) -> None:
    source, target = pair
    source.put(*DATA)
    with running(tmp_path, *arguments(source, target.url)) as run:
        assert run.until(lambda: MOMENTS[moment](run))
        run.send(number)
        ended = run.end()
    assert (ended.code, ended.out) == (code, "")
    assert "the same command goes on from here" in ended.complaint
    assert not set(target.names()) & {made.name for made in DATA}
    finish(chromactl, tmp_path, source, target.url)
    check(target)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_server_and_no_temporary_folder(
    directories: dict[str, Path], tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    place = ["--source-url", f"path:{directories['1.5.9']}", "--target-url", "path:out"]
    with running(tmp_path, "migrate", *place, "--profile", "identity", "--batch-size", 5) as run:
        assert run.until(lambda: MOMENTS["with the plan made"](run))
        assert list(temporary.glob("chromactl-*"))
        started = children(run.process.pid)
        run.send(number)
        assert run.end().code in (130, 143)
    assert not [pid for pid in started if lives(pid)]
    assert list(temporary.glob("chromactl-*")) == []


@pytest.mark.parametrize("moment", ["in import"])
def test_a_target_server_that_dies_and_comes_back(
    pair: Pair, chromactl: Chromactl, tmp_path: Path, moment: str
) -> None:
    with chroma_server(tmp_path / "old") as old:
        source = Database(old)
        source.put(*DATA)
        with chroma_server(tmp_path / "new") as new:
            with running(tmp_path, *arguments(source, new.url)) as run:
                assert run.until(lambda: MOMENTS[moment](run))
                new.kill()
                ended = run.end()
            assert ended.code not in (0, 2, 130), ended.err
            assert "Traceback" not in ended.err
            assert new.url in ended.err.splitlines()[-1]
            with chroma_server(tmp_path / "new", port=new.port) as back:
                finish(chromactl, tmp_path, source, back.url)
                check(Database(back))


def test_a_target_server_that_comes_back_soon_is_waited_for(chromactl: Chromactl, tmp_path: Path) -> None:
    with chroma_server(tmp_path / "old") as old:
        source = Database(old)
        source.put(*DATA)
        with chroma_server(tmp_path / "new") as new, running(tmp_path, *arguments(source, new.url)) as run:
            assert run.until(lambda: MOMENTS["in import"](run))
            new.kill()
            with chroma_server(tmp_path / "new", port=new.port) as back:
                ended = run.end()
                assert ended.code == 0, ended.err
                check(Database(back))


def test_a_resumed_run_keeps_its_plan(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    """What came to the source after the ids were taken comes with the next run."""
    source, target = pair
    source.put(*DATA)
    with running(tmp_path, *arguments(source, target.url)) as run:
        assert run.until(lambda: MOMENTS["in export"](run))
        run.send(signal.SIGKILL)
        run.end()
    late = plain(1, 32, prefix="late")
    source.upsert("pets", *late)
    finish(chromactl, tmp_path, source, target.url)
    check(target)
    finish(chromactl, tmp_path, source, target.url)
    assert_holds(target.records("pets"), [*DATA[1].records, *late], "l2")


def test_a_damaged_export_is_not_imported(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, target = pair
    source.put(*DATA)
    with running(tmp_path, *arguments(source, target.url)) as run:
        assert run.until(lambda: MOMENTS["after export"](run))
        run.send(signal.SIGKILL)
        run.end()
    (shard, *_) = sorted(tmp_path.glob("migration_checkpoints/run-*/pets/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    ended = chromactl(*arguments(source, target.url))
    assert ended.code == 1
    assert str(shard) in ended.complaint
    assert not set(target.names()) & {made.name for made in DATA}
