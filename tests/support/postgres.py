"""A real PostgreSQL with pgvector for tests, on loopback: can be stopped and restarted; a database for each test."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from app.core.database.programs import as_somebody, prepare, programs
from support.ports import free_port
from support.process import children, wait_until_gone
from support.servers import PORT_ATTEMPTS, Process, ServerDied

USER = "postgres"
_number = itertools.count(1)


class Postgres:
    """A server on a directory. Every connection is trusted: it listens on loopback and holds made-up data only."""

    def __init__(self, directory: Path, *options: str) -> None:
        """`options`: settings of the server as NAME=VALUE, in place of those that make tests fast."""
        self._directory = directory
        self._options = options or ("fsync=off",)
        self._bin = programs()
        directory.mkdir(parents=True, mode=0o700)
        prepare(self._bin, directory, "--no-sync")
        self.port = 0
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        return int((self._directory / "postmaster.pid").read_text().splitlines()[0])

    @property
    def host_and_port(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, database: str = "postgres") -> str:
        """As DATABASE_URL takes it."""
        return f"postgresql://{USER}@{self.host_and_port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{os.getpid()}_{next(_number)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    @contextmanager
    def running(self) -> Iterator[Postgres]:
        """It runs until the block ends, on a port of its own that it keeps when it is started again."""
        for attempt in range(PORT_ATTEMPTS):
            self.port = self.port or free_port()
            process = Process(self._argv(), self._directory.with_suffix(".log"), env=dict(os.environ), cwd=Path("/"))
            with process.start():
                try:
                    process.wait_until(self._is_up)
                except ServerDied:
                    if attempt == PORT_ATTEMPTS - 1 or "Address already in use" not in process.text():
                        raise
                    self.port = 0
                    continue
                self._process = process
                try:
                    yield self
                finally:
                    self.stop()
            return

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Fast shutdown (or another signal), and wait until it is gone."""
        if self._process is not None:
            self._process.stop(number)

    def kill(self) -> None:
        """The crash: SIGKILL to every process of it, the first one first."""
        if self._process is not None:
            os.kill(self.pid, signal.SIGSTOP)  # so that it starts no more
            others = children(self.pid)
            self._process.kill()
            for pid in others:
                with suppress(ProcessLookupError):  # they notice, and end by themselves
                    os.kill(pid, signal.SIGKILL)
            wait_until_gone(others)

    def start(self) -> None:
        """Again, on the same port, with the same data."""
        assert self._process is not None
        self._process.start()
        self._process.wait_until(self._is_up)

    def _argv(self) -> list[str]:
        options = ["-D", str(self._directory), "-k", "", "-h", "127.0.0.1", "-p", str(self.port)]
        # the death signal of the parent is forgotten when the user changes
        somebody = [word for word in as_somebody() if word != "--"]
        before = [*somebody, "--pdeathsig=INT", "--"] if somebody else []
        settings = [word for option in ("max_connections=200", *self._options) for word in ("-c", option)]
        return [*before, str(self._bin / "postgres"), *options, *settings]

    def _is_up(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
