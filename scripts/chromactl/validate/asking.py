"""Asking an index: its answer, how long it took, and what it said if it did not answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from chromactl.errors import ChromactlError
from chromactl.stores.base import Collection, Neighbour, Source

Key = tuple[str, str]
"""A collection's name and an id in it."""


@dataclass(slots=True)
class Answer:
    """The nearest records of some collections together, nearest first; milliseconds of each request."""

    neighbours: list[tuple[Key, float]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    error: str = ""


def ask(store: Source, collections: list[Collection], vector: NDArray[np.float32], limit: int) -> Answer:
    """What the collections answer together. No answer without an index, or where one of them fails."""
    answer = Answer()
    for collection in collections:
        begun = perf_counter()
        try:
            found = store.nearest(collection, vector, limit)
        except ChromactlError as error:
            answer.error = str(error)
            continue
        answer.milliseconds.append(1000 * (perf_counter() - begun))
        answer.neighbours += [((collection.name, one.id), _number(one)) for one in found]
    answer.neighbours.sort(key=lambda entry: entry[1])
    return answer


def _number(neighbour: Neighbour) -> float:
    # A server that has NaN among its vectors answers null.
    distance: float | None = neighbour.distance
    return math.inf if distance is None or math.isnan(distance) else distance
