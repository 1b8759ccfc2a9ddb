"""Record by record: is what a store holds what it should hold?

Everything has to be equal, types included, but for the two roundings that Chroma 1.x does itself (measured):
embeddings of cosine collections come back normalised and scaled again, within a relative 3e-7, and some
float metadata values come back up to 2 ULP off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from chromactl.stores.base import Batch, Metadata

COSINE_TOLERANCE = 3e-7
FLOAT_ULPS = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs in one record."""

    id: str
    field: str
    expected: str
    actual: str


@dataclass(slots=True)
class Comparison:
    """What comparing came to. The rounded records are equal within the tolerances, and counted."""

    compared: int = 0
    rounded_embeddings: int = 0
    rounded_floats: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, expected: Batch, actual: Batch, *, space: str) -> None:
        """Compare the expected records with what a store gave for their ids, in whatever order."""
        row_of = {record: row for row, record in enumerate(actual.ids)}
        both = [row for row, record in enumerate(expected.ids) if record in row_of]
        for row in set(range(len(expected))) - set(both):
            self.differences.append(Difference(expected.ids[row], "record", "there", "missing"))
        self._embeddings(expected.take(both), actual.take([row_of[expected.ids[row]] for row in both]), space)
        for row in both:
            other = row_of[expected.ids[row]]
            self._text(expected.ids[row], "document", expected.documents[row], actual.documents[other])
            self._text(expected.ids[row], "uri", expected.uris[row], actual.uris[other])
            self._metadata(expected.ids[row], expected.metadatas[row] or {}, actual.metadatas[other] or {})
        self.compared += len(both)

    def merge(self, other: Comparison) -> None:
        """Count another comparison's findings as this one's."""
        self.compared += other.compared
        self.rounded_embeddings += other.rounded_embeddings
        self.rounded_floats += other.rounded_floats
        self.differences += other.differences

    def _embeddings(self, expected: Batch, actual: Batch, space: str) -> None:
        if not len(expected):
            return
        if expected.dimension != actual.dimension:
            words = (f"dimension {expected.dimension}", f"dimension {actual.dimension}")
            self.differences += [Difference(record, "embedding", *words) for record in expected.ids]
            return
        equal = (expected.embeddings == actual.embeddings).all(axis=1)
        close = equal
        if space == "cosine" and not equal.all():
            close = np.isclose(actual.embeddings, expected.embeddings, rtol=COSINE_TOLERANCE, atol=0.0).all(axis=1)
        self.rounded_embeddings += int((close & ~equal).sum())
        for row in np.flatnonzero(~close):
            worst = int(np.argmax(np.abs(expected.embeddings[row] - actual.embeddings[row])))
            words = (f"[{worst}] = {expected.embeddings[row, worst]}", f"[{worst}] = {actual.embeddings[row, worst]}")
            self.differences.append(Difference(expected.ids[row], "embedding", *words))

    def _text(self, record: str, name: str, expected: str | None, actual: str | None) -> None:
        if expected != actual:
            self.differences.append(Difference(record, name, _short(expected), _short(actual)))

    def _metadata(self, record: str, expected: Metadata, actual: Metadata) -> None:
        if expected.keys() == actual.keys() and all(_same(value, actual[key]) for key, value in expected.items()):
            return
        rounded = False
        for key in expected.keys() | actual.keys():
            wanted, got = expected.get(key), actual.get(key)
            if _same(wanted, got):
                continue
            if _within_ulps(wanted, got):
                rounded = True
            else:
                self.differences.append(Difference(record, key, _short(wanted), _short(got)))
        self.rounded_floats += rounded


def agree(expected: object, actual: object) -> bool:
    """Whether a metadata value is what it should be: equal, of the same type, or a float within the rounding."""
    return _within_ulps(expected, actual)


def shown(value: object) -> str:
    """A value as differences name it."""
    return _short(value)


def _same(expected: object, actual: object) -> bool:
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(_same, expected, actual))
    return type(expected) is type(actual) and expected == actual


def _within_ulps(expected: object, actual: object) -> bool:
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(_within_ulps, expected, actual))
    if isinstance(expected, float) and isinstance(actual, float):
        return abs(expected - actual) <= FLOAT_ULPS * math.ulp(expected)
    return _same(expected, actual)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
