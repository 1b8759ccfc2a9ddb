"""The service's own PostgreSQL, seen from outside: its processes, and somebody who uses it from another process."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.process import wait_until_gone
from support.service import child_environment

_USE = """
import sys
from pathlib import Path
import psycopg
from app.core.database.embedded import EmbeddedPostgres
own = EmbeddedPostgres(Path(sys.argv[1]))
url = own.start()
with psycopg.connect(url.set(drivername="postgresql").render_as_string()) as connection:
    connection.execute("SELECT pg_advisory_xact_lock(1)")
    connection.execute("CREATE TABLE IF NOT EXISTS marks (mark text)")
    connection.execute("INSERT INTO marks VALUES (%s)", [sys.argv[2]])
print("uses it", flush=True)
sys.stdin.read()
own.stop()
"""


def servers_below(folder: Path) -> list[int]:
    """The PostgreSQL processes that work in the folder, the first of each server."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            inside = (process / "cwd").resolve().is_relative_to(folder)
            if (
                inside
                and (process / "comm").read_text() == "postgres\n"
                and b"-D\0" in (process / "cmdline").read_bytes()
            ):
                found.append(int(process.name))
    return found


def _argv(process: Path) -> list[bytes]:
    return (process / "cmdline").read_bytes().split(b"\0")


@contextmanager
def none_left_below(folder: Path) -> Iterator[None]:
    """An AssertionError when a server is left at the end of the block. It is ended either way."""
    try:
        yield
    finally:
        left = servers_below(folder)
        for pid in left:
            os.kill(pid, signal.SIGQUIT)
        wait_until_gone(left)
    assert left == []


@contextmanager
def user_of(directory: Path, mark: str, before: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses it, and has written its mark; it lets go at the end of the block, unless it was killed."""
    with subprocess.Popen(  # noqa: S603 (the tests' own words)
        [*before, sys.executable, "-c", _USE, str(directory), mark],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = process.stdout.readline()
            assert said == b"uses it\n", process.stderr.read().decode()
            yield process
            process.stdin.close()
            if process.wait(60) != -signal.SIGKILL:
                assert process.returncode == 0, process.stderr.read().decode()
        finally:
            process.kill()


def ordinary(folder: Path) -> Sequence[str]:
    """What makes the command after it one of an ordinary user, to whom the folder is given; nothing where we are one.

    The one capability is for the way to the interpreter, which may lead through directories of root's.
    """
    if os.geteuid() != 0:
        return ()
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--securebits=+no_setuid_fixup")
    return ("setpriv", *identity, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--")
