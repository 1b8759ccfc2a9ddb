"""The whole service as real processes: PostgreSQL, Chroma, uvicorn's workers, index workers; each can be killed."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from pydantic import SecretStr

from app.core.database.database import Database, database_url
from app.core.keys.repository import KeyRepository
from app.core.memory.tenant import Tenant
from support.servers import Process, Server, answers
from support.service import DIMENSION, Service, bearer, child_environment, service
from support.truth import Truth

SOON_SECONDS = 240.0
AT_ONCE = 12
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the CA bundle takes longer than the requests
_number = itertools.count(1)


def until(check: Callable[[], bool], what: str, seconds: float = SOON_SECONDS) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.02)


@dataclass
class Caller:
    """A tenant with its key."""

    url: str
    tenant: Tenant
    headers: dict[str, str] = field(repr=False)

    def client(self) -> httpx.AsyncClient:
        """What its requests go through."""
        # sooner than the service hangs up on an idle connection (5 s), so that both do not happen at once
        limits = httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=2)
        return httpx.AsyncClient(
            base_url=self.url, headers=self.headers, timeout=60, trust_env=False, limits=limits, verify=_NO_TLS
        )

    async def each(self, work: Sequence[Callable[[httpx.AsyncClient], Awaitable[Any]]]) -> list[Any]:
        """Do all of it, a dozen at a time; the results in order."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(client: httpx.AsyncClient, call: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
            async with gate:
                return await call(client)

        async with self.client() as client:
            return await asyncio.gather(*(one(client, call) for call in work))


@dataclass
class Stack:
    """Where everything is. Index workers are started by the tests."""

    folder: Path
    chroma: Server
    database_url: str
    variables: dict[str, str]
    workers: list[Process] = field(default_factory=list)
    api: Service | None = None

    @property
    def truth(self) -> Truth:
        """To compare PostgreSQL with Chroma."""
        return Truth(self.database_url, self.chroma.url)

    @property
    def serving(self) -> Service:
        """The service itself."""
        assert self.api is not None
        return self.api

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """In a transaction of its own."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def caller(self) -> Caller:
        """A new tenant."""
        tenant = Tenant(f"caller{next(_number)}", "first")

        async def issue() -> str:
            database = Database(database_url(SecretStr(self.database_url)), 1, 30)
            try:
                key, _ = await KeyRepository(database).issue(tenant)
                return key.reveal()
            finally:
                await database.close()

        return Caller(self.serving.url, tenant, bearer(asyncio.run(issue())))

    # Index workers

    def begin_worker(self, **variables: str) -> Process:
        """Start `app worker`, and do not wait for it."""
        environment = child_environment(**{**self.variables, **variables})
        log = self.folder / f"worker-{next(_number)}.log"
        worker = Process([sys.executable, "-m", "app", "worker"], log, environment, self.folder)
        self.workers.append(worker.start())
        return worker

    def have_workers(self, number: int) -> list[Process]:
        """So many that are at work; none that runs already is ended but what is too many."""
        running = [worker for worker in self.workers if worker.running]
        for worker in running[number:]:
            worker.stop()
        for _ in range(number - len(running)):
            self.begin_worker()
        self.workers = [worker for worker in self.workers if worker.running]
        for worker in self.workers:
            worker.wait_until(lambda worker=worker: "indexing from" in worker.text())  # type: ignore[misc]
        return list(self.workers)

    def in_hand(self, workers: Sequence[Process] | None = None) -> list[tuple[Process, int]]:
        """The workers that hold a batch at this moment, with the session of PostgreSQL that holds it."""
        rows = self.sql(
            "SELECT client_port, pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'chroma-stack' AND state = 'idle in transaction'"
        )
        sessions = dict(rows)
        found = []
        for worker in workers if workers is not None else self.workers:
            held = local_ports(worker.pid) & sessions.keys() if worker.running else set()
            found += [(worker, sessions[port]) for port in held]
        return found

    # Waiting and comparing

    def until_indexed(self, seconds: float = SOON_SECONDS) -> None:
        """Wait until no event is left."""
        until(lambda: self.truth.waiting() == 0, "the outbox is empty", seconds)

    def assert_right(self, memories: int | None = None) -> None:
        """Chroma holds what PostgreSQL says, and nothing was given up."""
        truth = self.truth
        assert truth.letters() == 0
        assert truth.differences() == []
        assert memories is None or truth.memories() == memories

    def restart_chroma(self) -> None:
        """On the same directory and port. It dies with the thread that called this, so call it from the main one."""
        self.chroma.process.start()
        self.chroma.process.wait_until(answers(f"{self.chroma.url}/api/v2/heartbeat"))

    def said(self) -> str:
        """What the service and all index workers wrote."""
        logs = [path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(logs)


def local_ports(pid: int) -> set[int]:
    """The ports of a process's ends of IPv4 connections."""
    own = set()
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            own.add(os.readlink(fd))
    except OSError:  # it, or one of its files, may be gone while we look
        pass
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in own}


@contextmanager
def stack(folder: Path, chroma: Server, database_url: str, *, api_workers: int, **variables: str) -> Iterator[Stack]:
    """The service with so many API workers (0: without it), on a database that has the tables."""
    settings = {
        "CHROMA_MODE": "http",
        "CHROMA_HOST": "127.0.0.1",
        "CHROMA_PORT": str(chroma.port),
        "CHROMA_TIMEOUT_SECONDS": "30",
        "DATABASE_URL": database_url,
        "EMBEDDING_DIMENSION": str(DIMENSION),
        **variables,
    }
    made = Stack(folder, chroma, database_url, settings)
    try:
        with ExitStack() as held:
            if api_workers:
                made.api = held.enter_context(service(folder, settings, workers=api_workers))
            yield made
    finally:
        for worker in made.workers:
            if worker.running:
                os.kill(worker.pid, signal.SIGCONT)
                worker.kill()
