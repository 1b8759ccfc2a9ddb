"""Chroma is down or hangs: PostgreSQL answers instead, in the same form, and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.embedding.hashing import HashingEmbedder
from support.postgres import Postgres
from support.servers import Server
from support.service import ANN, DIMENSION
from support.stack import BOB, Stack, stack

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
LINES = ["rain in the morning", "snow in the evening", "rain, snow and sun", "nothing of the weather"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Stack]:
    """Two tenants with memories and a document each, and a shared collection. Chroma is up when a test begins."""
    folder = tmp_path_factory.mktemp("degraded")
    variables = {"RAG_COLLECTIONS": "shared", "SEARCH_TIMEOUT_SECONDS": "30", "CHROMA_TIMEOUT_SECONDS": "30"}
    with stack(folder, postgres, variables) as running:
        share(running.chroma, "shared", ["rain for everybody"])
        for tenant in (ANN, BOB):
            client = running.of(tenant)
            for number, line in enumerate(LINES):
                body = {"content": f"{line} of {tenant.user_id}", "metadata": {"n": number, "even": number % 2 == 0}}
                client.post("/memories", json=body).raise_for_status()
            body = {"content": "rain of a document", "source": "almanac.md", "metadata": {"n": 1.5}}
            client.post("/rag/documents", json=body).raise_for_status()
        running.index()
        yield running


def share(chroma: Server, name: str, texts: list[str]) -> None:
    with httpx.Client(base_url=chroma.url, timeout=30, trust_env=False) as http:
        body = {"name": name, "metadata": {"hnsw:space": "cosine"}}
        key = http.post(COLLECTIONS, json=body).raise_for_status().json()["id"]
        http.post(
            f"{COLLECTIONS}/{key}/add",
            json={
                "ids": [str(n) for n in range(len(texts))],
                "documents": texts,
                "embeddings": HashingEmbedder(DIMENSION).embed(texts).tolist(),
                "metadatas": [{"language": "en"}] * len(texts),
            },
        ).raise_for_status()


SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("/memories/search", {"query": "rain", "limit": 3}),
    ("/memories/search", {"query": "rain", "where": {"n": {"$lt": 2}}}),
    ("/memories/search", {"query": "rain", "where": {"$or": [{"even": True}, {"n": {"$gte": 3}}]}}),
    ("/memories/search", {"query": "rain", "where": {"created_at": {"$gt": 0}}}),
    ("/rag/query", {"query": "rain", "collections": [], "own": True}),
    ("/rag/query", {"query": "rain", "collections": [], "own": True, "where": {"source": "almanac.md"}}),
]


def comparable(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: pytest.approx(value, abs=1e-6) if key in ("distance", "score") else value for key, value in one.items()}
        for one in answer["results"]
    ]


def ask(client: httpx.Client, path: str, body: dict[str, Any], degraded: bool) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert answer["degraded"] is degraded
    return answer


@pytest.fixture
def without_chroma(filled: Stack) -> Iterator[Callable[[], None]]:
    """A function that ends Chroma; it is back when the test is over."""
    yield filled.chroma.kill
    if not filled.chroma.process.running:
        filled.chroma.process.start()
        filled.chroma.process.wait_until(lambda: answers_again(filled))


def answers_again(filled: Stack) -> bool:
    return filled.api.chroma_health().status_code == 200


def test_the_same_is_found_without_chroma(filled: Stack, without_chroma: Callable[[], None]) -> None:
    before = [ask(filled.of(), path, body, degraded=False) for path, body in SEARCHES]
    assert all(answer["results"] for answer in before)
    without_chroma()
    for (path, body), expected in zip(SEARCHES, before, strict=True):
        answer = ask(filled.of(), path, body, degraded=True)
        assert answer["results"] == comparable(expected)
        assert answer.keys() == expected.keys()
        assert "bob" not in str(answer)


def test_what_was_written_meanwhile_waits_for_the_index(filled: Stack, without_chroma: Callable[[], None]) -> None:
    without_chroma()
    written = filled.of().post("/memories", json={"content": "hail at noon"})
    assert written.status_code == 201
    found = ask(filled.of(), "/memories/search", {"query": "hail at noon"}, degraded=True)
    assert written.json()["id"] not in [one["memory_id"] for one in found["results"]]
    filled.of().delete(f"/memories/{written.json()['id']}").raise_for_status()


def test_shared_collections_are_chromas_alone(filled: Stack, without_chroma: Callable[[], None]) -> None:
    client = filled.of()
    everywhere = ask(client, "/rag/query", {"query": "rain"}, degraded=False)
    assert {one["collection"] for one in everywhere["results"]} == {None, "shared"}
    assert everywhere["note"] is None
    without_chroma()
    own = ask(client, "/rag/query", {"query": "rain"}, degraded=True)
    assert [one["collection"] for one in own["results"]] == [None]
    assert "only your own" in own["note"]
    assert ask(client, "/rag/query", {"query": "rain", "collections": [], "own": True}, degraded=True)["note"] is None
    named = client.post("/rag/query", json={"query": "rain", "collections": ["shared"]})
    assert named.status_code == 503
    assert named.json()["type"].endswith("chroma-unavailable")
    assert named.headers["retry-after"]


def test_a_filter_is_refused_all_the_same(filled: Stack, without_chroma: Callable[[], None]) -> None:
    without_chroma()
    for where in ({"n": {"$foo": 1}}, {"n'": {"$gt": "'; DROP TABLE memory_logs; --"}}, {"#document": "x"}):
        assert filled.of().post("/memories/search", json={"query": "rain", "where": where}).status_code == 400
    strange = {"n' OR true --": {"$nin": ["') OR true --"]}}
    assert len(ask(filled.of(), "/memories/search", {"query": "rain", "where": strange}, degraded=True)["results"]) == 4


def test_while_chroma_hangs_everybody_is_answered_by_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    with stack(tmp_path, postgres, {"SEARCH_TIMEOUT_SECONDS": "0.5", "CHROMA_TIMEOUT_SECONDS": "600"}) as running:
        client = running.of()
        client.post("/memories", json={"content": "rain"}).raise_for_status()
        running.index()
        running.chroma.pause()
        try:
            with ThreadPoolExecutor(40) as pool:
                searches = [pool.submit(ask, client, "/memories/search", {"query": "rain"}, True) for _ in range(80)]
                assert all(len(search.result()["results"]) == 1 for search in searches)
            assert running.api.http.get("/health/ready").json()["chroma"] == "down"
        finally:
            running.chroma.resume()
        running.chroma.process.wait_until(
            lambda: not client.post("/memories/search", json={"query": "rain"}).json()["degraded"]
        )
        assert running.api.http.get("/health/ready").json()["chroma"] == "up"


def test_degraded_search_can_be_switched_off(tmp_path: Path, postgres: Postgres) -> None:
    with stack(tmp_path, postgres, {"SEARCH_DEGRADED": "false", "CHROMA_TIMEOUT_SECONDS": "30"}) as running:
        client = running.of()
        client.post("/memories", json={"content": "rain"}).raise_for_status()
        client.post("/rag/documents", json={"content": "rain", "source": "almanac.md"}).raise_for_status()
        running.index()
        for path in ("/memories/search", "/rag/query"):
            assert len(ask(client, path, {"query": "rain"}, degraded=False)["results"]) == 1
        assert running.api.http.get("/health/ready").json()["status"] == "ready"
        running.chroma.kill()
        for path in ("/memories/search", "/rag/query"):
            response = client.post(path, json={"query": "rain"})
            assert response.status_code == 503
            assert response.json()["type"].endswith("chroma-unavailable")
        ready = running.api.http.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["type"].endswith("chroma-unavailable")
        assert client.post("/memories", json={"content": "more rain"}).status_code == 201
