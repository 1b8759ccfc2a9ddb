"""One change of a database at a time, whatever folders it works in: a lock for the whole machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from chromactl import files
from chromactl.errors import LockedError
from chromactl.stores.opening import Access

_FOLDERS = (Path("/run/lock"), Path("/var/lock"))


@contextlib.contextmanager
def locked(target: Access) -> Iterator[None]:
    """Hold the target for this run.

    Raises:
        LockedError: another run on this machine has it.
    """
    path = _folder() / f"chromactl-{_key(target)}.lock"
    descriptor = _held(path, target)
    try:
        yield
    finally:
        # Whoever waits for this file finds out that it is gone (see _held); a stranger's file has to stay.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _held(path: Path, target: Access) -> int:
    while True:
        with files.explained(path):
            descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise LockedError(
                f"{target.location.text}: another chromactl is changing this database "
                f"(it holds {path}); wait for it, or end it"
            ) from error
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its last holder removed it between our two calls


def _open(path: Path) -> int:
    # Read-only is enough for a lock, and the file may be another user's; O_CREAT on such a one is refused in
    # folders that all may write to (fs.protected_regular), so it is tried only where there is none.
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever the umask: others have to open it too
        return descriptor
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _folder() -> Path:
    for folder in _FOLDERS:
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return Path(tempfile.gettempdir())


def _key(target: Access) -> str:
    names = [*_place(target), target.tenant, target.database]
    return hashlib.sha256(orjson.dumps(names)).hexdigest()[:16]


def _place(target: Access) -> list[str]:
    """The target's address, the same for all names of one host."""
    if target.location.path is not None:
        return [target.location.text]
    parts = urlsplit(target.location.text)
    host = str(parts.hostname)
    with contextlib.suppress(OSError):
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)}
        local = any(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)
        host = "loopback" if local else min(addresses)
    return [host, str(parts.port), parts.path]
