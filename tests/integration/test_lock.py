"""One run on a target at a time, by whatever name and in whatever folders; and runs that are told to end."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds, same_database
from support.forwarder import Forwarder, forwarder
from support.process import Running, running
from support.records import Made, plain
from support.servers import Server

Pair = tuple[Database, Database]
PATIENCE = 60.0
PETS = Made("pets", "l2", plain(6300, 4))


@dataclass
class Held:
    """Holds up the first write to one database until it may go on."""

    database: str
    at: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __call__(self, path: str, body: dict[str, Any]) -> None:
        if path.endswith("/add") and self.database in path and not self.at.is_set():
            self.at.set()
            assert self.go_on.wait(PATIENCE)


@pytest.fixture
def held(pair: Pair) -> Iterator[tuple[Held, Forwarder]]:
    """What holds the run up, and the forwarder before the target where it does so."""
    source, target = pair
    source.put(PETS)
    hold = Held(target.name)
    with forwarder(target.url, guard=hold) as between:
        try:
            yield hold, between
        finally:
            hold.go_on.set()


def arguments(source: Database, target: str, *more: object) -> list[str]:
    place = ["--source-url", source.url, "--target-url", target, "--database", source.name]
    return ["migrate", *place, "--profile", "identity", "--json", "--workers", "1", *(str(word) for word in more)]


def at_work(run: Running, hold: Held) -> None:
    assert run.until(hold.at.is_set), run.end().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_second_run_on_the_target_ends_with_5_and_disturbs_nothing(
    pair: Pair, held: tuple[Held, Forwarder], chromactl: Chromactl, tmp_path: Path, host: str
) -> None:
    """With other folders, another source and other collections, and by another name of the host."""
    source, target = pair
    hold, between = held
    source.put(Made("other", "l2", plain(3)))
    work = tmp_path / "work"
    work.mkdir()
    with running(work, *arguments(source, between.url, "--collection", "pets")) as run:
        at_work(run, hold)
        passed = len(between.passed)
        second = between.url.replace("127.0.0.1", host)
        ended = chromactl(*arguments(source, second, "--collection", "other"))
        assert (ended.code, ended.out) == (5, "")
        assert f"{second}: another chromactl is changing this database" in ended.complaint
        assert len(between.passed) == passed
        hold.go_on.set()
        assert run.end().code == 0
    assert target.names() == ["pets"]
    ended = chromactl(*arguments(source, second, "--collection", "other"))
    assert ended.code == 0, ended.err
    assert target.names() == ["other", "pets"]


def test_another_database_of_the_server_is_another_target(
    pair: Pair, held: tuple[Held, Forwarder], receiving: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    source, target = pair
    hold, between = held
    other = same_database(receiving, f"other_{target.name[:8]}")
    work = tmp_path / "work"
    work.mkdir()
    with running(work, *arguments(source, between.url)) as run:
        at_work(run, hold)
        ended = chromactl(*arguments(source, between.url, "--target-database", other.name))
        assert ended.code == 0, ended.err
        assert not hold.go_on.is_set()
        hold.go_on.set()
        assert run.end().code == 0
    for database in (target, other):
        assert_holds(database.records("pets"), PETS.records, "l2")


def test_a_dry_run_may_look_while_another_run_is_at_work(
    pair: Pair, held: tuple[Held, Forwarder], chromactl: Chromactl, tmp_path: Path
) -> None:
    source, _ = pair
    hold, between = held
    work = tmp_path / "work"
    work.mkdir()
    with running(work, *arguments(source, between.url)) as run:
        at_work(run, hold)
        ended = chromactl(*arguments(source, between.url, "--dry-run"))
        assert (ended.code, ended.json["status"]) == (0, "dry-run"), ended.err
        hold.go_on.set()
        assert run.end().code == 0


def test_a_killed_run_holds_nothing_up(
    pair: Pair, held: tuple[Held, Forwarder], chromactl: Chromactl, tmp_path: Path
) -> None:
    source, target = pair
    hold, between = held
    with running(tmp_path, *arguments(source, between.url)) as run:
        at_work(run, hold)
        run.send(signal.SIGKILL)
        run.end()
    hold.go_on.set()
    ended = chromactl(*arguments(source, between.url))
    assert ended.code == 0, ended.err
    assert_holds(target.records("pets"), PETS.records, "l2")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_piece_under_way_come_to_its_end(
    pair: Pair, held: tuple[Held, Forwarder], chromactl: Chromactl, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    source, target = pair
    hold, between = held
    with running(tmp_path, *arguments(source, between.url)) as run:
        at_work(run, hold)
        assert run.ledger("import") == 0
        run.send(number)
        hold.go_on.set()
        ended = run.end()
        done = run.ledger("import")
    assert (ended.code, ended.out) == (code, "")
    assert "the same command goes on from here" in ended.complaint
    assert 1 <= done < 7
    assert run.ledger("import-begun") == done
    phases = [orjson.loads(path.read_bytes())["phase"] for path in tmp_path.glob("*/checkpoint_*.json")]
    assert "preflight" in phases
    assert "complete" not in phases
    again = chromactl(*arguments(source, between.url))
    assert again.code == 0, again.err
    assert again.json["reused"]["import"] == done
    assert_holds(target.records("pets"), PETS.records, "l2")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_does_not_wait(
    pair: Pair, held: tuple[Held, Forwarder], chromactl: Chromactl, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The write under way is never answered before the process is gone."""
    source, target = pair
    hold, between = held
    with running(tmp_path, *arguments(source, between.url)) as run:
        at_work(run, hold)
        while run.process.poll() is None:
            run.send(number)
            with suppress(subprocess.TimeoutExpired):
                run.process.wait(0.2)
        assert not hold.go_on.is_set()
        assert run.end().code == code
    hold.go_on.set()
    assert chromactl(*arguments(source, between.url)).code == 0
    assert_holds(target.records("pets"), PETS.records, "l2")
