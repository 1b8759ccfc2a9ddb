"""Files that are either there as a whole or not at all, and the sentences for folders that refuse them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chromactl.errors import ChromactlError, PreconditionError


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what an operating system says of a path into one line for an operator.

    Raises:
        PreconditionError: the folder cannot be written or made, or the name is taken.
        ChromactlError: the disk is full, or fails.

    """
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ChromactlError(
                f"{where}: the disk is full; free space there and run the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PreconditionError(
                f"{where}: may not be written here ({os.strerror(error.errno)}); "
                "give another folder, or its owner and mode"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise PreconditionError(f"{where}: a folder and a file want the same name; give another path") from error
        if error.errno == errno.ENOENT:
            raise PreconditionError(f"{where}: no such file or folder; check the path") from error
        raise ChromactlError(f"{where}: {os.strerror(error.errno or 0)}; check the disk") from error


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if need be, and shown to be writable.

    Raises:
        PreconditionError: it is not, or cannot be.

    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return path


def write_atomically(path: Path, content: bytes, *, mode: int = 0o640) -> None:
    """Write a file by fsync and rename: after a crash it has either the old content or the new."""
    temporary = path.with_name(f".{path.name}.partial")
    with explained(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)  # half a file only takes room on a full disk
            raise
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Free space for us on the file system of this path or of its nearest existing parent, in bytes."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
