"""What an index's distances tell of embeddings: nothing false, and next to everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from chromactl.errors import RequestError
from chromactl.migrate.probes import LEAST_ANSWERS, LENGTHS_EVERY, PROBES, Probes, ask, distances
from chromactl.stores.base import Batch, Collection, CollectionSpec, Neighbour, Where
from chromactl.stores.file_source import FileSource

Vectors = NDArray[np.float32]
SPACES = ["l2", "cosine", "ip"]


def batch(embeddings: Vectors) -> Batch:
    count = len(embeddings)
    return Batch([f"r{row}" for row in range(count)], embeddings, [None] * count, [None] * count, [None] * count)


def unit(count: int, dimension: int, seed: int = 0) -> Vectors:
    found = np.random.default_rng(seed).normal(size=(count, dimension))
    vectors: Vectors = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return vectors


def one_after_the_other(products: Vectors) -> Vectors:
    """The sums of rows as a loop over float32 makes them: what rounds most."""
    sums: Vectors = np.add.accumulate(products, axis=1, dtype=np.float32)[:, -1]
    return sums


def as_float32(space: str, vector: Vectors, embeddings: Vectors) -> Vectors:
    """Distances of embeddings to one vector, in the arithmetic of a server."""
    if space == "l2":
        return one_after_the_other((embeddings - vector) ** 2)
    if space == "cosine":
        vector, embeddings = normalised(vector[None])[0], normalised(embeddings)
    return np.float32(1) - one_after_the_other(embeddings * vector)


def normalised(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.sqrt(one_after_the_other(vectors**2))
    return vectors / lengths[:, None]


class Index(FileSource):
    """A store with an index, that answers for at most so many records, and never for those lost in it."""

    def __init__(self, embeddings: Vectors, space: str, *, most: int = 10**9, lost: Sequence[int] = ()) -> None:
        self.embeddings = embeddings
        self.space = space
        self.most = most
        self.lost = set(lost)
        self.asked: list[int] = []

    def nearest(
        self, collection: Collection, vector: Vectors, limit: int, where: Where | None = None
    ) -> list[Neighbour]:
        self.asked.append(limit)
        if limit > self.most:
            raise RequestError("Cannot return the results in a contigious 2D array", 500)
        far = as_float32(self.space, vector, self.embeddings)
        there = [row for row in np.argsort(far, kind="stable") if row not in self.lost]
        return [Neighbour(f"r{row}", float(far[row])) for row in there[:limit]]


def probed(index: Index, like: Vectors, seed: str = "a run") -> Probes:
    collection = Collection(CollectionSpec("pets", index.space), "key")
    ids = [f"r{row}" for row in range(len(index.embeddings))]
    return ask(index, collection, index.space, ids, batch(like), seed)


def doubted(index: Index, shard: Vectors) -> set[int]:
    """The rows in doubt, without those that are read for their lengths."""
    found = set(probed(index, shard).doubtful(batch(shard)))
    return found - set(range(0, len(shard), LENGTHS_EVERY)) if index.space == "cosine" else found


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dimension", [1, 3, 384, 1536])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_what_float32_rounds_makes_no_doubt(space: str, dimension: int, length: float) -> None:
    held = unit(400, dimension) * np.float32(length)
    assert len(doubted(Index(held, space), held)) <= 8  # of sums that no vector unit helps with


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dimension", [3, 384, 1536])
def test_a_change_of_a_ten_thousandth_is_in_doubt(space: str, dimension: int) -> None:
    shard = unit(400, dimension)
    held = (shard + 1e-4 * unit(400, dimension, seed=1)).astype(np.float32)
    if space == "cosine":
        held /= np.linalg.norm(held, axis=1, keepdims=True)
    assert len(probed(Index(held, space), shard).doubtful(batch(shard))) == 400


@pytest.mark.parametrize("space", SPACES)
def test_no_change_of_one_number_hides(space: str) -> None:
    shard = unit(400, 384)
    held = shard.copy()
    held[np.arange(400), np.arange(400) % 384] += np.float32(1e-3)
    assert len(probed(Index(held, space), shard).doubtful(batch(shard))) == 400


@pytest.mark.parametrize("space", SPACES)
def test_what_the_index_does_not_reach_is_in_doubt_and_nothing_else(space: str) -> None:
    held = unit(400, 64)
    index = Index(held, space, most=393, lost=[5, 77, 301])
    assert doubted(index, held) >= {5, 77, 301}
    assert len(doubted(index, held)) <= 6
    assert index.asked[:4] == [400, 398, 392, 392], "what was too much is not asked for again"


def test_an_index_that_answers_nothing_leaves_all_in_doubt() -> None:
    held = unit(10, 4)
    assert doubted(Index(held, "l2", most=0), held) == set(range(10))


def test_few_answers_are_not_enough() -> None:
    held = unit(50, 16)
    index = Index(held, "ip")
    found = probed(index, held)
    said = np.full((PROBES, 50), np.nan, np.float32)
    vectors = found._vectors.astype(np.float32)
    for number in range(LEAST_ANSWERS):
        said[number] = as_float32("ip", vectors[number], held)
    said[0, 7] = np.nan
    rows = {f"r{row}": row for row in range(50)}
    assert Probes("ip", vectors, rows, said).doubtful(batch(held)) == [7]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
def test_numbers_that_are_none_are_in_doubt(space: str) -> None:
    held = unit(6, 4)
    held[1, 2], held[2, 0], held[3] = np.nan, np.inf, 3e38
    assert doubted(Index(held, space), held) >= {1, 2, 3} - ({3} if space == "cosine" else set())


def test_of_cosine_some_are_read_for_their_lengths() -> None:
    held = unit(2 * LENGTHS_EVERY + 1, 8)
    assert probed(Index(held, "cosine"), held).doubtful(batch(held)) == [0, LENGTHS_EVERY, 2 * LENGTHS_EVERY]


def test_every_run_asks_for_other_distances() -> None:
    held = unit(10, 8)
    first, again, other = (probed(Index(held, "l2"), held, seed)._vectors for seed in ("one", "one", "other"))
    assert (first == again).all()
    assert not (first == other).any()


@pytest.mark.parametrize("space", SPACES)
def test_distances_are_those_of_chroma(space: str) -> None:
    vectors, embeddings = unit(3, 5).astype(np.float64), 2.0 * unit(7, 5, seed=1).astype(np.float64)
    found, tolerance = distances(vectors, embeddings, space)
    wanted = [as_float32(space, vector.astype(np.float32), embeddings.astype(np.float32)) for vector in vectors]
    assert np.allclose(found, np.array(wanted), atol=1e-5)
    assert (tolerance < 1e-5).all()


def test_records_are_found_by_their_ids_in_whatever_order() -> None:
    held = unit(20, 8)
    found = probed(Index(held, "l2"), held)
    some = batch(held).take([9, 3, 11])
    assert found.doubtful(some) == []
    assert found.doubtful(replace(some, ids=["r3", "r9", "r11"])) == [0, 1]
