"""A PostgreSQL of our own, for a checkout where nobody has set one up (DATABASE_URL is empty).

In its directory are `cluster` (PostgreSQL's files and its socket; it listens nowhere else), `log`, and three lock files
that the kernel frees when those who hold them end: `lock`, held while somebody starts or ends it; `users`, shared by
all who use it; `server`, held by its own processes. The last user ends it. After a SIGKILL it goes on running; the next
one joins it, and ends it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL

from app.core.database.database import DRIVER
from app.core.database.programs import USER, VERSION, as_somebody, prepare, programs
from app.core.errors import StartupError

log = logging.getLogger(__name__)

DATABASE = "postgres"
PORT = 5432  # of no network: it names the socket
# About two as a rule; after a crash it replays all that was written since its last checkpoint.
START_SECONDS = 600.0
PATIENCE_SECONDS = 5.0
STOP_SECONDS = 30.0
# Whoever holds `lock` for longer is starting it, and will use it.
LOCK_SECONDS_AT_THE_END = 10.0
MAX_LOG_BYTES = 10 * 1024 * 1024
# A socket's path has room for this many bytes.
_MAX_SOCKET_PATH = 107
_SOCKET = f".s.PGSQL.{PORT}"
# The descriptor by which the server's processes hold `server`.
_ALIVE = 3
# No statement in its log, and no detail, which would quote the row.
_OPTIONS = ("log_error_verbosity=terse", "log_min_error_statement=panic", "unix_socket_permissions=0700")


class EmbeddedPostgres:
    """A PostgreSQL on one directory, shared by all processes that start it there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.expanduser().resolve()
        self._cluster = self._directory / "cluster"
        self._log = self._directory / "log"
        self._users: int | None = None
        self._door: int | None = None

    def start(self) -> URL:
        """Start it, or join the one that runs already. Raises StartupError."""
        try:
            bin_ = programs()
            self._make_folder()
            with self._alone(START_SECONDS):
                self._users = self._open("users")
                fcntl.flock(self._users, fcntl.LOCK_SH)
                # one that was killed may have processes left that end in a moment
                if not (self._runs() and self._gets_ready()):
                    self._make_cluster(bin_)
                    self._run(bin_)
                    if not self._gets_ready():
                        raise OSError(None, f"it ended: {_last_line(self._log)}")
            return self._url()
        except BaseException as error:
            self.stop()
            if not isinstance(error, (OSError, subprocess.SubprocessError)):
                raise
            raise StartupError(
                f"PostgreSQL cannot be started on DATABASE_PATH={self._directory}: {_reason(error)}.",
                hint=f"See {self._log}, or set DATABASE_URL.",
            ) from None

    def stop(self) -> None:
        """Let go of it; the last one ends the server. Harmless when it is not held."""
        users, self._users = self._users, None
        door, self._door = self._door, None
        if door is not None:
            os.close(door)
        if users is None:
            return
        try:
            with self._alone(LOCK_SECONDS_AT_THE_END), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._end()
        except OSError as error:
            log.warning("PostgreSQL in %s was not ended: %s", self._directory, _reason(error))
        finally:
            os.close(users)

    def _make_folder(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (self._directory / "PG_VERSION").exists():
            raise StartupError(
                f"DATABASE_PATH={self._directory} is a PostgreSQL data directory itself.",
                hint="Name a new folder, or start that PostgreSQL and set DATABASE_URL.",
            )
        # see programs.as_somebody
        if os.geteuid() == 0 and self._directory.stat().st_mode & 0o077:
            raise StartupError(
                f"DATABASE_PATH={self._directory} is open to other users.", hint=f"Run: chmod 700 {self._directory}"
            )

    def _make_cluster(self, bin_: Path) -> None:
        if self._cluster.exists():
            made_by = (self._cluster / "PG_VERSION").read_text().strip()
            if made_by != str(VERSION):
                raise StartupError(
                    f"DATABASE_PATH={self._directory} was made by PostgreSQL {made_by}, this one is {VERSION}.",
                    hint="Dump it with that version and restore it with this one, or name another folder.",
                )
            return
        new = self._directory / "cluster.new"  # one that was not finished is never taken for a database
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._give_to_our_owner(new)
        prepare(bin_, new)
        new.rename(self._cluster)
        _sync(self._directory)

    def _run(self, bin_: Path) -> None:
        server = [str(bin_ / "postgres"), "-D", str(self._cluster), "-h", "", "-p", str(PORT)]
        # `.` is the cluster, where it is by then: a whole path may be too long for a socket
        server += ["-k", ".", *(word for option in _OPTIONS for word in ("-c", option))]
        argv = [*as_somebody(self._cluster), *server]
        with suppress(FileNotFoundError):
            if self._log.stat().st_size > MAX_LOG_BYTES:
                self._log.rename(self._log.with_suffix(".1"))
        # PostgreSQL itself would refuse to start where another process has the number in them by now
        for left in ("postmaster.pid", f"{_SOCKET}.lock"):
            (self._cluster / left).unlink(missing_ok=True)
        output, alive = self._open("log", os.O_APPEND), self._open("server")
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_spawnp(
                argv[0],
                argv,
                # nothing of our own environment: it holds secrets, and PG… variables of whoever runs this
                {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                    (os.POSIX_SPAWN_DUP2, alive, _ALIVE),
                ],
                setsid=True,  # Ctrl-C is for us; we end it when we are done
            )
        finally:
            os.close(output)
            os.close(alive)

    def _gets_ready(self) -> bool:
        """Wait until it answers; False when it ended instead."""
        started = time.monotonic()
        told = False
        while "ready" not in self._line(7) or not self._answers():
            if not self._runs():
                return False
            waited = time.monotonic() - started
            if waited > START_SECONDS:
                raise OSError(None, f"it was not ready after {START_SECONDS:.0f} s")
            if waited > PATIENCE_SECONDS and not told:
                told = True
                log.warning("PostgreSQL in %s is still starting; see %s", self._directory, self._log)
            time.sleep(0.02)
        return True

    def _end(self) -> None:
        pid = self._pid()
        if pid is None:
            if self._runs():
                raise OSError(None, "its process is not to be seen from here")
            return
        # fast: sessions are ended, all is written; or else at once: the next start replays
        for number in (signal.SIGINT, signal.SIGQUIT):
            os.kill(pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                if not self._runs():
                    return
                time.sleep(0.02)
        raise OSError(None, f"process {pid} did not end")

    def _url(self) -> URL:
        host = str(self._cluster)
        if len(f"{host}/{_SOCKET}".encode()) > _MAX_SOCKET_PATH:
            self._door = _open_folder(self._cluster)
            host = f"/proc/self/fd/{self._door}"
        return URL.create(DRIVER, username=USER, port=PORT, database=DATABASE, query={"host": host})

    def _answers(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            folder = _open_folder(self._cluster)
            try:
                probe.connect(f"/proc/self/fd/{folder}/{_SOCKET}")
            finally:
                os.close(folder)
            return True
        return False

    def _runs(self) -> bool:
        """Whether a process of the server is left, be it in a container of which we do not see the processes."""
        alive = self._open("server")
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(alive)
        return self._pid() is not None  # where a network file system does not let processes inherit a lock

    def _pid(self) -> int | None:
        """The server's process, if it is one that we see: of this cluster, not of another one that has its number."""
        with suppress(OSError, ValueError):
            pid = int(self._line(0))
            process = Path(f"/proc/{pid}")
            if (process / "comm").read_text().strip() == "postgres" and (process / "cwd").samefile(self._cluster):
                return pid
        return None

    def _line(self, number: int) -> str:
        with suppress(OSError, IndexError):
            return (self._cluster / "postmaster.pid").read_text().splitlines()[number].strip()
        return ""

    @contextmanager
    def _alone(self, seconds: float) -> Iterator[None]:
        """Nobody else starts or ends it meanwhile."""
        lock = self._open("lock")
        try:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise OSError(None, "another process has been starting or ending it for too long") from None
                time.sleep(0.02)
            yield
        finally:
            os.close(lock)

    def _open(self, name: str, flags: int = 0) -> int:
        """A file of ours, made when it is not there. What root makes belongs to whom the folder belongs to."""
        path = self._directory / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        self._give_to_our_owner(descriptor)
        return descriptor

    def _give_to_our_owner(self, made: Path | int) -> None:
        if os.geteuid() == 0:
            owner = self._directory.stat()
            os.chown(made, owner.st_uid, owner.st_gid)


def _open_folder(path: Path) -> int:
    """A way to what is in it that is short, however long the path is: /proc/self/fd/<this>."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _sync(directory: Path) -> None:
    descriptor = _open_folder(directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1][:300].rstrip(".")


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = bytes(error.stderr).decode(errors="replace").strip().splitlines() or [str(error)]
        return lines[-1][:300].rstrip(".")
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: {error.strerror}{_of_whom(Path(str(error.filename)))}"
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _of_whom(path: Path) -> str:
    """Whose the path, or what of it exists, is."""
    for place in (path, *path.parents):
        with suppress(OSError, KeyError):
            return f" ({place} belongs to {pwd.getpwuid(place.stat().st_uid).pw_name})"
    return ""
