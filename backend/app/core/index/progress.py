"""What a worker says of itself: where it begins, how fast a backlog shrinks, when there is none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from app.core.database.database import Database
from app.core.errors import ServiceError
from app.core.index import outbox
from app.core.index.batch import Outcome

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
# Fewer events than this come and go all the time.
BACKLOG = 1000


class Progress:
    """Counts what is done, and says it while there is a backlog. One of these serves one worker."""

    def __init__(self, database: Database, every_seconds: float = EVERY_SECONDS) -> None:
        self._database = database
        self._every = every_seconds
        self._done = 0
        self._told = 0
        self._in_hand = 0
        # Since when there has been a backlog, and what was done by then. One may wait at the start.
        self._began: tuple[float, int] | None = (time.monotonic(), 0)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """A batch is in hand."""
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1

    def did(self, outcome: Outcome) -> None:
        """A batch is finished. An empty one means that nothing is due."""
        self._done += outcome.finished
        if outcome.taken == 0 and self._in_hand == 0 and self._began is not None:
            seconds, records = time.monotonic() - self._began[0], self._done - self._began[1]
            self._began = None
            log.info("no event is due; this worker did %d records in %.1f s", records, seconds)

    async def report(self) -> None:
        """Look at the outbox every few seconds, until cancelled."""
        while True:
            before, self._told = self._told, self._done
            with contextlib.suppress(ServiceError, SQLAlchemyError):
                async with self._database.begin() as connection:
                    waiting = await outbox.waiting(connection)
                if waiting >= BACKLOG:
                    self._began = self._began or (time.monotonic(), self._done)
                    rate = (self._told - before) / self._every
                    log.info("%d events wait; %.0f records a second by this worker", waiting, rate)
            await asyncio.sleep(self._every)
