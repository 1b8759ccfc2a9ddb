"""A persistent directory of Chroma, opened by a server of our own.

One process owns a directory: several writers corrupt it in silence. A source is never opened itself, since
opening upgrades and compacts it; a copy is.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from chromactl import files
from chromactl.errors import ChromactlError, LockedError, NotChromaError, PreconditionError, RequestError
from chromactl.stores.dialect import V2
from chromactl.stores.http import LIST_ENTRIES
from chromactl.stores.http_target import HttpTarget
from chromactl.stores.serving import OwnServer
from chromactl.stores.transport import Network, Transport

log = logging.getLogger(__name__)

DATABASE = "chroma.sqlite3"
LOCK = ".chroma-stack.lock"
LIBRARY = "1.5"
COPIES = "chromactl-copy-"
ALIVE = "alive"
_TABLES = {"collections", "segments", "embeddings", "embeddings_queue"}
_NEWEST_TABLE = "embedding_metadata_array"  # came with 1.5


class DirectoryStore(HttpTarget):
    """A Chroma directory as a store; `url` names the directory, not the server in between."""

    def __init__(
        self,
        directory: Path,
        *,
        writable: bool,
        tenant: str,
        database: str,
        side: str,
        network: Network | None = None,
        create_database: bool = False,
    ) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._is_new = writable and not directory.exists()
        self._made_for_nothing = True
        try:
            opened = self._own(directory) if writable else self._copy(directory)
            self._server = OwnServer(opened, V2(tenant, database).collections(LIST_ENTRIES, 0), directory)
            self._stack.callback(self._server.stop)
            super().__init__(
                self._server.url,
                tenant=tenant,
                database=database,
                side=side,
                network=network,
                create_database=create_database,
            )
        except BaseException:
            self._stack.close()
            raise
        self.url = f"path:{directory}"
        self._made_for_nothing = False

    def _transport(self, url: str, token: SecretStr | None, side: str, network: Network | None) -> Transport:
        return _OwnTransport(self._server, self._directory, side, network)

    def _own(self, directory: Path) -> Path:
        if not self._is_new and (not directory.is_dir() or any(directory.iterdir())):
            _refuse_older(directory, check_is_database(directory))
        files.make_folder(directory)
        self._stack.enter_context(_locked(directory))
        _check_nobody_has_it_open(directory)
        if self._is_new:
            # Before the lock is let go: a run that was refused leaves no folder that was not there.
            self._stack.callback(self._remove_if_made_for_nothing)
        return directory

    def _remove_if_made_for_nothing(self) -> None:
        if self._made_for_nothing:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _copy(self, directory: Path) -> Path:
        check_is_database(directory)
        _check_nobody_has_it_open(directory)
        remove_abandoned_copies()
        work = self._stack.enter_context(_work_folder())
        need = _bytes_in(directory)
        if files.free_bytes(work) < need * 1.1:
            raise PreconditionError(
                f"{work}: reading {directory} takes a copy of {need / 2**20:.0f} MiB, and there is no room for it; "
                "free space there, or name another folder in TMPDIR"
            )
        copy = work / "database"
        # cp, because it clones the files where the file system can.
        command = ["cp", "--recursive", "--reflink=auto", "--", str(directory), str(copy)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise ChromactlError(f"{directory}: cannot be copied for reading: {done.stderr.strip()[:300]}")
        _mend(copy)
        return copy

    def free_bytes(self) -> int | None:
        """Free space on the directory's file system, in bytes."""
        return files.free_bytes(self._directory)

    def close(self) -> None:
        """Stop the server, remove the copy or a new folder that stayed without collections, let go of the lock."""
        if self._is_new:
            with contextlib.suppress(ChromactlError):
                self._made_for_nothing = not self.collections()
        super().close()
        self._stack.close()


