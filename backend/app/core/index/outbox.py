"""The outbox: which records the index does not know yet, taken in batches that no two workers share.

A record is in one worker's hands at a time: whoever takes it locks every event of it that there is, or leaves it. What
is taken is not the events' content, for they have none, but the record as it is now: applying it twice, or late, ends
in the same state. The locks are row locks, so PostgreSQL lets go of them when a worker or its host dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from numpy import float32
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.index import gate
from app.core.index.vectors import from_bytes
from app.core.memory.tenant import Kind, Tenant

CHANNEL = "outbox"

# For this transaction. The planner cannot know how many events are their record's oldest; where it guesses few, it
# would read and sort them all to find a batch.
_BY_INDEX = text("""
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
           set_config('enable_sort', 'off', true)
""")
# In the order of their turn, from an index: what waits for later is not even looked at. Of a record only its oldest
# event that is due, so that the limit counts records. OFFSET has each event looked up by its record, and the sum keeps
# the index of times out of that: with statistics from when nothing was due it would look best, and read everything.
_TAKE = f"""
    SELECT o.memory_id
    FROM outbox o
    WHERE o.next_attempt_at <= now()
      AND {gate.passes("o")}
      AND NOT EXISTS (
          SELECT FROM outbox e
          WHERE e.memory_id = o.memory_id AND e.id < o.id AND e.next_attempt_at + interval '0' <= now() OFFSET 0
      )
    ORDER BY o.next_attempt_at, o.id
    LIMIT {{limit:d}}
    FOR UPDATE OF o SKIP LOCKED
"""  # noqa: S608 (our own text)
# One statement, so that records and events are of one moment. Record by record, so that no statistics of a table that
# is now empty and now full can talk the planner into reading it all. What is left out: records of which somebody else
# holds an event, as where an event with a smaller number was committed later than one that is in hand. What is locked
# but not among the events: those that have been put off to come after these. It is left out too where the gate of any
# place that it has to do with is closed: its first event has passed only its own.
_READ = text(f"""
    SELECT head.memory_id, e.events, e.attempts, e.since, e.operation, e.places, d.places AS given_up,
           m.user_id, m.project_id, m.kind, m.raw_data, m.revision, m.created_at, m.embedding
    FROM unnest(CAST(:memory_ids AS bigint[])) WITH ORDINALITY AS head (memory_id, turn)
    CROSS JOIN LATERAL (
        SELECT count(*) AS locked,
               array_agg(x.id) FILTER (WHERE x.attempts > 0 OR x.next_attempt_at <= now()) AS events,
               max(x.attempts) AS attempts, min(x.created_at) AS since,
               (array_agg(x.operation ORDER BY x.id DESC))[1] AS operation,
               jsonb_agg(DISTINCT jsonb_build_array(x.user_id, x.project_id, x.kind)) AS places,
               bool_and({gate.passes("x")}) AS passed
        FROM (SELECT * FROM outbox o WHERE o.memory_id = head.memory_id FOR UPDATE SKIP LOCKED) x
    ) e
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_array(d.user_id, d.project_id, d.kind)) AS places,
               coalesce(bool_and({gate.passes("d")}), true) AS passed
        FROM dead_letters d WHERE d.memory_id = head.memory_id
    ) d
    LEFT JOIN LATERAL (
        SELECT m.user_id, m.project_id, m.kind, m.raw_data, m.revision, m.created_at,
               CASE WHEN m.embedding_model = :model THEN vector_send(m.embedding) END AS embedding
        FROM memory_logs m WHERE m.id = head.memory_id OFFSET 0
    ) m ON true
    WHERE e.locked = (SELECT count(*) FROM outbox o WHERE o.memory_id = head.memory_id) AND e.events IS NOT NULL
      AND e.passed AND d.passed AND (m.kind IS NULL OR {gate.passes("m")})
    ORDER BY head.turn
""")  # noqa: S608 (our own text)
# What was given up before is right now too.
_DONE = text("""
    WITH letters AS (DELETE FROM dead_letters WHERE memory_id = ANY(:memory_ids))
    DELETE FROM outbox WHERE id = ANY(:events)
""")
_LATER = text("""
    UPDATE outbox
    SET attempts = :attempts, last_error = :error, next_attempt_at = now() + make_interval(secs => :seconds)
    WHERE id = ANY(:events)
""")
_BURY = text("""
    INSERT INTO dead_letters (memory_id, user_id, project_id, kind, operation, attempts, last_error, created_at)
    SELECT :memory_id, p.user_id, p.project_id, p.kind, :operation, :attempts, :error, :since
    FROM unnest(CAST(:users AS text[]), CAST(:projects AS text[]), CAST(:kinds AS text[]))
         AS p (user_id, project_id, kind)
    ON CONFLICT (memory_id, user_id, project_id, kind) DO UPDATE
    SET operation = excluded.operation, attempts = excluded.attempts, last_error = excluded.last_error,
        created_at = excluded.created_at, failed_at = now()
""")
_REPLAY = text("""
    INSERT INTO outbox (memory_id, user_id, project_id, kind, operation, next_attempt_at)
    SELECT r.*, 'replay', now() + make_interval(secs => :seconds)
    FROM unnest(CAST(:ids AS bigint[]), CAST(:users AS text[]), CAST(:projects AS text[]), CAST(:kinds AS text[])) AS r
