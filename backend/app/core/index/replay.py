"""Replay: whatever was changed or deleted since a moment is brought to the index once more.

For an older index that is live again, after a rollback or from a backup: it does not know what came after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import TextClause, text

from app.core.database.database import Database
from app.core.errors import InvalidMoment
from app.core.index.outbox import notify

# A row has the time of when it was written, and is seen when its transaction is committed.
MARGIN = timedelta(seconds=60)
AT_ONCE = 5000

_DURATION = re.compile(r"(?P<number>\d{1,6})\s*(?P<unit>[smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORMS = "Give a time with its zone, as 2026-11-20T10:15:00+01:00 or 2026-11-20T09:15Z, or how long ago: 90m, 2h, 3d."


def _statement(table: str, id_: str, moment: str) -> TextClause:
    return text(f"""
        WITH page AS (
            SELECT {id_} AS id, user_id, project_id, kind FROM {table}
            WHERE {moment} >= :since AND {id_} > :after
              AND (CAST(:user AS text) IS NULL OR user_id = :user)
              AND (CAST(:project AS text) IS NULL OR project_id = :project)
            ORDER BY {id_} LIMIT {AT_ONCE}
        ), events AS (
            INSERT INTO outbox (memory_id, user_id, project_id, kind, operation)
            SELECT id, user_id, project_id, kind, 'replay' FROM page
        )
        SELECT count(*) AS number, max(id) AS last FROM page
    """)  # noqa: S608 (our own names)


_MEMORIES = _statement("memory_logs", "id", "updated_at")
_TOMBSTONES = _statement("tombstones", "memory_id", "deleted_at")


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many records were given a new event, and since when they were looked at."""

    memories: int
    deletions: int
    since: datetime
    # Whether deletions of that time may have been forgotten (INDEX_TOMBSTONE_DAYS).
    deletions_forgotten: bool


class Replay:
    """Gives records a new event. The index workers do the rest."""

    def __init__(self, database: Database, tombstone_days: int) -> None:
        self._database = database
        self._kept = timedelta(days=tombstone_days)

    async def since(self, moment: str, user: str | None = None, project: str | None = None) -> Replayed:
        """For every memory changed since then, and every one deleted. Raises InvalidMoment.

        PostgreSQL's clock counts, and one minute more is taken, for what was under way. In pages, each of them its own
        transaction: an interrupted replay has done no harm, and is repeated.
        """
        async with self._database.begin() as connection:
            now: datetime = (await connection.execute(text("SELECT now()"))).scalar_one()
        since = parse_moment(moment, now) - MARGIN
        memories = await self._all(_MEMORIES, since, user, project)
        deletions = await self._all(_TOMBSTONES, since, user, project)
        return Replayed(memories, deletions, since, deletions_forgotten=since < now - self._kept)

    async def _all(self, statement: TextClause, since: datetime, user: str | None, project: str | None) -> int:
        total, after = 0, -(2**63)
        while True:
            values = {"since": since, "after": after, "user": user, "project": project}
            async with self._database.begin() as connection:
                page = (await connection.execute(statement, values)).one()
                await notify(connection)
            total += int(page.number)
            if page.number < AT_ONCE:
                return total
            after = page.last


def parse_moment(given: str, now: datetime) -> datetime:
    """The time that was meant: ISO 8601 with a zone, or a duration before now. Raises InvalidMoment."""
    if match := _DURATION.fullmatch(given.strip()):
        ago = timedelta(**{_UNITS[match["unit"]]: int(match["number"])})
        try:
            return now - ago
        except OverflowError:
            raise InvalidMoment(f"{given} ago is before all time.", hint=_FORMS) from None
    try:
        moment = datetime.fromisoformat(given.strip())
    except ValueError:
        raise InvalidMoment(f"{given!r} is neither a time nor a duration.", hint=_FORMS) from None
    if moment.tzinfo is None:
        raise InvalidMoment(f"{given!r} does not say its time zone.", hint=_FORMS)
    if moment > now:
        raise InvalidMoment(f"{given!r} is yet to come: PostgreSQL has {now.isoformat(timespec='seconds')}.")
    return moment
