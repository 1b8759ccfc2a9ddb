"""The exact answer, piece by piece, is the one that all vectors at once give."""

from __future__ import annotations

import numpy as np
import pytest

from chromactl.validate.exact import RESULTS, ExactSearch, distances

RANDOM = np.random.default_rng(7)
VECTORS = RANDOM.normal(size=(1500, 12)).astype(np.float32)
QUERIES = RANDOM.normal(size=(5, 12)).astype(np.float32)
IDS = [f"r{number}" for number in range(len(VECTORS))]


def by_definition(space: str, query: np.ndarray, stored: np.ndarray) -> float:
    q, v = query.astype(np.float64), stored.astype(np.float64)
    if space == "l2":
        return float(((q - v) ** 2).sum())
    if space == "ip":
        return float(1 - q @ v)
    return float(1 - q @ v / (np.linalg.norm(q) * np.linalg.norm(v)))


@pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
def test_distances_are_chromas(space: str) -> None:
    found = distances(space, QUERIES.astype(np.float64), VECTORS[:20].astype(np.float64))
    wanted = [[by_definition(space, query, stored) for stored in VECTORS[:20]] for query in QUERIES]
    assert np.allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("piece", [1, 7, 1000, 1500])
def test_pieces_give_the_whole_answer(space: str, piece: int) -> None:
    search = ExactSearch(QUERIES, space)
    for start in range(0, len(VECTORS), piece):
        search.add(IDS[start : start + piece], VECTORS[start : start + piece])
    for number, query in enumerate(QUERIES):
        order = np.argsort([by_definition(space, query, stored) for stored in VECTORS])
        truth = search.truth(number)
        assert truth.ids == [IDS[place] for place in order[:RESULTS]]
        assert truth.recall(truth.ids) == 1.0
        assert truth.recall(truth.ids[:5] + ["nobody"] * 5) == 0.5


def test_fewer_records_than_asked_for() -> None:
    search = ExactSearch(QUERIES, "l2")
    search.add(IDS[:3], VECTORS[:3])
    assert (search.truth(0).size, search.truth(0).recall(IDS[:3])) == (3, 1.0)
    assert ExactSearch(QUERIES, "l2").truth(0).recall([]) == 1.0


def test_records_as_near_as_the_last_are_as_good() -> None:
    search = ExactSearch(QUERIES, "l2")
    search.add(IDS[:30], np.repeat(VECTORS[:1], 30, axis=0))
    assert search.truth(0).recall(IDS[20:30]) == 1.0


def test_vectors_that_are_not_finite_or_zero_do_no_harm() -> None:
    search = ExactSearch(QUERIES, "cosine")
    some = VECTORS[:3].copy()
    some[1] = np.nan
    some[2] = 0
    search.add(IDS[:3], some)
    assert set(search.truth(0).ids) == {"r0", "r2"}
