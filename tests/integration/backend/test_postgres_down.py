"""PostgreSQL is away, or hangs: a clear 503 for each who needs it, and all is well again without a restart."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.postgres import Postgres
from support.process import children
from support.stack import Stack, stack

HEALTHY_SECONDS = 30.0


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One that the tests of this module may stop; it runs when a test begins."""
    with Postgres(tmp_path_factory.mktemp("own-postgres") / "data").running() as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, own_postgres: Postgres) -> Iterator[Stack]:
    variables = {"DATABASE_TIMEOUT_SECONDS": "1", "API_KEY_CACHE_SECONDS": "0", "DATABASE_POOL_SIZE": "4"}
    with stack(tmp_path_factory.mktemp("down"), own_postgres, variables) as made:
        made.of().post("/memories", json={"content": "rain"}).raise_for_status()
        yield made


def requests_of(page: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """A valid request for each route that says it needs PostgreSQL: method, path, body."""
    found = []
    for path, methods in page["paths"].items():
        filled = path.format(memory_id=1, document_id="7c9e6679-7425-40de-944b-e07fc1f90ae7") if "{" in path else path
        for method, operation in methods.items():
            problems = operation["responses"].get("503", {}).get("content", {}).get("application/problem+json", {})
            if "database-unavailable" not in problems.get("examples", {}):
                continue
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            examples = list(body.get("examples", {}).values())
            found.append((method.upper(), filled, examples[0]["value"] if examples else None))
    return found


def is_unavailable(response: httpx.Response) -> bool:
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) > 0
    kind = str(response.json()["type"]).removeprefix("urn:chroma-stack:problem:")
    assert kind in ("database-unavailable", "overloaded"), response.text
    return bool(kind == "database-unavailable")


def healthy_again(api: Stack) -> None:
    """Waits until it is ready, and sees that everything works."""
    until(lambda: api.api.http.get("/health/ready").status_code == 200)
    assert api.of().post("/memories", json={"content": "more rain"}).status_code == 201
    assert api.of().get("/memories/1").json()["content"] == "rain"
    assert api.api.process.running


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HEALTHY_SECONDS
    while not check():
        assert time.monotonic() < deadline, "not healthy in time"
        time.sleep(0.05)


def test_every_route_that_needs_it_says_so_while_it_is_away(running: Stack, own_postgres: Postgres) -> None:
    wanted = requests_of(running.page)
    assert len(wanted) >= 12
    client = running.of()
    assert running.api.http.get("/health/ready").json() == {
        "status": "ready",
        "database": "up",
        "chroma": "up",
        "detail": None,
    }
    own_postgres.stop()
    try:
        for method, path, body in wanted * 2:
            assert is_unavailable(client.request(method, path, json=body)), (method, path)
        assert running.api.http.get("/health").status_code == 200
        ready = running.api.http.get("/health/ready")
        assert is_unavailable(ready)
        assert "PostgreSQL at 127.0.0.1" in ready.json()["detail"]
        assert client.get("/memories", headers={"Authorization": "Bearer nonsense"}).status_code == 401
    finally:
        own_postgres.start()
    healthy_again(running)


def test_a_postgresql_that_was_killed_is_found_again(running: Stack, own_postgres: Postgres) -> None:
    with ThreadPoolExecutor(8) as pool:  # so that the pool holds several connections
        list(pool.map(lambda _: running.of().get("/memories").raise_for_status(), range(16)))
    own_postgres.stop(signal.SIGQUIT)
    own_postgres.start()
    healthy_again(running)
    # of the connections that the pool held, none is given to anybody
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: running.of().get("/memories"), range(16))} == {200}


def test_one_that_hangs_is_waited_for_by_few(running: Stack, own_postgres: Postgres) -> None:
    client = running.of()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.get("/memories").raise_for_status(), range(16)))
    paused = [own_postgres.pid, *children(own_postgres.pid)]
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(lambda _: client.post("/memories", json={"content": "never"}), range(120)))
            assert running.api.http.get("/health").status_code == 200
        assert sum(map(is_unavailable, answers)) > 0
        assert is_unavailable(running.api.http.get("/health/ready"))
    finally:
        for pid in reversed(paused):
            os.kill(pid, signal.SIGCONT)
    healthy_again(running)
    # a request that was told 503 was not done behind its back
    assert running.rows("SELECT count(*) FROM memory_logs WHERE raw_data->>'content' = 'never'") == [(0,)]


def test_more_than_can_wait_are_told_at_once(running: Stack, own_postgres: Postgres) -> None:
    """Bounded: 4 connections, and 8 times as many who wait for one."""
    client = running.of()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.get("/memories").raise_for_status(), range(16)))
    with ThreadPoolExecutor(100) as pool, running.locked("api_keys"):
        answers = list(pool.map(lambda _: client.get("/memories"), range(100)))
    kinds = [answer.json()["type"].removeprefix("urn:chroma-stack:problem:") for answer in answers]
    assert {answer.status_code for answer in answers} == {503}
    assert set(kinds) == {"database-too-slow", "overloaded"}
    assert own_postgres.pid
    healthy_again(running)


def test_a_search_with_a_key_that_was_just_seen_needs_none(tmp_path: Path, own_postgres: Postgres) -> None:
    with stack(tmp_path, own_postgres, {"API_KEY_CACHE_SECONDS": "3600", "SEARCH_TIMEOUT_SECONDS": "30"}) as made:
        client = made.of()
        client.post("/memories", json={"content": "rain"}).raise_for_status()
        made.index()
        assert len(client.post("/memories/search", json={"query": "rain"}).json()["results"]) == 1
        own_postgres.stop()
        try:
            assert len(client.post("/memories/search", json={"query": "rain"}).json()["results"]) == 1
            assert is_unavailable(client.get("/memories"))
            made.chroma.kill()
            assert is_unavailable(client.post("/memories/search", json={"query": "rain"}))
        finally:
            own_postgres.start()


def test_a_schema_that_does_not_fit_is_told(tmp_path: Path, own_postgres: Postgres) -> None:
    with stack(tmp_path, own_postgres) as made:
        client = made.of()
        client.get("/memories").raise_for_status()
        made.execute("ALTER TABLE memory_logs RENAME TO somewhere_else")
        problem = client.get("/memories")
        assert problem.status_code == 503
        assert problem.json()["type"].endswith("schema-unfit")
        assert "app database upgrade" in problem.json()["hint"]
        made.execute("ALTER TABLE somewhere_else RENAME TO memory_logs")
        client.get("/memories").raise_for_status()