""")
_FORGET_REPLAYS = text("""
    DELETE FROM outbox
    WHERE memory_id = ANY(:memory_ids) AND operation = 'replay' AND attempts = 0
      AND next_attempt_at + interval '0' > now()
""")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where in the index a record belongs, or belonged."""

    tenant: Tenant
    kind: Kind

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self.tenant.collection(self.kind)


@dataclass(frozen=True, slots=True)
class Present:
    """A record that there is. `embedding` (float32[dim]) is None where it has none of the model in use."""

    place: Place
    raw_data: Mapping[str, Any]
    revision: int
    created_at: datetime
    embedding: NDArray[float32] | None


@dataclass(frozen=True, slots=True)
class Task:
    """One record to be indexed: as it is now, or gone (`present` is None)."""

    memory_id: int
    events: Sequence[int]
    attempts: int
    since: datetime
    operation: str
    places: Sequence[Place]
    present: Present | None = None

    @property
    def former(self) -> list[Place]:
        """Where it must not be: an id may have been used anew, for another tenant."""
        return [place for place in self.places if self.present is None or place != self.present.place]


async def take(connection: AsyncConnection, limit: int, model: str) -> list[Task]:
    """Lock and return at most `limit` records, those that wait longest first; embeddings only where of this model."""
    await connection.execute(_BY_INDEX)
    heads = (await connection.execute(text(_TAKE.format(limit=limit)))).scalars().all()
    if not heads:
        return []
    rows = await connection.execute(_READ, {"memory_ids": heads, "model": model})
    return [_task(row) for row in rows]


async def done(connection: AsyncConnection, tasks: Sequence[Task]) -> None:
    """The index holds them; their events go."""
    if tasks:
        ids = [task.memory_id for task in tasks]
        await connection.execute(_DONE, {"memory_ids": ids, "events": _events(tasks)})


async def try_later(connection: AsyncConnection, task: Task, error: str, seconds: float) -> None:
    """Have a record that was refused wait for so many seconds, or for its next change."""
    values = {"events": list(task.events), "attempts": task.attempts + 1, "error": error, "seconds": seconds}
    await connection.execute(_LATER, values)


async def hold(connection: AsyncConnection, tasks: Sequence[Task], error: str, seconds: float) -> None:
    """Have records that are not to blame wait for so many seconds."""
    for attempts in {task.attempts for task in tasks}:
        events = _events(task for task in tasks if task.attempts == attempts)
        values = {"events": events, "attempts": attempts, "error": error, "seconds": seconds}
        await connection.execute(_LATER, values)


async def bury(connection: AsyncConnection, task: Task, error: str) -> None:
    """Give the record up: its events become dead letters, one for each place that it has to do with."""
    values = {
        "memory_id": task.memory_id,
        "operation": task.operation,
        "attempts": task.attempts + 1,
        "error": error,
        "since": task.since,
        "users": [place.tenant.user_id for place in task.places],
        "projects": [place.tenant.project_id for place in task.places],
        "kinds": [place.kind for place in task.places],
    }
    await connection.execute(_BURY, values)
    await connection.execute(text("DELETE FROM outbox WHERE id = ANY(:events)"), {"events": list(task.events)})


async def replay(connection: AsyncConnection, places: Iterable[tuple[int, Place]], seconds: float = 0.0) -> int:
    """A new event for each of these records (their ids, and where they belong), due in so many seconds; how many."""
    wanted = list(places)
    values = {
        "ids": [memory_id for memory_id, _ in wanted],
        "users": [place.tenant.user_id for _, place in wanted],
        "projects": [place.tenant.project_id for _, place in wanted],
        "kinds": [place.kind for _, place in wanted],
        "seconds": seconds,
    }
    await connection.execute(_REPLAY, values)
    await notify(connection)
    return len(wanted)


async def replay_after(connection: AsyncConnection, tasks: Sequence[Task], seconds: float) -> None:
    """Have records that are in hand indexed once more, so many seconds from now, however soon they are done before.

    For those of which an earlier write may still be under way. It comes in place of such a replay that waits already.
    """
    if tasks:
        await connection.execute(_FORGET_REPLAYS, {"memory_ids": [task.memory_id for task in tasks]})
        await replay(connection, [(task.memory_id, place) for task in tasks for place in task.places], seconds)


async def notify(connection: AsyncConnection) -> None:
    """Wake the workers when this transaction is committed."""
    await connection.execute(text(f"NOTIFY {CHANNEL}"))


async def waiting(connection: AsyncConnection) -> int:
    """How many events there are."""
    return int((await connection.execute(text("SELECT count(*) FROM outbox"))).scalar_one())


def _events(tasks: Iterable[Task]) -> list[int]:
    return [event for task in tasks for event in task.events]


def _task(row: Any) -> Task:
    present = None
    if row.raw_data is not None:
        place = Place(Tenant(row.user_id, row.project_id), row.kind)
        present = Present(place, row.raw_data, row.revision, row.created_at, from_bytes(row.embedding))
    named = {Place(Tenant(user, project), kind) for user, project, kind in [*row.places, *(row.given_up or ())]}
    if present is not None:
        named.add(present.place)
    return Task(
        memory_id=row.memory_id,
        events=row.events,
        attempts=row.attempts,
        since=row.since,
        operation=row.operation,
        places=sorted(named),
        present=present,
    )
