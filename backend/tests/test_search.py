"""Search over real directories in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from support.service import Serve, chroma_client, fill

RUN = "20261120T101500-0a1b2c"
WEATHER = {
    "w1": ("cold rain today", {"language": "en", "line": 1}),
    "w2": ("rain again and again", {"language": "en", "line": 2}),
    "w3": ("lluvia fría hoy", {"language": "es", "line": 3}),
}
TAXES = {"t1": ("income tax return", {"language": "en"}), "t2": ("tax on rain barrels", {"language": "en"})}


@pytest.fixture
def rag(tmp_path: Path) -> Path:
    fill(tmp_path / "rag", "weather", WEATHER)
    fill(tmp_path / "rag", "taxes", TAXES)
    fill(tmp_path / "rag", f"weather--m{RUN}", {"staged": ("rain", {"staged": True})})
    fill(tmp_path / "rag", f"weather--before-{RUN}", {"before": ("rain", {"before": True})})
    return tmp_path / "rag"


def ids(client: TestClient, path: str = "/rag/query", **body: object) -> list[str]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return [result["id"] for result in response.json()["results"]]


@pytest.mark.usefixtures("rag")
def test_health_counts_what_is_served(serve: Serve, tmp_path: Path) -> None:
    fill(tmp_path / "memory", "memories", WEATHER)
    with serve() as client:
        health = client.get("/health").json()
        assert health == {
            "status": "healthy",
            "service": "chroma-stack-api",
            "version": health["version"],
            "embedding_provider": "hashing",
        }
        chroma = client.get("/health/chromadb").json()
    assert chroma["latency_ms"] > 0
    assert chroma == {
        "status": "healthy",
        "mode": "persistent",
        "document_count": 8,
        "collections": {"memories": 3, "taxes": 2, "weather": 3},
        "missing": [],
        "latency_ms": chroma["latency_ms"],
    }


@pytest.mark.usefixtures("rag")
def test_merges_the_collections_by_distance_and_never_searches_work_collections(serve: Serve) -> None:
    with serve() as client:
        body = client.post("/rag/query", json={"query": "rain again and again", "limit": 100}).json()
    results = body["results"]
    assert {r["id"] for r in results} == {"w1", "w2", "w3", "t1", "t2"}
    assert results[0]["id"] == "w2"
    distances = [r["distance"] for r in results]
    assert distances == sorted(distances)
    assert all(r["metric"] == "cosine" and r["score"] == pytest.approx(1 - r["distance"]) for r in results)
    assert body["took_ms"] > 0
    best = results[0]
    assert (best["collection"], best["document"]) == ("weather", "rain again and again")
    assert best["metadata"] == {"language": "en", "line": 2}


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


@pytest.mark.parametrize("name", ["nowhere", f"weather--m{RUN}", f"weather--before-{RUN}", "../..", "\x00", "memories"])
@pytest.mark.usefixtures("rag")
def test_an_unknown_or_unserved_collection_is_404(serve: Serve, name: str) -> None:
    with serve() as client:
        response = client.post("/rag/query", json={"query": "rain", "collections": ["taxes", name]})
    assert response.status_code == 404
    assert response.json()["type"] == "urn:chroma-stack:problem:unknown-collection"


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
        assert ids(client, "/memories/search", query="rain") == []
    fill(tmp_path / "memory", "memories", WEATHER)
    with serve() as client:
        assert ids(client, "/memories/search", query="rain again", limit=1) == ["w2"]
        assert ids(client, "/memories/search", query="rain", where={"line": {"$lte": 1}}) == ["w1"]


def test_one_directory_for_both_is_opened_once(serve: Serve, tmp_path: Path) -> None:
    fill(tmp_path / "both", "memories", WEATHER)
    fill(tmp_path / "both", "taxes", TAXES)
    (tmp_path / "alias").symlink_to(tmp_path / "both")
    with serve(chroma_db_path=tmp_path / "both", chroma_persist_dir=tmp_path / "alias") as client:
        assert client.get("/health/chromadb").json()["collections"] == {"memories": 3, "taxes": 2}
        assert set(ids(client, query="rain")) == {"t1", "t2"}  # memories are no passages
        assert ids(client, "/memories/search", query="cold rain today", limit=1) == ["w1"]


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
    with serve() as client:
        response = client.post("/rag/query", json={"query": "rain"})
        assert response.status_code == 409
        assert response.json()["type"] == "urn:chroma-stack:problem:mixed-metrics"
        assert "euclid (l2)" in response.json()["detail"]
        alone = client.post("/rag/query", json={"query": "rain", "collections": ["euclid"]}).json()
    assert {r["metric"] for r in alone["results"]} == {"l2"}
    assert all(0 < r["score"] <= 1 for r in alone["results"])


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
    with serve() as client:
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
