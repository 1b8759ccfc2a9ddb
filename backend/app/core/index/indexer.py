"""One batch: taken from the outbox, embedded, written to the index, and struck off, in one transaction."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import numpy as np
from numpy import float32
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.chroma.writer import Entries, IndexWriter
from app.core.database.database import Database
from app.core.embedding.provider import EmbeddingProvider
from app.core.errors import ChromaFailed, DatabaseUnavailable, RecordsRefused, ServiceError, TextRefused
from app.core.index import outbox
from app.core.index.outbox import Task
from app.core.memory.record import document_of, index_id, metadata_of, text_of
from app.core.memory.tenant import Kind

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 300.0


@dataclass(slots=True)
class Outcome:
    """What became of a batch, in records."""

    indexed: int = 0
    removed: int = 0
    postponed: int = 0
    buried: int = 0

    @property
    def taken(self) -> int:
        """Records taken."""
        return self.indexed + self.removed + self.postponed + self.buried


@dataclass(slots=True)
class _Progress:
    done: list[Task] = field(default_factory=list)
    failed: list[tuple[Task, str]] = field(default_factory=list)


class Indexer:
    """Has the index follow PostgreSQL. `stores` are the index's two halves: of memories and of passages."""

    def __init__(
        self,
        database: Database,
        stores: dict[Kind, IndexWriter],
        embedder: EmbeddingProvider,
        batch_size: int,
        max_attempts: int,
    ) -> None:
        self._database = database
        self._stores = stores
        self._embedder = embedder
        self._batch_size = batch_size
        self._max_attempts = max_attempts
        self._unsure: dict[int, Task] = {}

    async def step(self) -> Outcome:
        """Index one batch. What a record is to blame for is counted against it alone.

        Raises DatabaseUnavailable, ChromaUnavailable, EmbeddingUnavailable, after what was done before is struck off.
        """
        await self._again()
        tasks: list[Task] = []
        trouble: ServiceError | None = None
        try:
            # not bounded as a whole: cancelled, a write to Chroma would go on in its thread without the lock
            async with self._database.begin(bounded=False) as connection:
                tasks += await outbox.take(connection, self._batch_size, self._embedder.model)
                progress = _Progress()
                try:
                    await self._index(connection, tasks, progress)
                except DatabaseUnavailable:
                    raise
                except ServiceError as error:
                    trouble = error
                outcome = await self._strike_off(connection, progress)
        except DatabaseUnavailable:
            self._unsure.update((task.memory_id, task) for task in tasks)
            raise
        if trouble is not None:
            raise trouble
        return outcome

    async def _again(self) -> None:
        """Give records that were in hand when their lock was lost a new event.

        Another worker may have written a later state meanwhile, and our write may have come after it.
        """
        if self._unsure:
            unsure = list(self._unsure.values())
            async with self._database.begin() as connection:
                await outbox.replay(connection, unsure)
            for task in unsure:
                self._unsure.pop(task.memory_id, None)

    async def _index(self, connection: AsyncConnection, tasks: Sequence[Task], progress: _Progress) -> None:
        present = await self._embedded(connection, [task for task in tasks if task.raw_data is not None], progress)
        gone = [task for task in tasks if task.raw_data is None]
        for (kind, name), group in _by_collection(gone):
            await self._apply(group, progress, partial(self._remove, kind, name))
        for (kind, name), group in _by_collection(present):
            await self._apply(group, progress, partial(self._put, kind, name))

    async def _embedded(self, connection: AsyncConnection, tasks: Sequence[Task], progress: _Progress) -> list[Task]:
        """The tasks, each with an embedding; those whose text is refused are left out as failed."""
        new = [task for task in tasks if task.embedding is None]
        vectors: dict[int, NDArray[float32]] = {}

        async def embed(part: Sequence[Task]) -> None:
            texts = [text_of(task.raw_data or {}) for task in part]
            rows = await asyncio.to_thread(self._embedder.embed, texts)
            vectors.update(zip((task.memory_id for task in part), rows, strict=True))

        embedded = _Progress()
        await self._apply(new, embedded, embed)
        progress.failed += embedded.failed
        # kept now: a batch that Chroma does not take has its embeddings all the same
        made = [vectors[task.memory_id] for task in embedded.done]
        await outbox.keep_embeddings(connection, embedded.done, made, self._embedder.model)
        with_vector = [
            task if task.embedding is not None else replace(task, embedding=vectors[task.memory_id])
            for task in tasks
            if task.embedding is not None or task.memory_id in vectors
        ]
        return with_vector

    async def _apply(
        self, tasks: Sequence[Task], progress: _Progress, work: Callable[[Sequence[Task]], Awaitable[None]]
    ) -> None:
        """Do it for all at once; where some are refused, by halves, down to the ones that are to blame."""
        if not tasks:
            return
        try:
            await work(tasks)
        except (RecordsRefused, TextRefused, ChromaFailed) as error:
            if isinstance(error, ChromaFailed):
                await self._is_up(tasks[0].kind)
            if len(tasks) == 1:
                progress.failed.append((tasks[0], str(error)))
                return
            half = len(tasks) // 2
            await self._apply(tasks[:half], progress, work)
            await self._apply(tasks[half:], progress, work)
        else:
            progress.done += tasks

    async def _put(self, kind: Kind, name: str, tasks: Sequence[Task]) -> None:
        entries = Entries(
            ids=[index_id(task.memory_id) for task in tasks],
            vectors=np.stack([task.embedding for task in tasks if task.embedding is not None]),
            documents=[document_of(task.raw_data or {}) for task in tasks],
            metadatas=[metadata_of(task.raw_data or {}, task.created_at) for task in tasks if task.created_at],
        )
        replacing = [index_id(task.memory_id) for task in tasks if task.may_be_there]
        await asyncio.to_thread(self._stores[kind].put, name, entries, replacing)

    async def _remove(self, kind: Kind, name: str, tasks: Sequence[Task]) -> None:
        await asyncio.to_thread(self._stores[kind].remove, name, [index_id(task.memory_id) for task in tasks])

    async def _is_up(self, kind: Kind) -> None:
        """Raise ChromaUnavailable unless Chroma answers: an error of a server that is ending is no record's fault."""
        await asyncio.to_thread(self._stores[kind].alive)

    async def _strike_off(self, connection: AsyncConnection, progress: _Progress) -> Outcome:
        outcome = Outcome()
        if progress.done:
            await outbox.done(connection, progress.done)
            outcome.removed = sum(task.raw_data is None for task in progress.done)
            outcome.indexed = len(progress.done) - outcome.removed
        for task, error in progress.failed:
            if task.attempts + 1 >= self._max_attempts:
                log.error(
                    "memory %d of %s is given up after %d attempts: %s",
                    task.memory_id,
                    task.tenant,
                    task.attempts + 1,
                    error,
                )
                await outbox.bury(connection, task, error)
                outcome.buried += 1
            else:
                await outbox.try_later(connection, task, error, delay_after(task.attempts))
                outcome.postponed += 1
        return outcome


def delay_after(attempts: int) -> float:
    """Seconds to wait after so many failed attempts: doubled each time, up to five minutes, with full jitter."""
    bound = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**attempts)
    return random.uniform(bound / 2, bound)  # noqa: S311 (no secret)


def _by_collection(tasks: Sequence[Task]) -> list[tuple[tuple[Kind, str], list[Task]]]:
    def key(task: Task) -> tuple[Kind, str]:
        return task.kind, task.tenant.collection(task.kind)

    return [(found, list(group)) for found, group in groupby(sorted(tasks, key=key), key)]
