"""A collection of the index in bulk, by its id: filled, read and removed whole, by somebody who has time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from chromadb.types import Collection
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import Purpose
from app.core.chroma.session import Session, T, Work
from app.core.chroma.wire import Columns, joined
from app.core.chroma.writer import Entries, put_whole
from app.core.errors import (
    ChromaFailed,
    ChromaRefusedToken,
    ChromaUnavailable,
    NotAChroma,
    UnknownCollection,
)

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
READ_RECORDS = 500
READ_BYTES = 8 * 2**20
DELETE_RECORDS = 1000
_LONGEST_PAUSE = 5.0


class Patient:
    """A session whose Chroma may be away for a minute: what is asked of it is asked again, and so done at least once.

    `outages` counts how often that was needed. Threads may share it.
    """

    def __init__(self, session: Session, pause: Callable[[float], None], seconds: float = PATIENCE_SECONDS) -> None:
        self.session = session
        self.outages = 0
        self._pause = pause
        self._seconds = seconds

    def run(self, work: Work[T], purpose: Purpose = Purpose.LOOK, *, failures: int = 1) -> T:
        """Do it. Raises what Session raises, ChromaFailed after so many more tries: it may be about what was sent."""
        until = time.monotonic() + self._seconds
        delay = 0.25
        while True:
            try:
                return self.session.answer(work, purpose)
            except (ChromaRefusedToken, NotAChroma):
                raise
            except ChromaUnavailable as error:
                answered = isinstance(error, ChromaFailed)
                failures -= answered
                if failures < 0 or time.monotonic() + delay > until:
                    raise
                if not self.session.target.remote:  # nobody will start it again
                    raise ChromaFailed(error.message, hint=error.hint) from error
                self.outages += not answered
                log.warning("asking again in %.1f s: %s", delay, error)
            self._pause(delay)
            delay = min(2 * delay, _LONGEST_PAUSE)


class Bulk:
    """One collection, whatever its name becomes. Methods block, may be called from any thread, raise ServiceError."""

    def __init__(self, chroma: Patient, model: Collection) -> None:
        self.chroma = chroma
        self.model = model

    def add(self, entries: Entries) -> None:
        """Add records; those that are there stay as they are. Raises RecordsRefused."""
        self.chroma.run(partial(_add, self.model, entries), Purpose.WRITE)

    def replace(self, entries: Entries) -> None:
        """Have these records be so, whatever was there under their ids. Raises RecordsRefused."""
        self.chroma.run(partial(_replace, self.model, entries), Purpose.WRITE)

    def remove(self, ids: Sequence[str]) -> None:
        """Have it hold none of these."""
        for start in range(0, len(ids), DELETE_RECORDS):
            self.chroma.run(partial(_remove, self.model, list(ids[start : start + DELETE_RECORDS])), Purpose.WRITE)

    def ids(self) -> list[str]:
        """The ids of all records: as of one moment, if Chroma gives them in one answer."""
        return self.chroma.run(lambda client: client.ids(self.model))

    def count(self) -> int:
        """How many records it says it holds."""
        return self.chroma.run(lambda client: int(client.bind(self.model).count()))

    def read(self, ids: Sequence[str]) -> tuple[Columns, list[str]]:
        """Those of these records that it holds, and the ids of those that it holds but cannot give back."""
        if not ids:
            return joined([]), []
        try:
            return self.chroma.run(lambda client: client.read(self.model, ids), failures=int(len(ids) == 1)), []
        except ChromaFailed:
            self.count()  # a Chroma that cannot even count is in trouble as a whole
            if len(ids) == 1:
                return joined([]), list(ids)
        half = len(ids) // 2
        (first, lost), (second, more) = self.read(ids[:half]), self.read(ids[half:])
        return joined([first, second]), [*lost, *more]

    def answers(self, vector: NDArray[float32]) -> None:
        """Ask its index for a neighbour of vector (float32[dim]); raises ChromaFailed when it cannot answer."""
        self.chroma.run(lambda client: client.bind(self.model).query(query_embeddings=vector[None, :], n_results=1))

    def rename(self, name: str) -> None:
        """Give it this name."""
        # once more is harmless, should the answer to it have been lost
        self.chroma.run(lambda client: client.rename(self.model, name))

    def discard(self, name: str) -> None:
        """Remove it, while it has this name: its records first, because dropping leaves lists in metadata behind.

        What is gone already is no error.
        """
        try:
            self.remove(self.ids())
            self.chroma.run(partial(_drop, self.model, name))
        except UnknownCollection:
            return


def pages_of(entries: Entries) -> Iterator[slice]:
    """The records cut into parts whose answers are of bounded size."""
    bytes_ = 12 * entries.vectors.shape[1]
    start, size = 0, 0
    for row, document in enumerate(entries.documents):
        size += bytes_ + len(document)
        if row - start == READ_RECORDS or (size > READ_BYTES and row > start):
            yield slice(start, row)
            start, size = row, bytes_ + len(document)
    if entries.documents:
        yield slice(start, len(entries.documents))


def _add(model: Collection, entries: Entries, client: ChromaClient) -> None:
    client.add(model.id, entries.ids, entries.vectors, entries.documents, entries.metadatas)


def _replace(model: Collection, entries: Entries, client: ChromaClient) -> None:
    put_whole(client, model, entries, entries.ids)


def _remove(model: Collection, ids: list[str], client: ChromaClient) -> None:
    client.delete(model, ids)


def _drop(model: Collection, name: str, client: ChromaClient) -> None:
    if client.get(name).id == model.id:
        client.drop(name)
