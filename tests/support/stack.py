"""PostgreSQL, Chroma and the service together, each real; the index follows when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg

from app.core.keys.key import Key
from app.core.memory.tenant import Tenant
from support.postgres import Postgres
from support.servers import Server, chroma_server
from support.service import ANN, DIMENSION, Service, bearer, indexer_of, service, services_of

BOB = Tenant("bob", "first")


@dataclass
class Stack:
    """A running service on its own database and Chroma. Every tenant that is asked for has a key."""

    api: Service
    chroma: Server
    database_url: str
    _stack: ExitStack
    _clients: dict[Tenant, httpx.Client] = field(default_factory=dict)
    _keys: dict[Tenant, str] = field(default_factory=dict)

    def key(self, tenant: Tenant = ANN) -> str:
        """The tenant's API key, issued when first asked for."""
        if tenant not in self._keys:
            self._keys[tenant] = new_key(self.database_url, tenant)
        return self._keys[tenant]

    def of(self, tenant: Tenant = ANN) -> httpx.Client:
        """A client of the service that sends the tenant's key."""
        if tenant not in self._clients:
            made = httpx.Client(base_url=self.api.url, headers=bearer(self.key(tenant)), timeout=60, trust_env=False)
            self._clients[tenant] = self._stack.enter_context(made)
        return self._clients[tenant]

    def index(self) -> int:
        """Do what an index worker does until nothing is left, and return how many records there were."""
        return index(self.database_url, self.chroma)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The answer of the database."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def execute(self, statement: str) -> None:
        """Have the database do something."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Nobody else reads or writes the table during the block."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            yield

    @cached_property
    def page(self) -> dict[str, Any]:
        """The service's OpenAPI page."""
        page: dict[str, Any] = self.api.http.get("/openapi.json").raise_for_status().json()
        return page


def new_key(database_url: str, tenant: Tenant) -> str:
    """A key of the tenant, as `app keys issue` makes it."""
    key = Key.new()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO api_keys (id, secret_hash, user_id, project_id) VALUES (%s, %s, %s, %s)",
            (key.id, key.hash(), tenant.user_id, tenant.project_id),
        )
    return key.reveal()


def index(database_url: str, chroma: Server) -> int:
    """Have Chroma hold what the database says; the number of records that were to be written or removed."""

    async def work() -> int:
        try:
            indexer, total = indexer_of(services), 0
            while (outcome := await indexer.step()).taken:
                assert (outcome.postponed, outcome.buried) == (0, 0)
                total += outcome.taken
            return total
        finally:
            await services.close()

    with asyncio.Runner() as runner:
        services = services_of(runner, database_url, chroma)
        return runner.run(work())


def settings_of(database_url: str, chroma_port: int, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a service in http mode."""
    return {
        "CHROMA_MODE": "http",
        "CHROMA_HOST": "127.0.0.1",
        "CHROMA_PORT": str(chroma_port),
        "EMBEDDING_DIMENSION": str(DIMENSION),
        "DATABASE_URL": database_url,
        **(more or {}),
    }


@contextmanager
def stack(
    folder: Path, postgres: Postgres, variables: Mapping[str, str] | None = None, *, workers: int = 1
) -> Iterator[Stack]:
    """Run Chroma and the service, on a new database with all tables, until the block ends."""
    database_url = postgres.new_database()
    with ExitStack() as held:
        chroma = held.enter_context(chroma_server(folder / "chroma"))
        index(database_url, chroma)  # makes the tables
        api = held.enter_context(service(folder, settings_of(database_url, chroma.port, variables), workers=workers))
        yield Stack(api, chroma, database_url, held)
