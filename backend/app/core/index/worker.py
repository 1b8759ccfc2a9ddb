"""The index worker: batch after batch while there is something, then asleep until PostgreSQL says that there is."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.index.batch import Outcome
from app.core.index.indexer import Indexer, Unexpected, delay_after
from app.core.index.progress import Progress
from app.core.index.tombstones import Tombstones
from app.core.index.wakeup import Wakeup

log = logging.getLogger(__name__)

# A wait for others, and how often it is told again while it lasts.
MAX_REST_SECONDS = 5.0
REMIND_SECONDS = 60.0
# Events that come together are written together, and workers do not all look at the same moment.
GATHER_SECONDS = 0.02
# How long a batch waits for its turn, should the one before it take longer.
PATIENCE_SECONDS = 1.0
# Where nothing of a batch could be written, so that the next is not tried at once.
BREATH_SECONDS = 0.5
# How long the end may take to tell others which records a lost connection left in doubt.
LAST_WORD_SECONDS = 20.0


class Worker:
    """Runs `concurrency` batches at once until stopped; a batch that was begun is finished.

    It begins when `ready` is set. `observe` is told of each batch, with the seconds that it took.
    """

    def __init__(
        self,
        indexer: Indexer,
        wakeup: Wakeup,
        progress: Progress,
        tombstones: Tombstones,
        concurrency: int,
        poll_seconds: float,
        ready: asyncio.Event | None = None,
        observe: Callable[[Outcome, float], None] = lambda outcome, seconds: None,
    ) -> None:
        self._indexer = indexer
        self._wakeup = wakeup
        self._progress = progress
        self._tombstones = tombstones
        self._concurrency = concurrency
        self._poll = poll_seconds
        self._ready = ready
        self._observe = observe
        self._trouble = _Trouble()
        # A write of a few records costs Chroma nearly as much as one of fifty (docs/decisions.md), so while there is no
        # backlog there is one batch at a time: what comes meanwhile goes into the next.
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Index until `stop` is called."""
        while self._ready is not None and not self._ready.is_set() and not self._wakeup.ended:
            await self._wakeup.rest(BREATH_SECONDS)
        beside = [
            asyncio.create_task(self._wakeup.listen()),
            asyncio.create_task(self._progress.report()),
            asyncio.create_task(self._tombstones.prune()),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._loop())
            await self._last_word()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def stop(self) -> None:
        """Finish the batches in hand and return from `run`."""
        self._wakeup.end()

    async def _loop(self) -> None:
        failures = 0
        backlog = False
        while True:
            limit = self._indexer.limit
            try:
                async with self._in_turn(backlog):
                    if self._wakeup.ended:
                        return
                    started = time.perf_counter()
                    with self._progress.batch():
                        outcome = await self._indexer.step()
            except ServiceError as error:
                self._trouble.came(error)
                if isinstance(error, Unexpected) and self._indexer.limit > 1:
                    continue  # at once: fewer records bring nearer which of them it is
                await self._wakeup.rest(min(delay_after(failures), MAX_REST_SECONDS))
                failures += 1
                continue
            failures = 0
            backlog = outcome.taken >= limit
            self._trouble.went(outcome)
            self._progress.did(outcome)
            if outcome.taken:
                self._observe(outcome, time.perf_counter() - started)
            if outcome.taken == 0:
                await self._wakeup.sleep(self._poll)
                await self._wakeup.rest(random.uniform(0, GATHER_SECONDS))  # noqa: S311 (no secret)
            elif outcome.held == outcome.taken:
                await self._wakeup.rest(BREATH_SECONDS)
            elif backlog:
                self._wakeup.wake()  # there is work for two

    @asynccontextmanager
    async def _in_turn(self, backlog: bool) -> AsyncIterator[None]:
        """Where no backlog is, one after the other; but nobody waits long for somebody else's slow batch."""
        held = False
        if not backlog:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    held = await self._turn.acquire()
        try:
            yield
        finally:
            if held:
                self._turn.release()

    async def _last_word(self) -> None:
        """Have records in doubt indexed again by others."""
        until = time.monotonic() + LAST_WORD_SECONDS
        while self._indexer.owes:
            try:
                await self._indexer.make_up()
            except ServiceError as error:
                if time.monotonic() > until:
                    log.error(
                        "%d records may be out of date in the index: %s Run, when it is back: app replay --since …",
                        self._indexer.owes,
                        error,
                    )
                    return
                await asyncio.sleep(BREATH_SECONDS)


class _Trouble:
    """Says once that indexing waits, now and then that it still does, and that it goes on."""

    def __init__(self) -> None:
        self._error: ServiceError | None = None
        self._since = 0.0
        self._told = 0.0

    def came(self, error: ServiceError) -> None:
        now = time.monotonic()
        if self._error is None:
            self._since = now
            log.warning("indexing waits: %s", error)
        elif now - self._told >= REMIND_SECONDS:
            log.warning("indexing has waited for %.0f s: %s", now - self._since, error)
        else:
            return
        self._error, self._told = error, now

    def went(self, outcome: Outcome) -> None:
        if self._error is None:
            return
        # an empty batch shows that PostgreSQL is there, and nothing else
        if outcome.taken > outcome.held or isinstance(self._error, DatabaseUnavailable):
            log.info("indexing goes on after %.1f s", time.monotonic() - self._since)
            self._error = None
