"""A file system of a few megabytes, really: a tmpfs, mounted for one test.

Root mounts it where everybody sees it. An ordinary user mounts it in a user namespace of its own, which a process
keeps alive; whatever is to see it has to be started with `enter` before its command.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_ALLOW = (
    "neither mount nor unshare may make a file system here ({0}): run the tests as root with CAP_SYS_ADMIN, or allow "
    "user namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a "
    "container --security-opt seccomp=unconfined)"
)


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """Where it is mounted; `seen` is how this process gets to what is in it."""

    path: Path
    enter: tuple[str, ...]
    seen: Path

    def resize(self, megabytes: int) -> None:
        """Make it larger, with all that is in it."""
        _run(*self.enter, "mount", "-o", f"remount,size={megabytes}m", str(self.path))

    @property
    def free(self) -> int:
        """Free space in bytes."""
        status = os.statvfs(self.seen)
        return status.f_bavail * status.f_frsize


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """The file system, until the block ends. Fails the test where nothing allows one."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)]
    try:
        _run(*mount)
    except subprocess.CalledProcessError:
        with _namespace(mount) as pid:
            enter = ("nsenter", "--preserve-credentials", "--user", "--mount", "--target", str(pid), "--")
            yield SmallDisk(path, enter, Path(f"/proc/{pid}/root{path}"))
        return
    try:
        yield SmallDisk(path, (), path)
    finally:
        _run("umount", str(path))


@contextmanager
def _namespace(mount: list[str]) -> Iterator[int]:
    """A process in a user and mount namespace of its own, in which the mount was done; its pid."""
    script = '"$@" && echo mounted && exec cat >/dev/null'  # until its input ends, also when we are killed
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *mount]
    with subprocess.Popen(  # noqa: S603 (the command stands here)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        said = keeper.stdout.readline().strip()
        if said != "mounted":
            pytest.fail(_ALLOW.format(said))
        yield keeper.pid


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (see the callers)
