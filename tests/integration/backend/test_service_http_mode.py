"""uvicorn processes in http mode against real Chroma servers: swaps, crashes, hangs, many workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.embedding.hashing import HashingEmbedder
from app.core.memory.record import document_of, index_id
from app.core.memory.tenant import Kind
from support.ports import free_port
from support.servers import Server, chroma_server
from support.service import ANN, DIMENSION, Service, bearer, service
from support.stack import new_key, settings_of

RUN = "20261120T101500-0a1b2c"
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


def create(server: Server, name: str, documents: dict[str, str], **metadata: Any) -> str:
    """A collection made over the wire, as a migration would; its id."""
    headers = {"authorization": f"Bearer {server.token}"} if server.token else {}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False) as http:
        body = {"name": name, "metadata": {"hnsw:space": "cosine", **metadata}}
        key = str(http.post(COLLECTIONS, json=body).raise_for_status().json()["id"])
        http.post(
            f"{COLLECTIONS}/{key}/add",
            json={
                "ids": list(documents),
                "documents": list(documents.values()),
                "embeddings": HashingEmbedder(DIMENSION).embed(list(documents.values())).tolist(),
                "metadatas": [{"n": n, "created_at": 1} for n in range(len(documents))],
            },
        ).raise_for_status()
    return key


def rename(server: Server, key: str, name: str) -> None:
    httpx.put(server.url + COLLECTIONS + f"/{key}", json={"new_name": name}, trust_env=False).raise_for_status()


def create_own(server: Server, kind: Kind, *texts: str) -> str:
    """A collection of the tenant, as the index worker leaves it; its id."""
    raw = [{"content": text, "metadata": {}} for text in texts]
    records = {index_id(number): document_of(one) for number, one in enumerate(raw, start=1)}
    return create(server, ANN.collection(kind), records)


@dataclass(frozen=True)
class Ready:
    """A database with the tables, and a key of one tenant in it."""

    url: str
    key: str

    def settings(self, server: Server | int, **more: str) -> dict[str, str]:
        """Of a service that tells of Chroma's troubles, and serves all its collections."""
        port = server if isinstance(server, int) else server.port
        return settings_of(self.url, port, {"RAG_COLLECTIONS": "*", "SEARCH_DEGRADED": "false", **more})

    @contextmanager
    def service(self, folder: Path, server: Server | int, *, workers: int = 1, **more: str) -> Iterator[Service]:
        """The service, whose client sends the key."""
        with service(folder, self.settings(server, **more), workers=workers) as api:
            api.http.headers.update(bearer(self.key))
            yield api


@pytest.fixture
def ready(ready_url: str) -> Ready:
    return Ready(ready_url, new_key(ready_url, ANN))


