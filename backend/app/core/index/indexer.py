"""One batch: taken from the outbox, embedded, written to the index, and struck off, in one transaction."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from numpy import float32
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.chroma.writer import IndexWriter
from app.core.database.database import Database
from app.core.embedding.provider import EmbeddingProvider
from app.core.errors import (
    ChromaFailed,
    ChromaUncertain,
    CollectionUnwritable,
    DatabaseUnavailable,
    EmbeddingUnavailable,
    RecordsRefused,
    ServiceError,
    TextRefused,
)
from app.core.index import outbox, vectors
from app.core.index.batch import Batch, Form, Outcome, by_place, entries_of, form_of
from app.core.index.outbox import Place, Task
from app.core.memory.record import index_id
from app.core.memory.tenant import Kind

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 300.0
# For records of a collection that cannot be written, and for those whose row somebody has locked.
HOLD_SECONDS = 10.0
# A server that has answered since would not take longer over what it was sent before.
SETTLE_SECONDS = 30.0

Work = Callable[[Sequence[Task]], Awaitable[None]]
Check = Callable[[], Awaitable[None]]


class Unexpected(ServiceError):
    """The index worker made a mistake, or met something that it does not know."""


class Indexer:
    """Has the index follow PostgreSQL. `stores` are the index's two halves: of memories and of passages.

    Any number of these may work at once, in one process or many. Two connections of the database are used at a time.
    """

    def __init__(
        self,
        database: Database,
        stores: Mapping[Kind, IndexWriter],
        embedder: EmbeddingProvider,
        batch_size: int,
        max_attempts: int,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.limit = batch_size
        self._database = database
        self._stores = stores
        self._embedder = embedder
        self._batch_size = batch_size
        self._max_attempts = max_attempts
        self._settle_seconds = settle_seconds
        self._stale: dict[int, Task] = {}

    async def step(self) -> Outcome:
        """Index one batch. What a record is to blame for is counted against it alone.

        Raises DatabaseUnavailable, ChromaUnavailable, EmbeddingUnavailable, after what was done before is struck off;
        Unexpected. Then smaller batches are tried, in case it was the size, or one of the records.
        """
        tasks: list[Task] = []
        try:
            await self.make_up()
            outcome = await self._batch(tasks)
        except ServiceError:
            self.limit = max(1, self.limit // 2)
            raise
        except Exception as error:
            await self._set_aside(tasks, error)
            self.limit = max(1, min(self.limit, len(tasks)) // 2)
            raise Unexpected(f"Unexpected {_what(error)}.") from error
        self.limit = min(self._batch_size, 2 * self.limit)
        return outcome

    async def make_up(self) -> None:
        """Give records that were in hand when their lock was lost a new event. Raises DatabaseUnavailable.

        Another worker may have written a later state meanwhile, and our write may have come after it.
        """
        if not self._stale:
            return
        stale = list(self._stale.values())
        async with self._database.begin() as connection:
            await outbox.replay(connection, [(task.memory_id, place) for task in stale for place in task.places])
        for task in stale:
            self._stale.pop(task.memory_id, None)

    @property
    def owes(self) -> int:
        """How many records `make_up` has to do with."""
        return len(self._stale)

    async def _batch(self, tasks: list[Task]) -> Outcome:
        trouble: ServiceError | None = None
        try:
            # not bounded as a whole: cancelled, a write to Chroma would go on in its thread without the lock
            async with self._database.begin(bounded=False) as connection:
                async with self._database.deadline():
                    tasks += await outbox.take(connection, self.limit, self._embedder.model)
                batch = Batch(tasks)
                try:
                    trouble = await self._index(batch)
                except ServiceError as error:
                    trouble = error
                async with self._database.deadline():
                    outcome = await self._strike_off(connection, batch)
        except DatabaseUnavailable:
            self._stale.update((task.memory_id, task) for task in tasks)
            raise
        if trouble is not None:
            raise trouble
        return outcome

    async def _index(self, batch: Batch) -> ServiceError | None:
        """Write what can be written. A provider that is away is told at the end: deletes do not wait for it."""
        forms = self._forms(batch)
        embeddings, trouble = await self._embeddings(batch, forms)
        gone = [(place, task) for task in batch.tasks for place in task.former]
        for place, group in by_place(gone):
            await self._apply(batch, group, partial(self._remove, place), partial(self._check, place))
        ready = [(task.present.place, task) for task in batch.tasks if task.present and task.memory_id in embeddings]
        for place, group in by_place(ready):
            await self._apply(batch, group, partial(self._put, place, forms, embeddings), partial(self._check, place))
        return trouble

    def _forms(self, batch: Batch) -> dict[int, Form]:
        forms = {}
        for task in batch.tasks:
            if task.present is not None:
                try:
                    forms[task.memory_id] = form_of(task)
                except (RecordsRefused, TextRefused) as error:
                    batch.refuse(task, str(error))
        return forms

    async def _embeddings(
        self, batch: Batch, forms: dict[int, Form]
    ) -> tuple[dict[int, NDArray[float32]], ServiceError | None]:
        """Those of the records that have one or were given one, which is stored at once: what Chroma does is open."""
        present = {task.memory_id: task for task in batch.tasks if task.memory_id in forms}
        known = {id_: task.present.embedding for id_, task in present.items() if task.present}
        made: dict[int, NDArray[float32]] = {}

        async def embed(tasks: Sequence[Task]) -> None:
            rows = await asyncio.to_thread(self._embedder.embed, [forms[task.memory_id].text for task in tasks])
            made.update(zip((task.memory_id for task in tasks), rows, strict=True))

        trouble = None
        try:
            await self._by_halves(batch, [task for id_, task in present.items() if known[id_] is None], embed)
        except EmbeddingUnavailable as error:
            trouble = error
        if made:
            revisions = {id_: task.present.revision for id_, task in present.items() if task.present}
            # a writer of these records must not wait for a worker that was stopped before it could commit
            async with self._database.autocommit() as connection:
                keyed = {(id_, revisions[id_]): vector for id_, vector in made.items()}
                locked = await vectors.keep(connection, keyed, self._embedder.model)
            batch.hold([present[id_] for id_ in locked], "Its embedding could not be stored: somebody has locked it.")
        return {**{id_: vector for id_, vector in known.items() if vector is not None}, **made}, trouble

    async def _apply(self, batch: Batch, tasks: Sequence[Task], work: Work, check: Check) -> None:
        """Do it for all at once; where some are refused, for those that are not to blame."""
        try:
            await self._by_halves(batch, tasks, work, check)
        except CollectionUnwritable as error:
            log.warning("%d records wait: %s", len(tasks), error)
            batch.hold(tasks, str(error))

    async def _by_halves(self, batch: Batch, tasks: Sequence[Task], work: Work, check: Check | None = None) -> None:
        if not tasks:
            return
        try:
            await work(tasks)
        except ChromaUncertain:
            batch.doubt(tasks)
            raise
        except (RecordsRefused, TextRefused, ChromaFailed) as error:
            if isinstance(error, ChromaFailed) and check is not None:
                await check()  # an error of a server that is ending, or full, is no record's fault
            if len(tasks) == 1:
                batch.refuse(tasks[0], str(error))
                return
            half = len(tasks) // 2
            await self._by_halves(batch, tasks[:half], work, check)
            await self._by_halves(batch, tasks[half:], work, check)
        else:
            if check is not None:
                batch.did(tasks)

    async def _put(
        self, place: Place, forms: dict[int, Form], embeddings: dict[int, NDArray[float32]], tasks: Sequence[Task]
    ) -> None:
        entries = entries_of(tasks, forms, embeddings)
        await asyncio.to_thread(self._stores[place.kind].put, place.collection, entries)

    async def _remove(self, place: Place, tasks: Sequence[Task]) -> None:
        ids = [index_id(task.memory_id) for task in tasks]
        await asyncio.to_thread(self._stores[place.kind].remove, place.collection, ids)

    async def _check(self, place: Place) -> None:
        await asyncio.to_thread(self._stores[place.kind].check_writable, place.collection)

    async def _strike_off(self, connection: AsyncConnection, batch: Batch) -> Outcome:
        outcome = Outcome()
        await outbox.replay_after(connection, batch.among(batch.unsure), self._settle_seconds)
        done = batch.done()
        await outbox.done(connection, done)
        outcome.removed = sum(task.present is None for task in done)
        outcome.indexed = len(done) - outcome.removed
        now = datetime.now(UTC)
        outcome.lags = [(now - task.since).total_seconds() for task in done]
        for task in batch.among(batch.refused):
            await self._refused(connection, task, batch.refused[task.memory_id], outcome)
        for reason in set(batch.held.values()):
            ids = {id_ for id_, why in batch.held.items() if why == reason} - batch.refused.keys()
            held = batch.among(ids)
            await outbox.hold(connection, held, reason, random.uniform(HOLD_SECONDS / 2, HOLD_SECONDS))  # noqa: S311
            outcome.held += len(held)
        return outcome

    async def _refused(self, connection: AsyncConnection, task: Task, reason: str, outcome: Outcome) -> None:
        if task.attempts + 1 < self._max_attempts:
            await outbox.try_later(connection, task, reason, delay_after(task.attempts))
            outcome.postponed += 1
            return
        await outbox.bury(connection, task, reason)
        outcome.buried += 1
        # not the reason itself: it may quote what was refused
        log.error(
            "memory %d of tenant %s is a dead letter after %d attempts; see: app dead-letters list",
            task.memory_id,
            task.places[0].tenant.mark,
            task.attempts + 1,
        )

    async def _set_aside(self, tasks: Sequence[Task], error: Exception) -> None:
        """Count an error that nobody expected against the record, if it came with one alone."""
        if len(tasks) == 1:
            with suppress(DatabaseUnavailable):
                async with self._database.begin() as connection:
                    await self._refused(connection, tasks[0], _what(error), Outcome())


def delay_after(attempts: int) -> float:
    """Seconds to wait after so many failed attempts: doubled each time, up to five minutes, with jitter."""
    bound = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempts, 30))
    return random.uniform(bound / 2, bound)  # noqa: S311 (no secret)


def _what(error: Exception) -> str:
    """What happened and where, without its message: that may quote a record."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/app/" in frame.filename]
    where = " in ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}{f' ({state})' if state else ''} at {where or 'no line of ours'}"
