"""Documents: what a tenant's passages were cut from. A document is its passages; it has no row of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.sql.selectable import FromClause

from app.core.database.database import Database
from app.core.database.schema import memory_logs
from app.core.errors import UnknownDocument
from app.core.memory.record import SOURCE, of_caller
from app.core.memory.tenant import Tenant

_HEAD = memory_logs.alias("head")
_OTHER = memory_logs.alias("other")


@dataclass(frozen=True, slots=True)
class Summary:
    """A document. `position` orders documents: the later it was added, the greater."""

    id: UUID
    source: str
    metadata: Mapping[str, Any]
    passages: int
    created_at: datetime
    position: int


class Documents:
    """List, read and remove the documents of a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, tenant: Tenant, limit: int, before: int | None = None) -> list[Summary]:
        """At most `limit` documents, newest first, older than the position `before`."""
        of_document = [*_of(tenant, _OTHER), _OTHER.c.document_id == _HEAD.c.document_id]
        passages = select(func.count()).select_from(_OTHER).where(*of_document).scalar_subquery()
        query = (
            select(_HEAD.c.id, _HEAD.c.document_id, _HEAD.c.raw_data, _HEAD.c.created_at, passages.label("passages"))
            .where(*_of(tenant, _HEAD), ~exists().where(*of_document, _OTHER.c.id < _HEAD.c.id))
            .order_by(_HEAD.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(_HEAD.c.id < before)
        async with self._database.begin() as connection:
            return [
                _summary(row.document_id, row.raw_data, row.passages, row.created_at, row.id)
                for row in await connection.execute(query)
            ]

    async def get(self, tenant: Tenant, document_id: UUID) -> tuple[Summary, list[str]]:
        """The document and the text of each of its passages, in order; UnknownDocument when the tenant has none."""
        query = (
            select(memory_logs.c.id, memory_logs.c.raw_data, memory_logs.c.created_at)
            .where(*_of(tenant, memory_logs), memory_logs.c.document_id == document_id)
            .order_by(memory_logs.c.id)
        )
        async with self._database.begin() as connection:
            rows = (await connection.execute(query)).all()
        if not rows:
            raise _unknown(document_id)
        head = rows[0]
        texts = [str(row.raw_data.get("content", "")) for row in rows]
        return _summary(document_id, head.raw_data, len(rows), head.created_at, head.id), texts

    async def remove(self, tenant: Tenant, document_id: UUID) -> None:
        """Delete every passage of the document; UnknownDocument when there is none."""
        mine = [*_of(tenant, memory_logs), memory_logs.c.document_id == document_id]
        async with self._database.begin() as connection:
            result = await connection.execute(delete(memory_logs).where(*mine))
            if result.rowcount == 0:
                raise _unknown(document_id)


def _of(tenant: Tenant, table: FromClause) -> Sequence[ColumnElement[bool]]:
    return [
        table.c.user_id == tenant.user_id,
        table.c.project_id == tenant.project_id,
        table.c.kind == "passage",
    ]


def _summary(
    document_id: UUID, raw_data: Mapping[str, Any], passages: int, created_at: datetime, position: int
) -> Summary:
    source = (raw_data.get("metadata") or {}).get(SOURCE, "")
    return Summary(document_id, str(source), of_caller(raw_data, "passage"), passages, created_at, position)


def _unknown(document_id: UUID) -> UnknownDocument:
    return UnknownDocument(f"There is no document {document_id}.")
