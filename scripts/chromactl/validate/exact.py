"""The exact answer to queries, computed from the vectors as they go by: no index, and never all vectors at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chromactl.stores.base import Neighbour

RESULTS = 10
HELD = 64
"""How many nearest records of each query are kept, so that those as near as the tenth are known too."""

_TIE = 1e-5


def distances(space: str, queries: NDArray[np.float64], stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chroma's distances: float64[q, n]. NaN (of vectors that are not finite) becomes infinity."""
    products = queries @ stored.T
    if space == "ip":
        found = 1.0 - products
    elif space == "cosine":
        lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(stored, axis=1)[None, :]
        found = 1.0 - np.divide(products, lengths, out=np.zeros_like(products), where=lengths != 0)
    else:
        squares = (queries**2).sum(axis=1)[:, None] + (stored**2).sum(axis=1)[None, :]
        found = np.maximum(squares - 2.0 * products, 0.0)
    return np.where(np.isfinite(found), found, np.inf)


@dataclass(frozen=True, slots=True)
class Truth:
    """The exact answer to one query, nearest first, with more than the asked-for number."""

    neighbours: list[Neighbour]

    @property
    def size(self) -> int:
        """How many results a full answer has: RESULTS, or fewer where there are not so many records."""
        return min(RESULTS, len(self.neighbours))

    @property
    def ids(self) -> list[str]:
        """The ids of the exact answer."""
        return [neighbour.id for neighbour in self.neighbours[: self.size]]

    def recall(self, answer: Sequence[str]) -> float:
        """The share of the exact answer that this answer gives; records as near as the last one are as good."""
        if not self.size:
            return 1.0
        last = self.neighbours[self.size - 1].distance
        good = {one.id for one in self.neighbours if one.distance <= last + _TIE * max(1.0, abs(last))}
        return min(1.0, len(good.intersection(answer[: self.size])) / self.size)


class ExactSearch:
    """The nearest of all records that were added, for queries float32[q, dim]."""

    def __init__(self, queries: NDArray[np.float32], space: str) -> None:
        self._queries = queries.astype(np.float64)
        self._space = space
        self._nearest: list[list[Neighbour]] = [[] for _ in queries]

    def add(self, ids: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Take in some records."""
        if not len(ids) or not len(self._queries) or embeddings.shape[1] != self._queries.shape[1]:
            return
        found = distances(self._space, self._queries, embeddings.astype(np.float64))
        for held, row in zip(self._nearest, found, strict=True):
            some = np.argpartition(row, HELD)[:HELD] if len(row) > HELD else range(len(row))
            held += [Neighbour(ids[number], float(row[number])) for number in some]
            held.sort(key=lambda neighbour: neighbour.distance)
            del held[HELD:]

    def truth(self, query: int) -> Truth:
        """The exact answer to the query of this number."""
        return Truth([neighbour for neighbour in self._nearest[query] if np.isfinite(neighbour.distance)])
