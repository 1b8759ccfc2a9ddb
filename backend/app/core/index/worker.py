"""The index worker: batch after batch while there is something, then asleep until PostgreSQL says that there is."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import psycopg
from sqlalchemy import URL

from app.core.database.database import CONNECT_SECONDS
from app.core.errors import ServiceError
from app.core.index.indexer import Indexer, delay_after
from app.core.index.outbox import CHANNEL

log = logging.getLogger(__name__)


class Wakeup:
    """Set whenever PostgreSQL notifies of new events. While it cannot listen, the poll alone wakes the worker."""

    def __init__(self, url: URL) -> None:
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._event = asyncio.Event()

    async def listen(self) -> None:
        """Listen until cancelled, connecting again when the connection is lost."""
        failures = 0
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._dsn, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="chroma-stack listen"
                )
                async with connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    failures = 0
                    self._event.set()  # what came while nobody listened
                    async for _ in connection.notifies():
                        self._event.set()
            except (psycopg.Error, OSError) as error:
                log.debug("not listening: %s", error)
            await asyncio.sleep(min(delay_after(failures), 5.0))
            failures += 1

    async def wait(self, seconds: float) -> None:
        """Return when woken, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()

    def wake(self) -> None:
        """End a wait."""
        self._event.set()


class Worker:
    """Runs `concurrency` batches at once until stopped; a batch that was begun is finished."""

    def __init__(self, indexer: Indexer, wakeup: Wakeup, concurrency: int, poll_seconds: float) -> None:
        self._indexer = indexer
        self._wakeup = wakeup
        self._concurrency = concurrency
        self._poll = poll_seconds
        self._stopping = False

    async def run(self) -> None:
        """Index until `stop` is called."""
        listening = asyncio.create_task(self._wakeup.listen())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._loop())
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    def stop(self) -> None:
        """Finish the batches in hand and return from `run`."""
        self._stopping = True
        self._wakeup.wake()

    async def _loop(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                outcome = await self._indexer.step()
            except ServiceError as error:
                seconds = min(delay_after(failures), 5.0)
                log.warning("indexing waits %.1f s: %s", seconds, error)
                failures += 1
                await self._rest(seconds)
                continue
            if failures:
                log.info("indexing goes on")
            failures = 0
            if outcome.taken == 0:
                await self._wakeup.wait(self._poll)

    async def _rest(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while not self._stopping and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 0.2))
