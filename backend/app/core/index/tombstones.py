"""Tombstones: what was deleted is remembered for as long as an older index may come back, then forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.core.database.database import Database
from app.core.errors import ServiceError

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
AT_ONCE = 5000

_PRUNE = text("""
    DELETE FROM tombstones WHERE memory_id IN (
        SELECT memory_id FROM tombstones
        WHERE deleted_at < now() - make_interval(days => :days)
        LIMIT :at_once FOR UPDATE SKIP LOCKED
    )
""")


class Tombstones:
    """Those older than `days` are forgotten, every hour."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days

    async def prune(self) -> None:
        """Forget what is old, now and every hour, until cancelled."""
        while True:
            with contextlib.suppress(ServiceError, SQLAlchemyError):  # next time
                if count := await self.prune_once():
                    log.info("%d tombstones older than %d days are forgotten", count, self._days)
            await asyncio.sleep(EVERY_SECONDS)

    async def prune_once(self) -> int:
        """Forget what is old; how many."""
        total = 0
        while True:
            async with self._database.begin() as connection:
                pruned = (await connection.execute(_PRUNE, {"days": self._days, "at_once": AT_ONCE})).rowcount
            total += pruned
            if pruned < AT_ONCE:
                return total
