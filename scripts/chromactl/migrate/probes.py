"""All embeddings of a collection against the shards of a finished run, without reading them.

A server before 1.x needs most of its time to write embeddings as JSON, and next to none to say how far all of them are
from a vector. So its index is asked for the distances of all records to a few vectors, which nobody can foresee, and
what the distances have to be is computed from the shards. What this cannot see is in docs/migration.md, measured.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chromactl import interrupt
from chromactl.errors import RequestError
from chromactl.stores.base import Batch, Collection, Neighbour, Source

log = logging.getLogger(__name__)

PROBES = 8
LEAST_ANSWERS = 4
"""An embedding that fewer distances agree on is read."""
LENGTHS_EVERY = 250
"""Of cosine collections one embedding in so many is read too: their distances say nothing of lengths."""

_LEFT_OUT = (0.0, 0.005, 0.02, 0.08, 0.3)
"""HNSW answers nothing at all if it is asked for more records than it can reach; then fewer are asked for."""
_ROUNDING = 2.0**-24  # of one float32 operation, relative
_IP_DISTANCE = 1e3  # usual size, so that the 1 in 1 - q·x does not round it

Matrix = NDArray[np.float64]


class Probes:
    """The distances of a collection's records to some vectors, as its index says they are.

    `vectors` are float32[k, dim], `said` float32[k, n] with NaN where there was no answer; `rows` says which of the n a
    record is. Threads may share it.
    """

    def __init__(
        self, space: str, vectors: NDArray[np.float32], rows: dict[str, int], said: NDArray[np.float32]
    ) -> None:
        self._space = space
        self._vectors = vectors.astype(np.float64)
        self._rows = rows
        self._said = said

    def doubtful(self, batch: Batch) -> list[int]:
        """The rows of the batch whose embeddings the index does not seem to hold as they are here."""
        at = [self._rows[record] for record in batch.ids]
        said = self._said[:, at].astype(np.float64)
        with np.errstate(all="ignore"):  # lengths of 0 and without end: NaN agrees with nothing
            right, tolerance = distances(self._vectors, batch.embeddings.astype(np.float64), self._space)
            agree = np.abs(said - right) <= tolerance
        doubtful = (~agree & ~np.isnan(said)).any(axis=0) | (agree.sum(axis=0) < LEAST_ANSWERS)
        if self._space == "cosine":
            doubtful |= np.array(at) % LENGTHS_EVERY == 0
        return [int(row) for row in np.flatnonzero(doubtful)]


def distances(vectors: Matrix, embeddings: Matrix, space: str) -> tuple[Matrix, Matrix]:
    """Distances float64[k, n] of embeddings to vectors, and how far off float32 arithmetic may be, vectorised or not.

    The rounding of a sum of products is a random walk: it grows with the root of its length. Measured on 0.6.3
    (x86), the largest was 0.4 of this bound for l2 and cosine and 0.7 for ip.
    """
    # Not `@`: BLAS would start a thread a core, and these spin.
    products = np.einsum("kd,nd->kn", vectors, embeddings)
    own, squares = (vectors**2).sum(axis=1)[:, None], np.einsum("nd,nd->n", embeddings, embeddings)
    sums = 8.0 + embeddings.shape[1] ** 0.5 / 2.0
    if space == "l2":
        right = own + squares - 2.0 * products
        return right, _ROUNDING * sums * right
    partial = np.abs(vectors).max(axis=1)[:, None] * np.sqrt(squares)
    if space == "cosine":
        products, partial = (values / np.sqrt(own * squares) for values in (products, partial))
    right = 1.0 - products
    return right, _ROUNDING * (sums * (partial + np.abs(products)) + 4.0 * np.maximum(1.0, np.abs(right)))


def ask(source: Source, collection: Collection, space: str, ids: Sequence[str], like: Batch, seed: str) -> Probes:
    """Ask the collection's index for the distances of all its records, which are `ids`, to new vectors.

    `like` are records of it, for the usual length of its embeddings. Vectors follow from the seed.
    """
    vectors = _vectors(space, like, seed)
    rows = {record: row for row, record in enumerate(ids)}
    said = np.full((PROBES, len(ids)), np.nan, np.float32)
    limits = [limit for share in _LEFT_OUT if (limit := int(len(ids) * (1.0 - share)))]
    for number, vector in enumerate(vectors):
        interrupt.let_through()
        for near in _nearest(source, collection, vector, limits):
            if (row := rows.get(near.id)) is not None:
                said[number, row] = near.distance
    log.info("%s: its index told %d of %d distances", collection.name, int((~np.isnan(said)).sum()), said.size)
    return Probes(space, vectors, rows, said)


def _nearest(source: Source, collection: Collection, vector: NDArray[np.float32], limits: list[int]) -> list[Neighbour]:
    """As many neighbours as the index gives at once; limits that are too many for it are taken out."""
    while limits:
        try:
            return source.nearest(collection, vector, limits[0])
        except RequestError as error:
            log.info("%s: no distances of %d records: %s", collection.name, limits.pop(0), error)
    return []


def _vectors(space: str, like: Batch, seed: str) -> NDArray[np.float32]:
    """Vectors without a number near 0, so that no change of a single number can hide, as long as is best."""
    random = np.random.default_rng(list(seed.encode()))
    shape = (PROBES, like.dimension)
    vectors = random.uniform(0.5, 1.5, shape) * random.choice((-1.0, 1.0), shape)
    usual = float(np.median(np.linalg.norm(like.embeddings.astype(np.float64), axis=1))) or 1.0
    length = {"l2": usual, "ip": _IP_DISTANCE * like.dimension**0.5 / usual}.get(space, 1.0)
    found: NDArray[np.float32] = (length * _unit(vectors)).astype(np.float32)
    return found


def _unit(vectors: Matrix) -> Matrix:
    unit: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
