"""The audit log: a line when a command begins, one when it ends, whatever ends it; and never another's line lost."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from chromactl import interrupt
from chromactl.audit import audited
from chromactl.errors import DataDiffersError, PreconditionError


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_what_a_command_came_to(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.jsonl"
    with audited(path, "migrate", "http://new:8000") as deed:
        deed.run, deed.outcome, deed.changed = "20260101T000000-abcdef", "complete", True
    begun, ended = lines(path)
    assert (begun["command"], begun["target"], begun["outcome"]) == ("migrate", "http://new:8000", "begun")
    assert (ended["run"], ended["outcome"], ended["changed"]) == ("20260101T000000-abcdef", "complete", True)
    assert ended["pid"] == os.getpid()
    assert set(ended) >= {"time", "who", "host"}
    assert path.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DataDiffersError("two\nlines"), "failed (4)"),
        (KeyError("a fault"), "failed (1)"),
        (KeyboardInterrupt(), "interrupted"),
        (interrupt.TerminatedError(), "terminated"),
    ],
)
def test_a_command_that_fails_says_so_and_fails(tmp_path: Path, error: BaseException, outcome: str) -> None:
    def command() -> None:
        with audited(tmp_path / "a", "rollback", "path:/d") as deed:
            deed.run = "r"
            raise error

    with pytest.raises(type(error)):
        command()
    ended = lines(tmp_path / "a")[-1]
    assert (ended["outcome"], ended["run"], ended["changed"]) == (outcome, "r", False)
    assert "\n" not in ended["error"]


def test_nothing_is_begun_where_the_log_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    begun = False
    with pytest.raises(PreconditionError, match="audit"), audited(tmp_path / "audit.jsonl", "migrate", "x"):
        begun = True
    assert not begun


def test_what_is_done_is_done_where_its_end_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.jsonl"
    with audited(path, "migrate", "x") as deed:
        deed.outcome = "complete"
        path.unlink()
        path.mkdir()
    assert path.is_dir()


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with audited(None, "migrate", "x") as deed:
        deed.outcome = "dry-run"
    assert list(tmp_path.iterdir()) == []


def test_sudo_names_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    with audited(tmp_path / "a", "migrate", "x"):
        pass
    assert lines(tmp_path / "a")[0]["who"].startswith("ada as ")


def _many(path: Path) -> None:
    for _ in range(50):
        with audited(path, "migrate", "x" * 300):
            pass


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_many, args=(tmp_path / "a",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(lines(tmp_path / "a")) == 4 * 50 * 2
