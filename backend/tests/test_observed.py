"""Every request from outside: an id, an access line, numbers; whatever became of it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.application import create_app
from app.config import Settings
from app.core.errors import Overloaded
from app.core.memory.tenant import Tenant
from app.logs import request_id
from app.metrics import Metrics
from app.observed import Observed

MADE = re.compile(r"[0-9a-f]{16}")
ANN = Tenant("ann", "first")


class Seen(logging.Handler):
    """The access lines, and all others with the request that they were said in."""

    def __init__(self) -> None:
        super().__init__()
        self.access: list[tuple[int, dict[str, Any]]] = []
        self.others: list[tuple[str, str | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "app.access":
            self.access.append((record.levelno, record.__dict__["fields"]))
        else:
            self.others.append((record.getMessage(), request_id()))


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler, logger = Seen(), logging.getLogger("app")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def app() -> FastAPI:
    """The application, not started, with routes of the tests' own."""
    made = create_app(Settings())

    @made.get("/things/{thing}")
    async def thing(thing: str, request: Request) -> dict[str, str | None]:
        request.state.tenant = ANN
        return {"thing": thing, "request": await asyncio.to_thread(request_id)}

    @made.get("/boom")
    async def boom() -> None:
        raise RuntimeError("a s3cret")

    @made.get("/busy")
    async def busy() -> None:
        raise Overloaded

    return made


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def samples(app: FastAPI, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by its labels."""
    text = app.state.metrics.exposition().decode()
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_one_line_a_request_with_the_route_and_not_the_path(client: TestClient, seen: Seen) -> None:
    response = client.get("/things/s3cret?q=s3cret", headers={"Authorization": "Bearer s3cret"})
    ((level, line),) = seen.access
    assert level == logging.INFO
    assert line.pop("ms") >= 0
    assert line == {"method": "GET", "route": "/things/{thing}", "status": 200, "tenant": ANN.mark}
    assert MADE.fullmatch(response.headers["x-request-id"])
    # threads know which request they work for
    assert response.json()["request"] == response.headers["x-request-id"]


def test_a_tenant_is_told_by_what_its_collections_are_called() -> None:
    assert ANN.mark in ANN.collection("memory")
    assert "ann" not in ANN.mark


@pytest.mark.parametrize("given", ["a", "0af7651916cd43dd8448eb211c80319c", "A-b_c.9", "x" * 64])
def test_a_clean_id_is_kept(client: TestClient, given: str) -> None:
    assert client.get("/things/1", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "ä", '"', "{}", "a;b"])
def test_another_one_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/things/1", headers=[(b"x-request-id", given.encode("latin-1"))])
    assert MADE.fullmatch(response.headers["x-request-id"])


def test_no_two_requests_have_one_id(client: TestClient) -> None:
    assert len({client.get("/things/1").headers["x-request-id"] for _ in range(20)}) == 20


def test_a_problem_names_its_request(client: TestClient, seen: Seen) -> None:
    for path, status in (("/busy", 503), ("/nowhere", 404), ("/boom", 500)):
        response = client.get(path, headers={"X-Request-ID": "r-1"})
        assert response.status_code == status
        assert response.headers["x-request-id"] == response.json()["request_id"] == "r-1"
        assert "s3cret" not in response.text
    assert [line["status"] for _, line in seen.access] == [503, 404, 500]
    assert seen.others
    assert {id_ for _, id_ in seen.others} == {"r-1"}
    assert "s3cret" not in str(seen.others)


def test_what_is_no_route_has_one_name(client: TestClient, app: FastAPI, seen: Seen) -> None:
    for path in ("/a", "/b", "/things", "/%0a"):
        client.get(path)
    client.request("BREW", "/a")
    assert {(line["method"], line["route"]) for _, line in seen.access} == {("GET", "(none)"), ("other", "(none)")}
    assert samples(app, "chroma_stack_http_requests_total") == {
        ("GET", "(none)", "404"): 4.0,
        ("other", "(none)", "404"): 1.0,
    }


def test_requests_are_counted_and_timed_by_route(client: TestClient, app: FastAPI) -> None:
    for path in ("/things/1", "/things/2", "/boom"):
        client.get(path)
    assert samples(app, "chroma_stack_http_requests_total") == {
        ("GET", "/things/{thing}", "200"): 2.0,
        ("GET", "/boom", "500"): 1.0,
    }
    assert samples(app, "chroma_stack_http_request_duration_seconds_count") == {
        ("GET", "/things/{thing}"): 2.0,
        ("GET", "/boom"): 1.0,
    }


def test_routine_is_told_at_debug_only(app: FastAPI, seen: Seen) -> None:
    @app.get("/health/of-the-tests")
    async def health(bad: bool = False) -> None:
        if bad:
            raise Overloaded

    client = TestClient(app)
    client.get("/health/of-the-tests")
    client.get("/health/of-the-tests?bad=true")
    assert [level for level, _ in seen.access] == [logging.DEBUG, logging.INFO]


def test_a_body_that_is_too_large_has_a_line_too(client: TestClient, seen: Seen) -> None:
    response = client.post("/memories", content=b"x" * 1_100_000, headers={"X-Request-ID": "r-2"})
    assert response.json()["request_id"] == "r-2"
    assert seen.access[-1][1]["status"] == 413


def test_a_client_that_went_away_is_told_as_such(seen: Seen) -> None:
    async def gone(_scope: Any, _receive: Any, _send: Any) -> None:
        """Answers nobody."""

    async def call() -> None:
        scope = {"type": "http", "method": "GET", "headers": []}
        await Observed(gone, Metrics())(scope, None, None)  # type: ignore[arg-type]

    asyncio.run(call())
    assert [line["status"] for _, line in seen.access] == [499]


def test_the_page_of_a_route_knows_of_the_id(client: TestClient) -> None:
    page = json.loads(client.get("/openapi.json").text)
    assert "/metrics" in page["paths"]


def test_a_shared_directory_of_no_use_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from app.core.errors import StartupError

    (tmp_path / "file").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "file" / "x"))
    with pytest.raises(StartupError, match=r"PROMETHEUS_MULTIPROC_DIR=.*Not a directory"):
        Metrics()
