"""One process for one Chroma directory, enforced.

Measured on 1.5.9: several processes on one directory get no error and the right count, while about 60 %
of the embeddings end unreadable or silently wrong. So the first process holds an exclusive lock on a
file in the directory for as long as it lives, and whoever comes second is told why it must not go on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from app.core.errors import DirectoryLocked, StartupError

LOCK_FILE = ".chroma-stack.lock"


class DirectoryLock:
    """An exclusive flock on `<directory>/.chroma-stack.lock`. The kernel lets go of it when the process ends."""

    def __init__(self, directory: Path, variable: str) -> None:
        self.directory = directory
        self.variable = variable
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise DirectoryLocked; StartupError when the directory is not usable."""
        path = self.directory / LOCK_FILE
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StartupError(
                f"{self.variable}={self.directory} cannot be used: {error.strerror}.",
                hint="Name a directory that this user may write.",
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(fd)
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StartupError(
                    f"{path} cannot be locked: {error.strerror}.",
                    hint="Use a local file system, or CHROMA_MODE=http.",
                ) from None
            raise DirectoryLocked(
                f"{self.directory} is in use by {holder}, and CHROMA_MODE=persistent is one process: "
                "a second one on the same directory would silently corrupt embeddings.",
                hint="End that process, run with one worker, or start a Chroma server and set "
                "CHROMA_MODE=http, where any number of workers can share it.",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go of it; harmless when it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _holder(fd: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f"process {int(os.pread(fd, 32, 0))}"
    return "another process"
