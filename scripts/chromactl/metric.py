"""The metric a collection really uses: stated by its store, then proven by asking its index.

Old cosine collections call themselves l2 in their configuration (0.5, 0.6, and 1.x after an in-place
upgrade). A query with three times a stored vector tells the metrics apart: its distance to the vector v is 0
for cosine, |2v|^2 for l2 and 1 - 3|v|^2 for ip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromactl.stores.base import Collection, Source

_PROBES = 3
_NEIGHBOURS = 5
_TOLERANCE = 1e-3
_LENGTHS = (1e-15, 1e15)
"""Of vectors that tell something; the squares of others leave float32, and an index's distances with them."""

Vector = NDArray[np.float64]


def _cosine(query: Vector, stored: Vector) -> float:
    return 1.0 - float(query @ stored) / float(np.linalg.norm(query) * np.linalg.norm(stored))


def _l2(query: Vector, stored: Vector) -> float:
    return float(np.sum((query - stored) ** 2))


def _ip(query: Vector, stored: Vector) -> float:
    return 1.0 - float(query @ stored)


_DISTANCES: dict[str, Callable[[Vector, Vector], float]] = {"cosine": _cosine, "l2": _l2, "ip": _ip}


def prove(store: Source, collection: Collection, ids: list[str]) -> str | None:
    """The metric under which the index's own distances come out right; None where there is no proof.

    There is none for stores without an index, for collections without records, and for vectors of next to no length,
    or of no end.
    `ids` are ids of records that the collection holds.
    """
    for record in ids[:_PROBES]:
        batch, _ = store.read(collection, [record])
        if not len(batch) or not _tells(batch.embeddings[0]):
            continue
        query = (3.0 * batch.embeddings[0]).astype(np.float32)
        neighbours = store.nearest(collection, query, min(_NEIGHBOURS, len(ids)))
        found, _ = store.read(collection, [neighbour.id for neighbour in neighbours])
        stored = dict(zip(found.ids, found.embeddings.astype(np.float64), strict=True))
        pairs = [
            (stored[near.id], near.distance) for near in neighbours if near.id in stored and _tells(stored[near.id])
        ]
        fitting = [name for name in _DISTANCES if pairs and _fits(name, query.astype(np.float64), pairs)]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _tells(vector: NDArray[np.floating[Any]]) -> bool:
    return _LENGTHS[0] < float(np.linalg.norm(vector.astype(np.float64))) < _LENGTHS[1]


def _fits(name: str, query: Vector, pairs: list[tuple[Vector, float]]) -> bool:
    for stored, distance in pairs:
        expected = _DISTANCES[name](query, stored)
        if not abs(expected - distance) <= _TOLERANCE * max(1.0, abs(expected)):  # NaN fits nothing
            return False
    return True
