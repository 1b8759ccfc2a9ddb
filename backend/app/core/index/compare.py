"""Record by record: does the index hold what it should hold?

Everything has to be equal, types included, but for the two roundings that Chroma 1.x does itself: embeddings of cosine
collections come back within a relative 3e-7, some floats in metadata up to 2 ULP off. chromactl allows the same
(scripts/chromactl/compare.py), and a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from app.core.chroma.wire import Columns
from app.core.chroma.writer import Entries

COSINE_TOLERANCE = 3e-7
FLOAT_ULPS = 2


def differences(expected: Entries, actual: Columns) -> dict[str, str]:
    """What is not as it should be: record id to what is wrong with it; `missing` where it is not there.

    Embeddings of NaN are not known, and nothing is expected of them.
    """
    row_of = {id_: row for row, id_ in enumerate(actual.ids)}
    both = [row for row, id_ in enumerate(expected.ids) if id_ in row_of]
    there = [row_of[expected.ids[row]] for row in both]
    found = {id_: "missing" for id_ in expected.ids if id_ not in row_of}
    for row in _other_vectors(expected, both, actual, there):
        found[expected.ids[row]] = "embedding"
    for row, other in zip(both, there, strict=True):
        if expected.documents[row] != actual.documents[other]:
            found[expected.ids[row]] = "document"
        elif key := _other_key(expected.metadatas[row], actual.metadatas[other] or {}):
            found[expected.ids[row]] = f"metadata {key}"
    return found


def _other_vectors(expected: Entries, both: list[int], actual: Columns, there: list[int]) -> list[int]:
    if not both:
        return []
    if expected.vectors.shape[1] != actual.vectors.shape[1]:
        return both
    wanted, got = expected.vectors[both], actual.vectors[there]
    same = (wanted == got).all(axis=1)
    if not same.all():
        # atol: below it float32 has fewer digits
        close = np.isclose(got, wanted, rtol=COSINE_TOLERANCE, atol=float(np.finfo(np.float32).tiny)).all(axis=1)
        same = close | np.isnan(wanted).all(axis=1)
    return [both[row] for row in np.flatnonzero(~same)]


def _other_key(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    if expected == actual and all(map(_same, expected.values(), map(actual.get, expected))):
        return ""
    return next((key for key in [*expected, *actual] if not _close(expected.get(key), actual.get(key))), "")


def _same(expected: object, actual: object) -> bool:
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(_same, expected, actual))
    return type(expected) is type(actual) and expected == actual


def _close(expected: object, actual: object) -> bool:
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(_close, expected, actual))
    if isinstance(expected, float) and isinstance(actual, float):
        return abs(expected - actual) <= FLOAT_ULPS * math.ulp(expected)
    return _same(expected, actual)
