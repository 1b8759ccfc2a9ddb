"""What stores without an index share: records found by id in batches that can be loaded again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from chromactl.stores.base import Batch, Collection, Neighbour, Unreadable, Where, concatenate

Load = Callable[[], Batch]


class RecordIndex:
    """Where each record of one collection is: in which loadable batch, at which row. The last batch is kept."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, int]] = {}
        self._loads: list[Load] = []
        self._held: tuple[int, Batch] | None = None

    def add(self, ids: Sequence[str], load: Load) -> None:
        """Take note of a batch; a record that is there already is now the one of this batch."""
        self._rows.update((record, (len(self._loads), row)) for row, record in enumerate(ids))
        self._loads.append(load)

    def new(self, batch: Batch) -> Batch:
        """The records of the batch that are not there yet."""
        return batch.take([row for row, record in enumerate(batch.ids) if record not in self._rows])

    def ids(self) -> list[str]:
        """All ids, in the order in which they came."""
        return list(self._rows)

    def read(self, ids: Sequence[str], dimension: int) -> Batch:
        """The records of these ids that there are."""
        wanted: dict[int, list[int]] = {}
        for record in ids:
            if record in self._rows:
                number, row = self._rows[record]
                wanted.setdefault(number, []).append(row)
        return concatenate([self._load(number).take(rows) for number, rows in wanted.items()], dimension)

    def _load(self, number: int) -> Batch:
        if self._held is None or self._held[0] != number:
            self._held = (number, self._loads[number]())
        return self._held[1]


class FileSource:
    """The reading half of a store that is files: everything but opening them."""

    url: str
    _collections: dict[str, Collection]
    _records: dict[str, RecordIndex]

    def collections(self) -> list[Collection]:
        """Every collection in the file, by name."""
        return sorted(self._collections.values(), key=lambda collection: collection.name)

    def count(self, collection: Collection) -> int:
        """How many records the collection holds."""
        return len(self._records[collection.key].ids())

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
