"""Search over real directories in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core.chroma.resolver import is_work_collection
from app.core.memory.tenant import Tenant
from support.service import ANN, WRITTEN, Serve, chroma_client, fill, remember

RUN = "20261120T101500-0a1b2c"
WEATHER = {
    "w1": ("cold rain today", {"language": "en", "line": 1}),
    "w2": ("rain again and again", {"language": "en", "line": 2, "source": "log"}),
    "w3": ("lluvia fría hoy", {"language": "es", "line": 3}),
}
TAXES = {"t1": ("income tax return", {"language": "en"}), "t2": ("tax on rain barrels", {"language": "en"})}
DOCUMENT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
MEMORIES = [
    {"content": "cold rain today", "metadata": {"line": 1, "note": None, "ratio": 0.1}},
    {"content": "rain again and again", "metadata": {"line": 2, "ratio": 1.0}},
]
PASSAGES = [
    {"content": text, "metadata": {"line": 7, "document_id": DOCUMENT, "source": "almanac.md", "passage": position}}
    for position, text in enumerate(["rain of my own", "snow of my own"])
]


@pytest.fixture
def rag(tmp_path: Path) -> Path:
    fill(tmp_path / "rag", "weather", WEATHER)
    fill(tmp_path / "rag", "taxes", TAXES)
    fill(tmp_path / "rag", f"weather--m{RUN}", {"staged": ("rain", {"staged": True})})
    fill(tmp_path / "rag", f"weather--before-{RUN}", {"before": ("rain", {"before": True})})
    return tmp_path / "rag"


def found(client: TestClient, path: str = "/rag/query", **body: object) -> list[dict[str, Any]]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["degraded"] is False
    results: list[dict[str, Any]] = answer["results"]
    return results


def ids(client: TestClient, **body: Any) -> list[str]:
    return [result["id"] for result in found(client, **body)]


def memory_ids(client: TestClient, **body: Any) -> list[int]:
    return [result["memory_id"] for result in found(client, "/memories/search", **body)]


@pytest.mark.usefixtures("rag")
def test_health_counts_what_is_there_and_names_what_is_shared(serve: Serve, tmp_path: Path) -> None:
    remember(tmp_path / "memory", "memory", MEMORIES)
    remember(tmp_path / "rag", "passage", PASSAGES)
    with serve() as client:
        health = client.get("/health").json()
        assert health == {
            "status": "healthy",
            "service": "chroma-stack-api",
            "version": health["version"],
            "embedding_provider": "hashing",
        }
        response = client.get("/health/chromadb")
        chroma = response.json()
    assert chroma["latency_ms"] > 0
    assert chroma == {
        "status": "healthy",
        "mode": "persistent",
        "document_count": 9,
        "collections": {"taxes": 2, "weather": 3},
        "tenant_collections": 2,
        "missing": [],
        "latency_ms": chroma["latency_ms"],
    }
    assert "ann" not in response.text


@pytest.mark.usefixtures("rag")
def test_merges_the_collections_by_distance_and_never_searches_work_collections(serve: Serve) -> None:
    assert is_work_collection(f"weather--m{RUN}")
    with serve() as client:
        body = client.post("/rag/query", json={"query": "rain again and again", "limit": 100}).json()
    results = body["results"]
    assert {r["id"] for r in results} == {"w1", "w2", "w3", "t1", "t2"}
    distances = [r["distance"] for r in results]
    assert distances == sorted(distances)
    assert all(r["metric"] == "cosine" and r["score"] == pytest.approx(1 - r["distance"]) for r in results)
    assert (body["took_ms"] > 0, body["note"]) == (True, None)
    best = results[0]
    assert best == {
        "id": "w2",
        "collection": "weather",
        "content": "rain again and again",
        "metadata": {"language": "en", "line": 2, "source": "log"},
        "source": "log",
        "document_id": None,
        "passage": None,
        "created_at": None,
        "distance": pytest.approx(0, abs=1e-6),
        "metric": "cosine",
        "score": pytest.approx(1, abs=1e-6),
    }


@pytest.mark.usefixtures("rag")
def test_own_passages_come_as_they_were_given(serve: Serve, tmp_path: Path) -> None:
    remember(tmp_path / "rag", "passage", PASSAGES)
    remember(tmp_path / "rag", "passage", PASSAGES, Tenant("bob", "first"))
    with serve() as client:
        (best,) = found(client, query="rain of my own", limit=1)
        assert best == {
            "id": "1",
            "collection": None,
            "content": "rain of my own",
            "metadata": {"line": 7},
            "source": "almanac.md",
            "document_id": DOCUMENT,
            "passage": 0,
            "created_at": "2026-11-20T10:15:00Z",
            "distance": pytest.approx(0, abs=1e-6),
            "metric": "cosine",
            "score": pytest.approx(1, abs=1e-6),
        }
        assert len(ids(client, query="rain", limit=100)) == 7
        assert ids(client, query="rain", where={"passage": 1}) == ["2"]
        assert set(ids(client, query="rain", where={"document_id": DOCUMENT})) == {"1", "2"}
        assert set(ids(client, query="rain", where={"created_at": {"$gte": int(WRITTEN.timestamp())}})) == {"1", "2"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, {"w1", "w2", "w3", "t1", "t2", "1", "2"}),
        ({"own": False}, {"w1", "w2", "w3", "t1", "t2"}),
        ({"collections": ["taxes"]}, {"t1", "t2"}),
        ({"collections": ["taxes"], "own": True}, {"t1", "t2", "1", "2"}),
        ({"collections": [], "own": True}, {"1", "2"}),
    ],
)
@pytest.mark.usefixtures("rag")
def test_searches_where_it_is_told_to(
    serve: Serve, tmp_path: Path, where: Mapping[str, Any], expected: set[str]
) -> None:
    remember(tmp_path / "rag", "passage", PASSAGES)
    with serve() as client:
        assert set(ids(client, query="rain", limit=100, **where)) == expected


@pytest.mark.parametrize("body", [{"collections": []}, {"collections": [], "own": False}])
def test_a_search_of_nothing_is_a_mistake(serve: Serve, body: dict[str, object]) -> None:
    with serve() as client:
        response = client.post("/rag/query", json={"query": "rain", **body})
    assert response.status_code == 422
    assert "nothing is to be searched" in response.json()["detail"]


@pytest.mark.usefixtures("rag")
def test_limits_names_and_filters(serve: Serve) -> None:
    with serve() as client:
        assert len(ids(client, query="rain", limit=2)) == 2
        assert set(ids(client, query="rain", collections=["taxes", "taxes"])) == {"t1", "t2"}
        assert ids(client, query="rain", where={"language": "es"}) == ["w3"]
        assert ids(client, query="rain", where={"$and": [{"language": "en"}, {"line": {"$gt": 1}}]}) == ["w2"]
        assert ids(client, query="rain", where={}) != []
        assert ids(client, query="rain", where={"language": "no such"}) == []


@pytest.mark.usefixtures("rag")
def test_serves_only_the_configured_collections(serve: Serve) -> None:
    with serve(rag_collections="taxes") as client:
        assert set(ids(client, query="rain")) == {"t1", "t2"}
        assert client.get("/health/chromadb").json()["collections"] == {"taxes": 2}
        response = client.post("/rag/query", json={"query": "rain", "collections": ["weather"]})
        assert response.status_code == 404
    with serve(rag_collections="") as client:
        assert ids(client, query="rain") == []


@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        f"weather--m{RUN}",
        f"weather--before-{RUN}",
        "../..",
        "\x00",
        "",
        "*",
        ANN.collection("passage"),
        ANN.collection("memory"),
        Tenant("bob", "first").collection("passage"),
    ],
)
@pytest.mark.usefixtures("rag")
def test_an_unknown_or_unserved_collection_is_404(serve: Serve, tmp_path: Path, name: str) -> None:
    remember(tmp_path / "rag", "passage", PASSAGES)
    remember(tmp_path / "rag", "passage", PASSAGES, Tenant("bob", "first"))
    with serve() as client:
        response = client.post("/rag/query", json={"query": "rain", "collections": ["taxes", name]})
    assert response.status_code == 404
    assert response.json()["type"] == "urn:chroma-stack:problem:unknown-collection"


def test_no_setting_serves_a_tenants_collection_to_all(serve: Serve, tmp_path: Path) -> None:
    bobs = Tenant("bob", "first")
    remember(tmp_path / "rag", "passage", PASSAGES, bobs)
    with serve(rag_collections=f"*,{bobs.collection('passage')}") as client:
        assert found(client, query="rain") == []
        assert client.get("/health/chromadb").json()["collections"] == {}


@pytest.mark.usefixtures("rag")
def test_a_configured_collection_that_is_missing_is_the_services_problem(serve: Serve) -> None:
    with serve(rag_collections="taxes,absent") as client:
        response = client.post("/rag/query", json={"query": "rain"})
        health = client.get("/health/chromadb").json()
    assert response.status_code == 503
    assert response.json()["type"] == "urn:chroma-stack:problem:collection-missing"
    assert "absent" in response.json()["detail"]
    assert (health["status"], health["missing"], health["collections"]) == ("degraded", ["absent"], {"taxes": 2})


def test_memory_is_empty_before_it_exists_and_filled_after(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        assert memory_ids(client, query="rain") == []
    remember(tmp_path / "memory", "memory", MEMORIES)
    with serve() as client:
        (best,) = found(client, "/memories/search", query="cold rain today", limit=1)
        assert best == {
            "memory_id": 1,
            "content": "cold rain today",
            "metadata": {"line": 1, "note": None, "ratio": 0.1},
            "created_at": "2026-11-20T10:15:00Z",
            "distance": pytest.approx(0, abs=1e-6),
            "metric": "cosine",
            "score": pytest.approx(1, abs=1e-6),
        }
        assert memory_ids(client, query="rain", where={"line": {"$gt": 1}}) == [2]
        text = client.post("/memories/search", json={"query": "rain"}).text
        assert '"ratio":1.0' in text  # a float stays one
        assert "mem." not in text


def test_a_memory_of_another_tenant_is_not_there(serve: Serve, tmp_path: Path) -> None:
    remember(tmp_path / "memory", "memory", MEMORIES, Tenant("ab", "c"))
    with serve(tenant=Tenant("a", "bc")) as client:
        assert memory_ids(client, query="rain") == []
    with serve(tenant=Tenant("ab", "c")) as client:
        assert set(memory_ids(client, query="rain")) == {1, 2}


def test_a_record_that_the_service_did_not_write_is_left_out(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange = {"stranger": ("no JSON", {"a": 1}), "memory_log_x": ("{}", {"a": 1}), "memory_log_7": ("[]", {"a": 1})}
    fill(tmp_path / "memory", ANN.collection("memory"), strange)
    with serve() as client:
        assert memory_ids(client, query="rain") == []
    assert caplog.text.count("holds a record that is no memory of this service") == 3


def test_one_directory_for_both_is_opened_once(serve: Serve, tmp_path: Path) -> None:
    remember(tmp_path / "both", "memory", MEMORIES)
    fill(tmp_path / "both", "taxes", TAXES)
    (tmp_path / "alias").symlink_to(tmp_path / "both")
    with serve(chroma_db_path=tmp_path / "both", chroma_persist_dir=tmp_path / "alias") as client:
        health = client.get("/health/chromadb").json()
        assert (health["collections"], health["document_count"]) == ({"taxes": 2}, 4)
        assert set(ids(client, query="rain")) == {"t1", "t2"}  # memories are no passages
        assert memory_ids(client, query="cold rain today", limit=1) == [1]


def test_refuses_to_compare_vectors_of_different_dimension(serve: Serve, tmp_path: Path) -> None:
    fill(tmp_path / "rag", "narrow", TAXES, dimension=8)
    with serve() as client:
        response = client.post("/rag/query", json={"query": "rain"})
    assert response.status_code == 409
    problem = response.json()
    assert problem["type"] == "urn:chroma-stack:problem:dimension-mismatch"
    assert "narrow has vectors of dimension 8" in problem["detail"]
    assert "EMBEDDING_DIMENSION" in problem["hint"]


@pytest.mark.usefixtures("rag")
def test_refuses_to_merge_different_metrics(serve: Serve, tmp_path: Path) -> None:
    fill(tmp_path / "rag", "euclid", TAXES, space="l2")
    remember(tmp_path / "rag", "passage", PASSAGES)
    with serve() as client:
        response = client.post("/rag/query", json={"query": "rain"})
        assert response.status_code == 409
        assert response.json()["type"] == "urn:chroma-stack:problem:mixed-metrics"
        assert "euclid (l2)" in response.json()["detail"]
        assert "rag." not in response.text
        alone = found(client, query="rain", collections=["euclid"])
        assert set(ids(client, query="rain", collections=[], own=True)) == {"1", "2"}
    assert {r["metric"] for r in alone} == {"l2"}
    assert all(0 < r["score"] <= 1 for r in alone)


def test_sees_a_new_collection_at_once_when_it_is_named(serve: Serve, tmp_path: Path) -> None:
    with serve(chroma_resolve_seconds=3600) as client:
        assert ids(client, query="rain") == []
        other = chroma_client(tmp_path / "rag")  # the same process: shares the open directory
        other.create_collection("late", embedding_function=None)
        assert ids(client, query="rain", collections=["late"]) == []
        other.close()


def test_a_directory_that_is_no_database_says_so(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "rag").mkdir()
    (tmp_path / "rag" / "chroma.sqlite3").write_bytes(b"this is not a database" * 1000)
    with serve(search_degraded=False) as client:
        response = client.get("/health/chromadb")
        assert response.status_code == 503
        assert str(tmp_path / "rag") in response.json()["detail"]
        assert client.post("/rag/query", json={"query": "rain"}).status_code == 503
        assert client.get("/health").status_code == 200
    assert (tmp_path / "rag" / "chroma.sqlite3").read_bytes() == b"this is not a database" * 1000


def test_a_database_that_does_not_exist_is_not_an_empty_one(serve: Serve) -> None:
    with serve(chroma_database="production") as client:
        response = client.get("/health/chromadb")
    assert response.status_code == 503
    assert "no database production" in response.json()["detail"]
