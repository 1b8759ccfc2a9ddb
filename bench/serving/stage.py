"""What is measured, running: Chroma, PostgreSQL, the service, index workers, each a real process of its own."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from bench.serving.memories import DIMENSION, TENANT

from support.postgres import Postgres
from support.servers import Process, Server, chroma_server
from support.service import Service, index_worker, issue_key, service, upgrade_database

LIMIT_SECONDS = 1800.0


@dataclass
class Stage:
    """The addresses of a stack with one tenant, and ways to run more on it."""

    folder: Path
    chroma: Server
    database_url: str
    variables: dict[str, str]
    key: str = field(repr=False)

    @contextmanager
    def service(self, workers: int) -> Iterator[Service]:
        """The API with so many workers."""
        with service(self.folder, self.variables, workers=workers) as running:
            yield running

    @contextmanager
    def index_workers(self, number: int) -> Iterator[list[Process]]:
        """So many `app worker` processes."""
        with ExitStack() as stack:
            yield [stack.enter_context(index_worker(self.folder, self.variables)) for _ in range(number)]

    def waiting(self) -> int:
        """Events in the outbox."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM outbox").fetchone()
            return int(row[0]) if row else 0

    def until(self, reached: Callable[[int], bool], every: float = 0.1) -> float:
        """Wait until the outbox is so; the time of a clock then."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not reached(self.waiting()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the outbox still holds {self.waiting()} events")
            time.sleep(every)
        return time.perf_counter()

    @property
    def collection(self) -> str:
        """The name of the tenant's collection."""
        return TENANT.collection("memory")


@contextmanager
def stage() -> Iterator[Stage]:
    """Chroma 1.5.9 and a durable PostgreSQL with the tables and one key; all gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="chroma-stack-bench-"))
    try:
        with (
            chroma_server(folder / "chroma") as chroma,
            Postgres(folder / "postgres", "shared_buffers=512MB", "max_wal_size=4GB").running() as postgres,
        ):
            url = postgres.new_database()
            variables = {
                "CHROMA_MODE": "http",
                "CHROMA_HOST": "127.0.0.1",
                "CHROMA_PORT": str(chroma.port),
                "DATABASE_URL": url,
                "EMBEDDING_DIMENSION": str(DIMENSION),
                "LOG_LEVEL": "WARNING",
            }
            upgrade_database(folder, variables)
            key = issue_key(folder, variables, TENANT.user_id, TENANT.project_id)
            yield Stage(folder, chroma, url, variables, key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
