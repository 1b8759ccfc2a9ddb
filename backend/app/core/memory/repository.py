"""Memories in PostgreSQL. Every query names the tenant; what is another's does not exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, select, text, update

from app.core.database.database import Database
from app.core.database.schema import memory_logs
from app.core.errors import UnknownMemory
from app.core.memory.record import Record, to_jsonb
from app.core.memory.tenant import Kind, Tenant

_COLUMNS = [column for column in memory_logs.columns if column.name not in ("embedding", "embedding_model")]
_JOINED = text("raw_data || CAST(:changes AS jsonb)")
# One statement for all: ids grow in the order given.
_INSERT = text("""
    INSERT INTO memory_logs (user_id, project_id, kind, document_id, raw_data)
    SELECT :user_id, :project_id, :kind, :document_id, given.raw_data
    FROM unnest(CAST(:raw_data AS jsonb[])) WITH ORDINALITY AS given (raw_data, position)
    ORDER BY given.position
    RETURNING id, user_id, project_id, kind, document_id, raw_data, revision, created_at, updated_at
""")


class Memories:
    """Write, read, page, change and delete records of one kind. A trigger writes the outbox event of each change."""

    def __init__(self, database: Database, kind: Kind) -> None:
        self._database = database
        self._kind = kind

    async def add(
        self, tenant: Tenant, contents: Sequence[Mapping[str, Any]], document_id: UUID | None = None
    ) -> list[Record]:
        """Store them all or none, and return them in the order given."""
        values = {
            "user_id": tenant.user_id,
            "project_id": tenant.project_id,
            "kind": self._kind,
            "document_id": document_id,
            "raw_data": [to_jsonb(raw_data) for raw_data in contents],
        }
        async with self._database.autocommit() as connection:
            rows = await connection.execute(_INSERT, values)
            return sorted(map(_record, rows), key=lambda record: record.id)

    async def get(self, tenant: Tenant, memory_id: int) -> Record:
        """The record; UnknownMemory when the tenant has none of this id."""
        async with self._database.autocommit() as connection:
            result = await connection.execute(select(*_COLUMNS).where(*self._mine(tenant, memory_id)))
            return _found(result.one_or_none(), memory_id)

    async def page(self, tenant: Tenant, limit: int, before: int | None = None) -> list[Record]:
        """At most `limit` records, newest first, older than the id `before`."""
        query = select(*_COLUMNS).where(*self._mine(tenant)).order_by(memory_logs.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(memory_logs.c.id < before)
        async with self._database.autocommit() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def change(self, tenant: Tenant, memory_id: int, changes: Mapping[str, Any]) -> Record:
        """Put these parts of raw_data in the place of the old ones; UnknownMemory."""
        # joined by PostgreSQL, so that what is not replaced stays as it is to the last digit
        statement = (
            update(memory_logs).where(*self._mine(tenant, memory_id)).values(raw_data=_JOINED).returning(*_COLUMNS)
        )
        async with self._database.autocommit() as connection:
            result = await connection.execute(statement, {"changes": to_jsonb(changes)})
            return _found(result.one_or_none(), memory_id)

    async def remove(self, tenant: Tenant, memory_id: int) -> None:
        """Delete it; UnknownMemory."""
        async with self._database.autocommit() as connection:
            result = await connection.execute(delete(memory_logs).where(*self._mine(tenant, memory_id)))
            if result.rowcount == 0:
                raise UnknownMemory(f"There is no memory {memory_id}.")

    def _mine(self, tenant: Tenant, memory_id: int | None = None) -> list[Any]:
        conditions = [
            memory_logs.c.user_id == tenant.user_id,
            memory_logs.c.project_id == tenant.project_id,
            memory_logs.c.kind == self._kind,
        ]
        return conditions if memory_id is None else [memory_logs.c.id == memory_id, *conditions]


def _found(row: Row[Any] | None, memory_id: int) -> Record:
    if row is None:
        raise UnknownMemory(f"There is no memory {memory_id}.")
    return _record(row)


def _record(row: Row[Any]) -> Record:
    return Record(
        id=row.id,
        tenant=Tenant(row.user_id, row.project_id),
        kind=row.kind,
        document_id=row.document_id,
        raw_data=row.raw_data,
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
