"""The outbox: which records the index does not know yet, taken in batches that no two workers share.

Only a record's oldest event can be taken, and it stays locked until the transaction ends. So one record is in one
worker's hands at a time, whatever happens to it meanwhile. What is taken is not the event's own content but the
record as it is now, together with every event of it up to now: applying it twice, or late, ends in the same state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.index import gate
from app.core.memory.tenant import Kind, Tenant

CHANNEL = "outbox"

_TAKE = text(f"""
    SELECT o.id, o.memory_id
    FROM outbox o
    WHERE o.next_attempt_at <= now()
      AND {gate.passes("o")}
      AND NOT EXISTS (SELECT FROM outbox earlier WHERE earlier.memory_id = o.memory_id AND earlier.id < o.id)
    ORDER BY o.id
    LIMIT :limit
    FOR UPDATE OF o SKIP LOCKED
""")  # noqa: S608 (our own text)
# One statement, so that records and events are of one moment.
_READ = text("""
    SELECT e.memory_id, e.user_id, e.project_id, e.kind, e.events, e.attempts, e.fresh, e.since, e.operation,
           m.raw_data, m.revision, m.created_at,
           CASE WHEN m.embedding_model = :model THEN m.embedding::real[] END AS embedding
    FROM (
        SELECT memory_id, min(user_id) AS user_id, min(project_id) AS project_id, min(kind) AS kind,
               array_agg(id) AS events, max(attempts) AS attempts, min(created_at) AS since,
               (array_agg(operation ORDER BY id DESC))[1] AS operation,
               count(*) FILTER (WHERE operation <> 'upsert' OR attempts > 0) = 0 AS fresh
        FROM outbox WHERE memory_id = ANY(:memory_ids) GROUP BY memory_id
    ) e
    LEFT JOIN memory_logs m ON m.id = e.memory_id
    ORDER BY e.events[1]
""")
_DONE = text("DELETE FROM outbox WHERE id = ANY(:events)")
_LATER = text("""
    UPDATE outbox SET attempts = attempts + 1, last_error = :error,
           next_attempt_at = now() + make_interval(secs => :seconds)
    WHERE id = ANY(:events)
""")
_BURY = text("""
    INSERT INTO dead_letters (memory_id, user_id, project_id, kind, operation, attempts, last_error, created_at)
    VALUES (:memory_id, :user_id, :project_id, :kind, :operation, :attempts, :error, :since)
""")
_REPLAY = text("""
    INSERT INTO outbox (memory_id, user_id, project_id, kind, operation)
    SELECT *, 'replay' FROM unnest(CAST(:ids AS bigint[]), CAST(:users AS text[]), CAST(:projects AS text[]),
                                   CAST(:kinds AS text[]))
""")
_KEEP_EMBEDDINGS = text("""
    UPDATE memory_logs m SET embedding = v.embedding::vector, embedding_model = :model
    FROM unnest(CAST(:ids AS bigint[]), CAST(:revisions AS bigint[]), CAST(:embeddings AS text[]))
         AS v (id, revision, embedding)
    WHERE m.id = v.id AND m.revision = v.revision
""")


@dataclass(frozen=True, slots=True)
class Task:
    """One record to be indexed: as it is now, or gone (`raw_data` is None)."""

    memory_id: int
    tenant: Tenant
    kind: Kind
    operation: str
    events: Sequence[int]
    attempts: int
    since: datetime
    raw_data: Mapping[str, Any] | None = None
    revision: int = 0
    created_at: datetime | None = None
    embedding: NDArray[float32] | None = None
    # Whether the index can hold an earlier version of it, whose metadata has to go.
    may_be_there: bool = True


async def take(connection: AsyncConnection, limit: int, model: str) -> list[Task]:
    """Lock and return at most `limit` records, those that wait longest first; embeddings only where of this model."""
    heads = (await connection.execute(_TAKE, {"limit": limit})).all()
    if not heads:
        return []
    rows = await connection.execute(_READ, {"memory_ids": [head.memory_id for head in heads], "model": model})
    return [
        Task(
            memory_id=row.memory_id,
            tenant=Tenant(row.user_id, row.project_id),
            kind=row.kind,
            operation=row.operation,
            events=row.events,
            attempts=row.attempts,
            since=row.since,
            raw_data=row.raw_data,
            revision=row.revision or 0,
            created_at=row.created_at,
            embedding=None if row.embedding is None else np.asarray(row.embedding, dtype=float32),
            may_be_there=row.revision != 1 or not row.fresh,
        )
        for row in rows
    ]


async def keep_embeddings(
    connection: AsyncConnection, tasks: Sequence[Task], vectors: Sequence[NDArray[float32]], model: str
) -> None:
    """Store what was computed, a float32[dim] each, where the record is still what it was computed from."""
    if tasks:
        values = {
            "ids": [task.memory_id for task in tasks],
            "revisions": [task.revision for task in tasks],
            "embeddings": [str(vector.tolist()) for vector in vectors],
            "model": model,
        }
        await connection.execute(_KEEP_EMBEDDINGS, values)


async def replay(connection: AsyncConnection, tasks: Sequence[Task]) -> None:
    """A new event for each of these records, whatever they are now."""
    values = {
        "ids": [task.memory_id for task in tasks],
        "users": [task.tenant.user_id for task in tasks],
        "projects": [task.tenant.project_id for task in tasks],
        "kinds": [task.kind for task in tasks],
    }
    await connection.execute(_REPLAY, values)
    await connection.execute(text(f"NOTIFY {CHANNEL}"))


async def done(connection: AsyncConnection, tasks: Sequence[Task]) -> None:
    """The index holds them; their events go."""
    await connection.execute(_DONE, {"events": [event for task in tasks for event in task.events]})


async def try_later(connection: AsyncConnection, task: Task, error: str, seconds: float) -> None:
    """Have the record wait for so many seconds."""
    await connection.execute(_LATER, {"events": list(task.events), "error": error, "seconds": seconds})


async def bury(connection: AsyncConnection, task: Task, error: str) -> None:
    """Give the record up: its events become one dead letter."""
    values = {
        "memory_id": task.memory_id,
        "user_id": task.tenant.user_id,
        "project_id": task.tenant.project_id,
        "kind": task.kind,
        "operation": task.operation,
        "attempts": task.attempts + 1,
        "error": error,
        "since": task.since,
    }
    await connection.execute(_BURY, values)
    await done(connection, [task])
