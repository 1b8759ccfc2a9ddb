"""What every store speaks: columnar batches of records, and collections that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chromactl.reject import Reject

Scalar = str | int | float | bool
MetadataValue = Scalar | list[str] | list[int] | list[float] | list[bool]
Metadata = dict[str, MetadataValue]
Where = dict[str, Any]
"""A filter on metadata, in Chroma's own language."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of one collection, a column each. All columns have the same length n.

    `embeddings` is float32[n, dim]. A document of None is not the empty string; a metadata of None and
    an empty one are the same thing to Chroma, and None here.
    """

    ids: list[str]
    embeddings: NDArray[np.float32]
    documents: list[str | None]
    uris: list[str | None]
    metadatas: list[Metadata | None]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """The number of floats in one embedding."""
        return int(self.embeddings.shape[1])

    def take(self, rows: Sequence[int]) -> Batch:
        """The given rows, in the given order."""
        return Batch(
            ids=[self.ids[row] for row in rows],
            embeddings=self.embeddings[list(rows)],
            documents=[self.documents[row] for row in rows],
            uris=[self.uris[row] for row in rows],
            metadatas=[self.metadatas[row] for row in rows],
        )

    def slices(self, size: int) -> Iterator[Batch]:
        """The batch cut into batches of at most `size` records, in order."""
        for start in range(0, len(self), size):
            end = start + size
            yield Batch(
                self.ids[start:end],
                self.embeddings[start:end],
                self.documents[start:end],
                self.uris[start:end],
                self.metadatas[start:end],
            )


def concatenate(batches: Sequence[Batch], dimension: int) -> Batch:
    """The batches one after the other; without any record, an empty batch of this dimension."""
    full = [batch for batch in batches if len(batch)]
    if not full:
        return Batch([], np.empty((0, dimension), np.float32), [], [], [])
    if len(full) == 1:
        return full[0]
    return Batch(
        ids=[record for batch in full for record in batch.ids],
        embeddings=np.concatenate([batch.embeddings for batch in full]),
        documents=[document for batch in full for document in batch.documents],
        uris=[uri for batch in full for uri in batch.uris],
        metadatas=[metadata for batch in full for metadata in batch.metadatas],
    )


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection is, apart from its records.

    `space` is the metric as far as the store states it (see chromactl.metric for the proof). `hnsw` holds
    the index settings under Chroma 1.x's names; `embedding_function` is data, never instantiated. `schema` is that
    of 1.5 where it says more than all this: which keys have no index, for one.
    """

    name: str
    space: str
    metadata: dict[str, Scalar] | None = None
    hnsw: dict[str, int | float] = field(default_factory=dict)
    embedding_function: dict[str, Any] | None = None
    dimension: int | None = None
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection in a store: its spec, and the key by which this store finds it."""

    spec: CollectionSpec
    key: str

    @property
    def name(self) -> str:
        """The collection's name when it was looked up."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Records that a store lists but cannot give back, with the store's own words."""

    ids: list[str]
    reason: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One answer of an index to a query."""

    id: str
    distance: float


class Source(Protocol):
    """A store that yields records. Nothing here ever writes to it."""

    url: str
    embeddings_are_dear: bool
    """Whether the store needs far longer to give embeddings than all the rest of a record, and the `nearest`."""

    def databases(self) -> list[str]:
        """The names of all databases of the tenant.

        Raises:
            PreconditionError: this store cannot tell; they have to be named.
        """

    def collections(self) -> list[Collection]:
        """Every collection of the database."""

    def count(self, collection: Collection) -> int:
        """How many records the store says the collection holds."""

    def ids(self, collection: Collection) -> list[str]:
        """The ids of all records, taken at one moment."""

    def read(self, collection: Collection, ids: Sequence[str]) -> tuple[Batch, list[Unreadable]]:
        """The records of these ids that still exist, in any order, and those that cannot be read."""

    def read_text(self, collection: Collection, ids: Sequence[str]) -> Batch:
        """Like `read`, with embeddings of dimension 0: cheap where embeddings are dear."""

    def nearest(
        self, collection: Collection, vector: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[Neighbour]:
        """The index's own answer to a query: ids and distances, nearest first. Empty without an index."""

    def close(self) -> None:
        """Let go of connections and processes."""


class Target(Source, Protocol):
    """A store that takes records into new collections beside the live ones, and swaps them in.

    A staged collection is invisible under the live name until `swap`.
    """

    def free_bytes(self) -> int | None:
        """Free space where the data will lie, in bytes; None where it cannot be known."""

    def stage(self, spec: CollectionSpec, run: str) -> Collection:
        """The empty collection beside `spec.name` for this run, made now or left by an interrupted run."""

    def write(self, collection: Collection, batch: Batch, *, repeat: bool = False) -> list[Reject]:
        """Add the records. With `repeat` some may be there already (an earlier try was cut off).

        What comes back are records over a hard quota of the target: these, and only these, were not written.
        """

    def amend(self, collection: Collection, batch: Batch, removed: Sequence[str]) -> list[Reject]:
        """Make the records of the batch exactly what is under their ids, and remove those of the ids in `removed`.

        Nothing of what was under an id before stays (Chroma's upsert alone would merge). Repeating it after a crash
        is harmless. What comes back is as in `write`; of such a record nothing is left.

        Raises:
            PreconditionError: this store is never changed once it is complete.
        """

    def swap(self, staged: Sequence[Collection], run: str) -> dict[str, str]:
        """Give the staged collections their live names; can be repeated after a crash.

        Collections that had these names are kept: {live name: the name it is kept under}.
        """

    def discard(self, staged: Collection) -> None:
        """Remove a staged collection with all its records."""


class Database(Target, Protocol):
    """A target that goes on living once it is complete: a server, or a directory."""

    def rename(self, collection: Collection, name: str) -> None:
        """Give the collection another name; its key stays. Repeating it after a crash is harmless."""
