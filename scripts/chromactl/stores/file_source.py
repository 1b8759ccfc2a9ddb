"""What stores without an index share: records found by id in batches that can be loaded again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from chromactl.errors import PreconditionError
from chromactl.stores.base import Batch, Collection, Neighbour, Unreadable, Where, concatenate

Load = Callable[[], Batch]

HELD_BATCHES = 4
_ROWS = 2**32


class RecordIndex:
    """Where each record of one collection is: in which loadable batch, at which row.

    Only the ids are kept, and the few batches that were read last. Threads may share it.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._loads: list[Load] = []
        self._held: dict[int, Batch] = {}
        self._lock = threading.Lock()

    def add(self, ids: Sequence[str], load: Load) -> None:
        """Take note of a batch; a record that is there already is now the one of this batch."""
        with self._lock:
            first = len(self._loads) * _ROWS
            self._places.update((record, first + row) for row, record in enumerate(ids))
            self._loads.append(load)

    def new(self, batch: Batch) -> Batch:
        """The records of the batch that are not there yet."""
        return batch.take([row for row, record in enumerate(batch.ids) if record not in self._places])

    def count(self) -> int:
        """How many records there are."""
        return len(self._places)

    def ids(self) -> list[str]:
        """All ids, in the order in which they came."""
        with self._lock:
            return list(self._places)

    def read(self, ids: Sequence[str], dimension: int) -> Batch:
        """The records of these ids that there are."""
        wanted: dict[int, list[int]] = {}
        for record in ids:
            if (place := self._places.get(record)) is not None:
                number, row = divmod(place, _ROWS)
                wanted.setdefault(number, []).append(row)
        return concatenate([self._load(number).take(rows) for number, rows in wanted.items()], dimension)

    def _load(self, number: int) -> Batch:
        with self._lock:
            held = self._held.pop(number, None)
            load = self._loads[number]
        batch = load() if held is None else held
        with self._lock:
            self._held[number] = batch
            while len(self._held) > HELD_BATCHES:
                del self._held[next(iter(self._held))]
        return batch


class FileSource:
    """The reading half of a store that is files: everything but opening them."""

    url: str
    embeddings_are_dear = False
    _collections: dict[str, Collection]
    _records: dict[str, RecordIndex]

    def databases(self) -> list[str]:
        """Unknown: files have no names for databases.

        Raises:
            PreconditionError: always.
        """
        raise PreconditionError(f"{self.url}: holds the collections of one database, without its name")

    def collections(self) -> list[Collection]:
        """Every collection in the file, by name."""
        return sorted(self._collections.values(), key=lambda collection: collection.name)

    def count(self, collection: Collection) -> int:
        """How many records the collection holds."""
        return self._records[collection.key].count()

    def ids(self, collection: Collection) -> list[str]:
        """The ids of all records."""
        return self._records[collection.key].ids()

    def read(self, collection: Collection, ids: Sequence[str]) -> tuple[Batch, list[Unreadable]]:
        """The records of these ids; a file that cannot be read is an error, not an unreadable record."""
        return self._records[collection.key].read(ids, collection.spec.dimension or 0), []

    def read_text(self, collection: Collection, ids: Sequence[str]) -> Batch:
        """The records without their embeddings: float32[n, 0]."""
        batch, _ = self.read(collection, ids)
        return Batch(batch.ids, np.empty((len(batch), 0), np.float32), batch.documents, batch.uris, batch.metadatas)

    def nearest(
        self, collection: Collection, vector: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[Neighbour]:
        """Nothing: files have no index."""
        return []

    def close(self) -> None:
        """Nothing is held open."""


def never_changed(url: str) -> PreconditionError:
    """Why nothing is amended in a file: it is complete once it is there."""
    return PreconditionError(f"{url}: never changed once complete; give a new name")
