from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.chroma.lock import LOCK_FILE, DirectoryLock
from app.core.errors import DirectoryLocked, StartupError
from support.service import child_environment

_HOLD = """
import sys, pathlib
from app.core.chroma.lock import DirectoryLock
lock = DirectoryLock(pathlib.Path(sys.argv[1]), "CHROMA_DB_PATH")
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_why_and_what_to_do(tmp_path: Path) -> None:
    holder = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            lock = DirectoryLock(tmp_path, "CHROMA_DB_PATH")
            with pytest.raises(DirectoryLocked) as caught:
                lock.acquire()
        finally:
            holder.kill()  # the kernel lets go, even when the holder had no time to
    line = str(caught.value)
    assert str(holder.pid) in line
    assert "CHROMA_MODE=http" in line
    assert "\n" not in line
    lock.acquire()
    assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()


def test_it_makes_the_directory_and_keeps_others_out(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "a" / "b", "CHROMA_DB_PATH")
    lock.acquire()
    lock.release()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "a" / "b" / LOCK_FILE).stat().st_mode & 0o777 == 0o600


def test_names_the_variable_when_the_path_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"CHROMA_DB_PATH=.*Not a directory"):
        DirectoryLock(tmp_path / "file" / "db", "CHROMA_DB_PATH").acquire()


def test_does_not_follow_a_planted_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / LOCK_FILE).symlink_to(tmp_path / "victim")
    with pytest.raises(StartupError):
        DirectoryLock(tmp_path / "db", "CHROMA_DB_PATH").acquire()
    assert (tmp_path / "victim").read_text() == "keep"