def contents(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [result["content"] for result in response.json()["results"]]


def remembered(api: Service) -> list[str]:
    return contents(api.http.post("/memories/search", json={"query": "rain"}))


def until(check: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_a_swap_by_rename_is_seen_without_a_restart(tmp_path: Path, ready: Ready) -> None:
    with chroma_server(tmp_path / "chroma") as chroma:
        old = create(chroma, "notes", {"1": "old rain"})
        new = create(chroma, f"notes--m{RUN}", {"1": "new rain"})
        with ready.service(tmp_path, chroma, CHROMA_RESOLVE_SECONDS="0.5") as api:
            assert contents(api.rag("rain")) == ["old rain"]
            rename(chroma, old, f"notes--before-{RUN}")
            # Nobody has the name now. For longer than the clock runs, the old one goes on being served.
            for _ in range(8):
                assert contents(api.rag("rain")) == ["old rain"]
                assert contents(api.rag("rain", collections=["notes"])) == ["old rain"]
                time.sleep(0.1)
            rename(chroma, new, "notes")
            until(lambda: contents(api.rag("rain")) == ["new rain"])
            assert api.chroma_health().json()["collections"] == {"notes": 1}


def test_a_collection_that_was_deleted_and_made_again_is_found_at_once(tmp_path: Path, ready: Ready) -> None:
    with chroma_server(tmp_path / "chroma") as chroma:
        create_own(chroma, "memory", "first rain")
        create(chroma, "notes", {"1": "first rain"})
        with ready.service(tmp_path, chroma, CHROMA_RESOLVE_SECONDS="3600") as api:
            search = partial(remembered, api)
            assert search() == ["first rain"]
            assert contents(api.rag("rain")) == ["first rain"]
            for name in (ANN.collection("memory"), "notes"):
                httpx.delete(f"{chroma.url}{COLLECTIONS}/{name}", trust_env=False).raise_for_status()
            assert search() == []
            assert contents(api.rag("rain")) == []
            assert api.rag("rain", collections=["notes"]).status_code == 404
            create_own(chroma, "memory", "second rain")
            create(chroma, "notes", {"1": "second rain"})
            assert search() == ["second rain"]
            assert contents(api.rag("rain", collections=["notes"])) == ["second rain"]


def test_starts_before_chroma_and_survives_its_death(tmp_path: Path, ready: Ready) -> None:
    port = free_port()
    with ready.service(tmp_path, port) as api:
        problem = api.chroma_health()
        assert problem.status_code == 503
        assert "cannot be reached" in problem.json()["detail"]
        with chroma_server(tmp_path / "chroma", port=port) as chroma:
            create(chroma, "notes", {"1": "some rain"})
            assert api.chroma_health().status_code == 200
            assert contents(api.rag("rain")) == ["some rain"]
            chroma.kill()
            problem = api.rag("rain")
            assert problem.status_code == 503
            assert problem.headers["content-type"] == "application/problem+json"
            assert api.chroma_health().status_code == 503
            assert api.http.get("/health").status_code == 200
        with chroma_server(tmp_path / "chroma", port=port):
            assert contents(api.rag("rain")) == ["some rain"]
            assert api.chroma_health().json()["document_count"] == 1
        assert api.process.running
        assert "Traceback" not in api.process.text()


def test_no_request_fails_but_with_a_clear_503_while_chroma_dies_and_returns(tmp_path: Path, ready: Ready) -> None:
    port = free_port()
    with chroma_server(tmp_path / "chroma", port=port) as chroma:
        create(chroma, "notes", {str(n): f"rain number {n}" for n in range(200)})
        with (
            ready.service(tmp_path, chroma, CHROMA_RESOLVE_SECONDS="0.2", workers=2) as api,
            ThreadPoolExecutor(8) as pool,
        ):
            over = time.monotonic() + 4
            results = [pool.submit(hammer, api, over) for _ in range(8)]
            time.sleep(1)
            chroma.kill()
            time.sleep(0.5)
            with chroma_server(tmp_path / "chroma", port=port):
                statuses = [status for result in results for status in result.result()]
                assert set(statuses) == {200, 503}
                for _ in range(20):
                    assert api.rag("rain").status_code == 200


def hammer(api: Service, until_time: float) -> list[int]:
    statuses = []
    with httpx.Client(base_url=api.url, headers=api.http.headers, timeout=30, trust_env=False) as http:
        while time.monotonic() < until_time:
            statuses.append(http.post("/rag/query", json={"query": "rain"}).status_code)
    return statuses


def test_a_chroma_that_hangs_is_told_and_leaves_health_alive(tmp_path: Path, ready: Ready) -> None:
    with chroma_server(tmp_path / "chroma") as chroma:
        create(chroma, "notes", {"1": "some rain"})
        with ready.service(tmp_path, chroma, CHROMA_TIMEOUT_SECONDS="5", CHROMA_THREADS="2") as api:
            assert contents(api.rag("rain")) == ["some rain"]
            os.kill(chroma.pid, signal.SIGSTOP)
            try:
                with ThreadPoolExecutor(40) as pool:
                    waiting = [pool.submit(api.rag, "rain") for _ in range(40)]
                    assert api.http.get("/health").status_code == 200
                    problems = [response.result().json() for response in waiting]
                assert api.chroma_health().json()["type"].endswith("chroma-timeout")
            finally:
                os.kill(chroma.pid, signal.SIGCONT)
            kinds = {problem["type"].removeprefix("urn:chroma-stack:problem:") for problem in problems}
            assert kinds <= {"chroma-timeout", "overloaded"}
            until(lambda: api.rag("rain").status_code == 200)


def test_many_workers_share_one_server(tmp_path: Path, ready: Ready) -> None:
    with chroma_server(tmp_path / "chroma") as chroma:
        create(chroma, "notes", {str(n): f"rain number {n}" for n in range(50)})
        with (
            ready.service(tmp_path, chroma, workers=4) as api,
            ThreadPoolExecutor(16) as pool,
        ):
            answers = list(pool.map(lambda n: contents(api.rag(f"number {n}", limit=1)), [*range(50)] * 8))
            assert answers == [[f"rain number {n}"] for n in range(50)] * 8


def test_stops_gracefully_and_finishes_what_it_began(tmp_path: Path, ready: Ready) -> None:
    with chroma_server(tmp_path / "chroma") as chroma:
        create(chroma, "notes", {"1": "some rain"})
        with ready.service(tmp_path, chroma, CHROMA_TIMEOUT_SECONDS="10") as api:
            assert api.rag("rain").status_code == 200
            os.kill(chroma.pid, signal.SIGSTOP)
            with ThreadPoolExecutor(1) as pool:
                begun = pool.submit(api.rag, "rain")
                until(lambda: "POST /rag/query" in api.process.text())
                time.sleep(0.3)
                api.process.popen.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                os.kill(chroma.pid, signal.SIGCONT)
                assert contents(begun.result()) == ["some rain"]
            assert api.process.wait(60) in (0, -signal.SIGTERM)
            assert "Traceback" not in api.process.text()


def test_searches_a_legacy_server_with_its_own_token(tmp_path: Path, ready: Ready) -> None:
    with chroma_server(tmp_path / "legacy", version="0.6.3", token="s3cret-token") as legacy:
        create(legacy, "notes", {"1": "old rain", "2": "old sun"})
        create(legacy, "tales", {"1": "a tale of rain"})
        token = tmp_path / "token"
        token.write_text("s3cret-token\n")
        with ready.service(tmp_path, legacy, CHROMA_AUTH_TOKEN_FILE=str(token)) as api:
            health = api.chroma_health().json()
            assert health["collections"] == {"notes": 2, "tales": 1}
            results = api.rag("rain", limit=3).json()["results"]
            assert {r["content"] for r in results} == {"old rain", "old sun", "a tale of rain"}
            assert {r["metric"] for r in results} == {"cosine"}  # though the server's configuration says l2
            assert contents(api.rag("rain", where={"n": {"$gt": 0}})) == ["old sun"]
            assert api.rag("rain", where={"n": {"$contains": "x"}}).status_code == 400
            assert api.rag("rain", collections=["absent"]).status_code == 404
            assert api.http.post("/memories/search", json={"query": "x"}).json()["results"] == []
        token.write_text("wrong-token\n")
        with ready.service(tmp_path, legacy, CHROMA_AUTH_TOKEN_FILE=str(token)) as api:
            problem = api.chroma_health()
            assert problem.status_code == 503
            assert problem.json()["type"].endswith("chroma-refused-token")
            token.write_text("s3cret-token\n")
            assert api.chroma_health().status_code == 200
        assert "s3cret-token" not in api.process.text()
        assert "wrong-token" not in api.process.text()


def test_a_cut_over_from_the_legacy_server_behind_one_address_is_followed(tmp_path: Path, ready: Ready) -> None:
    """The pointer moves: the same address is another server, with other ids, from one request to the next."""
    port = free_port()
    with chroma_server(tmp_path / "blue", port=port, version="0.6.3") as blue:
        create(blue, "notes", {"1": "legacy rain"})
        with ready.service(tmp_path, blue, CHROMA_RESOLVE_SECONDS="3600") as api:
            assert contents(api.rag("rain")) == ["legacy rain"]
            blue.stop()
            with chroma_server(tmp_path / "green", port=port) as green:
                create(green, "notes", {"1": "migrated rain"})
                assert contents(api.rag("rain")) == ["migrated rain"]
            with chroma_server(tmp_path / "blue", port=port, version="0.6.3"):
                assert contents(api.rag("rain")) == ["legacy rain"]


@pytest.mark.parametrize("variables", [{"CHROMA_DATABASE": "production"}, {"CHROMA_TENANT": "acme"}])
def test_a_tenant_or_database_that_does_not_exist_is_told(
    tmp_path: Path, ready: Ready, variables: dict[str, Any]
) -> None:
    with chroma_server(tmp_path / "chroma") as chroma, ready.service(tmp_path, chroma, **variables) as api:
        problem = api.chroma_health()
        assert problem.status_code == 503
        assert "CHROMA_DATABASE" in problem.json()["hint"]