class _OwnTransport(Transport):
    """Requests to a server of our own, which may break down on its directory.

    Errors name the directory: of the server in between nobody knows.
    """

    def __init__(self, server: OwnServer, directory: Path, side: str, network: Network | None) -> None:
        super().__init__(server.url, None, side, network)
        self._server = server
        self._directory = directory

    def request(self, *args: Any, **options: Any) -> Any:
        """As every transport does it; no server where one was is explained by what it said last."""
        try:
            return super().request(*args, **options)
        except ChromactlError as error:
            words = None if isinstance(error, RequestError) else self._server.broke_down()
            if words is not None:
                raise ChromactlError(words) from error
            error.args = (str(error).replace(self.url, f"path:{self._directory}"),)
            raise


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """A temporary folder, with a file in it that is locked as long as we live, whatever ends us."""
    folder = Path(tempfile.mkdtemp(prefix=COPIES))
    try:
        with (folder / "new").open("w") as file:
            # Locked before it gets its name: a file of this name that is not locked is of a process that is gone.
            fcntl.flock(file, fcntl.LOCK_EX)
            (folder / "new").rename(folder / ALIVE)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_copies() -> None:
    """Remove the copies of our own user's processes that were killed; they may be as large as a database."""
    for folder in Path(tempfile.gettempdir()).glob(f"{COPIES}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / ALIVE).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                log.info("%s: removed, a copy that a killed run of chromactl left", folder)
                shutil.rmtree(folder, ignore_errors=True)


def check_is_database(directory: Path) -> set[str]:
    """The tables of the database in the folder.

    Raises:
        NotChromaError: the folder does not hold a Chroma database.
    """
    path = directory / DATABASE
    if not directory.is_dir():
        raise NotChromaError(f"{directory}: no such folder; give the folder that holds {DATABASE}")
    if not path.is_file():
        raise NotChromaError(
            f"{directory}: not a Chroma database (no {DATABASE} in it); give the folder that holds one"
        )
    try:
        try:
            tables = _tables(path, "mode=ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_READONLY_ROLLBACK":
                raise
            # A writer that was killed left a journal, which whoever opens the database to write rolls back: Chroma
            # will, on the target or on a source's copy. Which tables there are can be told without.
            tables = _tables(path, "immutable=1")
    except sqlite3.Error as error:
        raise NotChromaError(f"{path}: cannot be read as a database ({error}); is it damaged or not yours?") from error
    if not tables >= _TABLES:
        raise NotChromaError(f"{path}: a database, but not Chroma's (its tables are missing)")
    return tables


def _tables(path: Path, how: str) -> set[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?{how}", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _refuse_older(directory: Path, tables: set[str]) -> None:
    if _NEWEST_TABLE not in tables:
        raise PreconditionError(
            f"{directory}: an older Chroma than {LIBRARY} made this directory, and writing to it would upgrade it for "
            "good; name a new folder, or upgrade a copy of this one first and name the copy"
        )


def _mend(copy: Path) -> None:
    """Take out of a copy's log what makes 1.5.9 panic and then answer nothing at all.

    0.5 and 0.6 log a record without a document as {"chroma:document": null} if others of its batch had one;
    1.5.9 expects a text there, or no such key (rust/log/src/sqlite_log.rs). Both mean no document.
    """
    key = '$."chroma:document"'
    statement = (
        "UPDATE embeddings_queue SET metadata = json_remove(metadata, ?) "
        "WHERE json_valid(metadata) AND json_type(metadata, ?) = 'null'"
    )
    try:
        with contextlib.closing(sqlite3.connect(copy / DATABASE)) as connection, connection:
            connection.execute(statement, (key, key))
    except sqlite3.Error as error:
        raise NotChromaError(f"{copy / DATABASE}: cannot be read as a database ({error}); is it damaged?") from error


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock that the service's persistent mode holds too."""
    path = directory / LOCK
    with files.explained(path), path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(_in_use(directory, "another process")) from error
        yield


def _check_nobody_has_it_open(directory: Path) -> None:
    """Look through /proc for processes that have the database file open (those we may see)."""
    try:
        wanted = (directory / DATABASE).stat()
    except FileNotFoundError:
        return
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    status = descriptor.stat()
                    if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                        raise LockedError(_in_use(directory, f"process {process.name}"))


def _in_use(directory: Path, who: str) -> str:
    return (
        f"{directory}: {who} has this database open, and two processes on one directory corrupt it; "
        "stop that process, or name its server's URL instead (CHROMA_MODE=http for the service)"
    )


def _bytes_in(directory: Path) -> int:
    return sum(entry.stat().st_size for entry in directory.rglob("*") if entry.is_file())
