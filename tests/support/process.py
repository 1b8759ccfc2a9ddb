"""The command line as a process of its own: to be watched, interrupted and killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.ended import Ended

DEADLINE_SECONDS = 60.0
WITHOUT_PRIVILEGES = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
"""Stands before a command so that permissions hold for root too; its files stay its own. Part of util-linux."""


class Running:
    """A chromactl process, in the folder it was started in."""

    def __init__(self, folder: Path, arguments: list[str], before: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._children: list[int] = []
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CHROMACTL_")}
        self.process = subprocess.Popen(  # noqa: S603 (the tests' own arguments)
            # A shell's background job ignores Ctrl-C; what is tested here must not have inherited that.
            ["env", "--default-signal=INT", *before, sys.executable, "-m", "chromactl", *arguments],  # noqa: S607
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, seen: Callable[[], bool]) -> bool:
        """Wait until it is seen; False if the process ended before."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not seen():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, "never seen"
            time.sleep(0.002)
        return True

    def ledger(self, step: str) -> int:
        """How many entries of this step the ledgers below the folder hold."""
        return sum(
            content.count(f'"step":"{step}"'.encode())
            for content in _contents(self.folder.glob("migration_checkpoints/run-*/ledger.jsonl"))
        )

    def strike(self) -> None:
        """SIGKILL, from whatever thread."""
        self._children = children(self.process.pid)
        self.send(signal.SIGKILL)

    def gone(self) -> Ended:
        """Wait until this process is gone, and those that it had when it was struck."""
        ended = self.end()
        wait_until_gone(self._children)
        return ended

    def reached(self, phase: str) -> bool:
        """Whether a checkpoint says that the phase is done."""
        contents = _contents(self.folder.glob("migration_checkpoints/checkpoint_*.json"))
        return any(json.loads(content)["phase"] == phase for content in contents if content)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=DEADLINE_SECONDS)
        return Ended(self.process.returncode, out, err)


def _contents(paths: Iterator[Path]) -> list[bytes]:
    found = []
    for path in paths:
        try:
            found.append(path.read_bytes())
        except FileNotFoundError:
            continue
    return found


@contextmanager
def running(folder: Path, *arguments: object, before: tuple[str, ...] = ()) -> Iterator[Running]:
    """The process; killed if the block is left before it ended."""
    started = Running(folder, [str(argument) for argument in arguments], before)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.communicate()


def run_unprivileged(folder: Path, *arguments: object) -> Ended:
    """A process from start to end, to which permissions apply whoever runs the tests."""
    with running(folder, *arguments, before=WITHOUT_PRIVILEGES if os.geteuid() == 0 else ()) as started:
        return started.end()


def last_line(ended: Ended) -> str:
    """The complaint of a run that failed; before it were at most warnings that something is tried again."""
    assert (ended.code, ended.out) == (1, ""), ended.err
    *warnings, complaint = ended.err.splitlines()
    assert all(line.startswith("WARNING: ") for line in warnings), ended.err
    assert complaint.startswith("chromactl: "), ended.err
    return complaint


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def wait_until_gone(pids: Iterable[int], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until none of these processes is left."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                left = max(0.0, deadline - time.monotonic())
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                assert poll.poll(1000 * left), f"process {pid} outlived the one that started it"
            finally:
                os.close(descriptor)


def lives(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
