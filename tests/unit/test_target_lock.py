"""The lock: one run on a target at a time, whatever the target is called, and no file that can get in the way."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from chromactl import lock
from chromactl.errors import ChromactlError, LockedError
from chromactl.lock import locked
from chromactl.options import access
from chromactl.stores.opening import Access

HOLD = """
import sys
from chromactl import lock
from chromactl.options import access
lock._FOLDERS = (__import__("pathlib").Path(sys.argv[1]),)
with lock.locked(access(sys.argv[2], "target", None, "t", "d")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's folder for locks, in this test."""
    path = tmp_path / "locks"
    path.mkdir()
    monkeypatch.setattr(lock, "_FOLDERS", (tmp_path / "no-such", path))
    return path


def target(url: str = "http://127.0.0.1:8000", tenant: str = "t", database: str = "d") -> Access:
    return access(url, "target", None, tenant, database)


def excludes(one: Access, other: Access) -> bool:
    with locked(one), ExitStack() as stack:
        try:
            stack.enter_context(locked(other))
        except LockedError:
            return True
        return False


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "http://localhost:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ("http://127.0.0.1:8000", "http://127.0.0.2:8000"),
        ("http://127.0.0.1:8000", "http://[::1]:8000"),
        ("http://localhost:8000", "http://LOCALHOST:8000"),
        ("path:a", "path:./b/../a"),
        ("out.json", "./out.json"),
    ],
)
def test_all_names_of_one_target_are_one_lock(one: str, other: str) -> None:
    assert excludes(target(one), target(other))
    assert excludes(target(other), target(one))


def test_a_link_to_a_directory_is_the_directory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert excludes(target(f"path:{tmp_path}/data"), target(f"path:{tmp_path}/link"))


@pytest.mark.parametrize(
    "other",
    [
        target("http://127.0.0.1:8001"),
        target("http://127.0.0.1:8000/below"),
        target("http://192.0.2.1:8000"),
        target(tenant="other"),
        target(database="other"),
        target("path:a"),
    ],
    ids=["port", "path", "host", "tenant", "database", "directory"],
)
def test_another_target_is_another_lock(other: Access) -> None:
    assert not excludes(target(), other)


def test_a_host_that_nobody_can_resolve_can_be_locked_too() -> None:
    assert excludes(target("http://nobody.invalid:8000"), target("http://nobody.invalid:8000"))


def test_the_message_names_target_and_file(folder: Path) -> None:
    with locked(target()):
        (path,) = folder.iterdir()
        with pytest.raises(LockedError) as refused, locked(target()):
            raise AssertionError("both hold it")
    assert str(path) in str(refused.value)
    assert "http://127.0.0.1:8000: another chromactl is changing this database" in str(refused.value)
    assert refused.value.exit_code == 5


def test_it_can_be_held_again_and_leaves_no_file(folder: Path) -> None:
    for _ in range(3):
        with locked(target()):
            assert len(list(folder.iterdir())) == 1
        assert list(folder.iterdir()) == []


def test_it_is_let_go_when_the_block_fails(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(target()):
        raise ZeroDivisionError
    with locked(target()):
        pass


def test_a_file_that_was_left_behind_does_not_matter(folder: Path) -> None:
    with locked(target()):
        (path,) = folder.iterdir()
    path.write_text("4711")
    path.chmod(0o400)
    with locked(target()):
        pass


def test_a_link_in_its_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """In a folder that all may write to, somebody could have put it there."""
    with locked(target()):
        (path,) = folder.iterdir()
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path.symlink_to(victim)
    with pytest.raises(ChromactlError, match=path.name), locked(target()):
        raise AssertionError("held")
    assert victim.read_text() == "untouched"


def test_others_may_open_it_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with locked(target()):
            (path,) = folder.iterdir()
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_it_holds_between_processes_and_ends_with_the_process(folder: Path) -> None:
    with subprocess.Popen(  # noqa: S603 (the tests' own program)
        [sys.executable, "-c", HOLD, str(folder), "http://localhost:8000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockedError), locked(target()):
            raise AssertionError("both hold it")
        process.kill()
    assert len(list(folder.iterdir())) == 1
    with locked(target()):
        pass


def test_without_a_folder_for_locks_the_temporary_one_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_FOLDERS", ())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with locked(target()):
        assert [path.suffix for path in tmp_path.glob("chromactl-*")] == [".lock"]
