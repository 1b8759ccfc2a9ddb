"""An index worker's parts in this process, on a real PostgreSQL and a real Chroma, and a tenant of a test's own."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from app.core.chroma.client import ChromaClient
from app.core.chroma.session import Session
from app.core.chroma.writer import Entries, IndexWriter
from app.core.database.database import Database, database_url
from app.core.embedding.hashing import HashingEmbedder
from app.core.embedding.provider import EmbeddingProvider
from app.core.index.batch import Outcome
from app.core.index.indexer import Indexer
from app.core.memory.tenant import Kind, Tenant
from support.service import DIMENSION

_number = itertools.count(1)

Found = dict[str, tuple[str, Mapping[str, Any]]]
"""id: (document, metadata)"""


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own, and close the databases that it opened with a rig."""

    async def whole(named: Mapping[str, Any]) -> None:
        try:
            await test(**named)
        finally:
            for rig in named.values():
                if isinstance(rig, Rig):
                    await rig.close()

    @wraps(test)
    def run(**named: Any) -> None:
        asyncio.run(whole(named))

    return run


@dataclass
class Rig:
    """A database with the tables, an index, and somebody who remembers things."""

    url: str
    session: Session
    tenant: Tenant
    opened: list[Database] = field(default_factory=list)

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """As any other writer would, psql included; each call is its own transaction."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def remember(self, content: str = "rain", kind: Kind = "memory", **metadata: Any) -> int:
        """Insert a record; its id."""
        return self.insert({"content": content, "metadata": metadata}, kind)

    def insert(self, raw_data: Any, kind: Kind = "memory") -> int:
        """The same, of any form."""
        document = "gen_random_uuid()" if kind == "passage" else "NULL"
        rows = self.sql(
            f"INSERT INTO memory_logs (user_id, project_id, kind, document_id, raw_data) "  # noqa: S608
            f"VALUES (%s, %s, %s, {document}, %s) RETURNING id",
            *(self.tenant.user_id, self.tenant.project_id, kind, Jsonb(raw_data)),
        )
        return int(rows[0][0])

    def change(self, memory_id: int, content: str, **metadata: Any) -> None:
        """Put other raw_data in its place."""
        raw_data = Jsonb({"content": content, "metadata": metadata})
        self.sql("UPDATE memory_logs SET raw_data = %s WHERE id = %s", raw_data, memory_id)

    def replay(self, memory_id: int) -> None:
        """A new event for a record of ours."""
        self.sql(
            "INSERT INTO outbox (memory_id, user_id, project_id, kind, operation) "
            "VALUES (%s, %s, %s, 'memory', 'replay')",
            *(memory_id, self.tenant.user_id, self.tenant.project_id),
        )

    def give(self, memory_id: int, other: Tenant, content: str) -> None:
        """Use the id of a deleted record anew, for another tenant."""
        self.sql(
            "INSERT INTO memory_logs (id, user_id, project_id, raw_data) VALUES (%s, %s, %s, %s)",
            *(memory_id, other.user_id, other.project_id, Jsonb({"content": content, "metadata": {}})),
        )

    def forget(self, memory_id: int) -> None:
        """Delete it."""
        self.sql("DELETE FROM memory_logs WHERE id = %s", memory_id)

    def events(self) -> list[tuple[int, str, int]]:
        """(memory_id, operation, attempts) of every event, oldest first."""
        return [(m, o, a) for m, o, a in self.sql("SELECT memory_id, operation, attempts FROM outbox ORDER BY id")]

    def due_now(self) -> None:
        """Let the time pass that events wait for."""
        self.sql("UPDATE outbox SET next_attempt_at = now() - interval '1 second' WHERE next_attempt_at > now()")

    def letters(self) -> list[tuple[int, int, str]]:
        """(memory_id, attempts, error) of every dead letter."""
        rows = self.sql("SELECT memory_id, attempts, last_error FROM dead_letters ORDER BY memory_id, id")
        return [(memory_id, attempts, error) for memory_id, attempts, error in rows]

    def found(self, kind: Kind = "memory", tenant: Tenant | None = None) -> Found:
        """What the tenant's collection holds."""
        name = (tenant or self.tenant).collection(kind)

        def read(client: ChromaClient) -> Found:
            if name not in {collection.name for collection in client.collections()}:
                return {}
            got = client.bind(client.get(name)).get(include=["documents", "metadatas"])
            rows = zip(got["ids"], got["documents"] or [], got["metadatas"] or [], strict=True)
            return {id_: (document, metadata) for id_, document, metadata in rows}

        return self.session.answer(read)

    def contents(self, tenant: Tenant | None = None) -> list[int]:
        """The ids of the records that the collection of memories holds."""
        return sorted(int(id_.removeprefix("memory_log_")) for id_ in self.found(tenant=tenant))

    def database(self, timeout_seconds: float = 5.0, **more: float) -> Database:
        """A pool of connections, as each worker has one of its own."""
        self.opened.append(Database(database_url(SecretStr(self.url)), 5, timeout_seconds, **more))
        return self.opened[-1]

    async def close(self) -> None:
        """Close every database."""
        while self.opened:
            await self.opened.pop().close()

    def indexer(
        self,
        database: Database,
        *,
        embedder: EmbeddingProvider | None = None,
        writer: IndexWriter | None = None,
        batch_size: int = 100,
        max_attempts: int = 3,
        settle_seconds: float = 30.0,
    ) -> Indexer:
        """An indexer of both kinds."""
        own = writer or IndexWriter(self.session)
        stores: dict[Kind, IndexWriter] = {"memory": own, "passage": own}
        made = embedder or HashingEmbedder(DIMENSION)
        return Indexer(database, stores, made, batch_size, max_attempts, settle_seconds)


def new_tenant() -> Tenant:
    """A tenant that no other test has."""
    return Tenant(f"user{next(_number)}", "first")


async def drain(indexer: Indexer) -> list[Outcome]:
    """Batches until none is due."""
    outcomes = []
    while (outcome := await indexer.step()).taken:
        outcomes.append(outcome)
    return outcomes


class PickyEmbedder(HashingEmbedder):
    """Refuses texts as a provider does, or fails over them as no provider should."""

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        super().__init__(DIMENSION)
        self.errors = dict(errors)
        self.calls: list[int] = []

    def embed(self, texts: Sequence[str]) -> Any:
        """As the other, but for texts with one of the words."""
        self.calls.append(len(texts))
        for word, error in self.errors.items():
            if any(word in text for text in texts):
                raise error
        return super().embed(texts)


class Gate(IndexWriter):
    """A writer that can be held up, or made to say that it does not know, where it is about to write."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.opened.set()
        self.error: Exception | None = None

    def close(self) -> None:
        self.reached.clear()
        self.opened.clear()

    def put(self, name: str, entries: Entries) -> None:
        self._pass()
        super().put(name, entries)

    def remove(self, name: str, ids: Sequence[str]) -> None:
        self._pass()
        super().remove(name, ids)

    def _pass(self) -> None:
        self.reached.set()
        assert self.opened.wait(30)
        if self.error is not None:
            raise self.error


async def until(event: threading.Event) -> None:
    """Wait for something that happens in a thread."""
    assert await asyncio.to_thread(event.wait, 30)
