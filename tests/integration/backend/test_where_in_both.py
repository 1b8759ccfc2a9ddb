"""The same filter finds the same records, whether Chroma answers or PostgreSQL in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.core.chroma.filters import checked_where
from app.core.chroma.hits import own_matches
from app.core.found import Match
from app.core.memory.tenant import Tenant
from app.services import AppServices
from support.postgres import Postgres
from support.servers import chroma_server
from support.service import indexer_of, services_of

TENANT = Tenant("ann", "first")
BIG = 2**53
METADATA: list[dict[str, Any]] = [
    {},
    {"k": 1},
    {"k": 2, "s": "x"},
    {"k": -2},
    {"k": 0},
    {"k": 1.0},
    {"k": 1.5},
    {"k": -0.5, "s": "x"},
    {"k": 0.0},
    {"k": -0.0},
    {"k": 1e-7},
    {"k": 1e300},
    {"k": BIG},
    {"k": BIG + 1},
    {"k": float(BIG)},
    {"k": 2**63 - 1},
    {"k": -(2**63)},
    {"k": float(2**63)},
    {"k": True},
    {"k": False},
    {"k": "1"},
    {"k": "true"},
    {"k": ""},
    {"k": "x", "s": "X"},
    {"k": "X"},
    {"k": "é"},
    {"k": "e\u0301"},
    {"k": "\U0001f327"},
    {"k": 'a"b\\c'},
    {"k": "%"},
    {"k": [1, 2]},
    {"k": [1.0, 2.5]},
    {"k": ["x", "1", "é"]},
    {"k": [True]},
    {"k": []},
    {"k": None, "s": "x"},
    {"k k": 1, "k.k": 2, "metadata": 3, "'": 4, "k' OR true --": 5},
]


@dataclass(frozen=True)
class Both:
    """The same records in Chroma and in PostgreSQL."""

    services: AppServices
    runner: asyncio.Runner

    def by_chroma(self, where: dict[str, Any]) -> list[Match]:
        collection = TENANT.collection("memory")
        vector = self.services.embedder.embed(["rain"])[0]
        hits = self.services.stores.memory.query(collection, vector, len(METADATA), checked_where(where))
        return own_matches(hits, "memory")

    def by_postgres(self, where: dict[str, Any]) -> list[Match]:
        checked = checked_where(where)
        vector = self.services.embedder.embed(["rain"])[0]
        substitute = self.services.semantic_memory.substitute
        assert checked is not None
        assert substitute is not None
        return self.runner.run(substitute.search(TENANT, vector, len(METADATA), checked.meaning))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Both]:
    """Written as the service writes: a row each, and the index worker for Chroma."""

    async def fill(services: AppServices) -> None:
        raw = [{"content": f"rain {n}", "metadata": metadata} for n, metadata in enumerate(METADATA)]
        await services.memories.add(TENANT, raw)
        outcome = await indexer_of(services).step()
        assert (outcome.indexed, outcome.postponed, outcome.buried) == (len(METADATA), 0, 0)

    folder: Path = tmp_path_factory.mktemp("both")
    with chroma_server(folder / "chroma") as chroma, asyncio.Runner() as runner:
        services = services_of(runner, postgres.new_database(), chroma)
        runner.run(fill(services))
        yield Both(services, runner)
        runner.run(services.close())


KEYS = st.sampled_from(
    ["k", "k", "k", "s", "absent", "created_at", "k k", "k.k", "metadata", "'", "k' OR true --", "a\x00"]
)
TEXTS = st.sampled_from(["x", "X", "1", "true", "", "é", "e\u0301", "%", 'a"b\\c', "\U0001f327", "a\x00", "null"])
INTEGERS = st.sampled_from([0, 1, 2, -2, BIG, BIG + 1, 2**63 - 1, -(2**63), 1_700_000_000]) | st.integers(-3, 3)
FLOATS = st.sampled_from([0.0, -0.0, 1.0, 1.5, -0.5, 2.5, 0.999, -1.5, 1e-7, float(BIG), 1e300, -1e300, float(2**63)])
NUMBERS = INTEGERS | FLOATS
SCALARS = st.booleans() | TEXTS | NUMBERS


def one(keys: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda key, value: {key: value}, keys, values)


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=4)


OPERATIONS = (
    SCALARS
    | one(st.sampled_from(["$eq", "$ne", "$contains", "$not_contains"]), SCALARS)
    | one(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS)
    | one(
        st.sampled_from(["$in", "$nin"]),
        several(TEXTS) | several(INTEGERS) | several(FLOATS) | several(st.booleans()),
    )
)
WHERE = st.recursive(
    one(KEYS, OPERATIONS),
    lambda inner: one(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=2, max_size=3)),
    max_leaves=5,
)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(where=WHERE)
@example(where={"k": {"$eq": 1.5}})  # which an integer 1 "equals"
@example(where={"k": {"$gte": 1e300}})  # cut off at the greatest integer
@example(where={"k": {"$nin": ["x", "a\x00"]}})
def test_both_find_the_same(both: Both, where: dict[str, Any]) -> None:
    chroma = {match.id: match for match in both.by_chroma(where)}
    postgres = {match.id: match for match in both.by_postgres(where)}
    assert chroma.keys() == postgres.keys()
    for id_, match in chroma.items():
        other = postgres[id_]
        assert (match.content, match.metadata, match.created_at) == (other.content, other.metadata, other.created_at)
        assert (match.metric, match.collection) == (other.metric, other.collection)
        assert match.distance == pytest.approx(other.distance, abs=1e-6)
        assert match.score == pytest.approx(other.score, abs=1e-6)


def test_both_can_filter_by_time(both: Both) -> None:
    (first, *_) = both.by_postgres({"created_at": {"$gt": 0}})
    assert first.created_at is not None
    written = int(first.created_at.timestamp())
    for where, expected in (
        ({"created_at": {"$gte": written}}, True),
        ({"created_at": written}, True),
        ({"created_at": {"$gt": written + 60}}, False),
        ({"created_at": {"$lt": written}}, False),
    ):
        assert [len(found) > 0 for found in (both.by_chroma(where), both.by_postgres(where))] == [expected, expected]
