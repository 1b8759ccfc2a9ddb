"""PostgreSQL goes and comes back, and nobody restarts anything: not the API's workers, not the index workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.core.database.database import database_url
from app.core.database.upgrade import upgrade
from support.killable import Caller, Stack, stack, until
from support.postgres import Postgres
from support.process import children, lives
from support.servers import chroma_server
from support.service import DIMENSION

WRITERS = 8
# A promise, and so no matter of bench/: this soon after PostgreSQL takes connections, all is as it was.
HEALTHY_SECONDS = 5.0
BREATH_SECONDS = 0.01


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL of this module's own, that keeps what it has acknowledged."""
    with Postgres(tmp_path_factory.mktemp("durable") / "data", "fsync=on").running() as server:
        yield server


def new_database(server: Postgres) -> str:
    """With the tables."""
    url = server.new_database()
    upgrade(database_url(SecretStr(url)), DIMENSION)
    return url


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, durable: Postgres) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("restarted")
    with (
        chroma_server(folder / "chroma") as chroma,
        stack(folder, chroma, new_database(durable), api_workers=2) as running,
    ):
        yield running
        assert "Traceback" not in running.said()


@dataclass
class Told:
    """What writers were answered, and so which contents each memory may have; None stands for none."""

    may_be: dict[int, set[str | None]] = field(default_factory=dict)
    answers: list[tuple[float, int]] = field(default_factory=list)

    def good(self, begun: float, answer: httpx.Response, status: int) -> bool:
        """Whether it was done; if not, it is said as it should be."""
        self.answers.append((begun, answer.status_code))
        if answer.status_code == status:
            return True
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["type"].endswith((":database-unavailable", ":database-too-slow", ":overloaded"))
        return False


def write(caller: Caller, name: str, told: Told, over: threading.Event) -> None:
    """Remember things, change some, forget some, until it is over."""
    with httpx.Client(base_url=caller.url, headers=caller.headers, timeout=60, trust_env=False) as http:

        def send(method: str, path: str, status: int, body: Any = None) -> httpx.Response | None:
            begun = time.monotonic()
            answer = http.request(method, path, json=body)
            return answer if told.good(begun, answer, status) else None

        number = 0
        while not over.wait(BREATH_SECONDS):
            number += 1
            first, second = f"first {number} of {name}", f"second {number} of {name}"
            if (made := send("POST", "/memories", 201, {"content": first})) is None:
                continue
            id_ = made.json()["id"]
            told.may_be[id_] = {first, second}  # until we know of it
            changed = send("PATCH", f"/memories/{id_}", 200, {"content": second})
            told.may_be[id_] = {second} if changed is not None else {first, second}
            if number % 3 == 0:
                gone = send("DELETE", f"/memories/{id_}", 204)
                told.may_be[id_] = {None} if gone is not None else {*told.may_be[id_], None}


def is_ready(whole: Stack) -> bool:
    """On new connections, so that every worker of the API has its say."""
    url = f"{whole.serving.url}/health/ready"
    return all(httpx.get(url, trust_env=False, timeout=5).status_code == 200 for _ in range(WRITERS))


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill], ids=["fast shutdown", "SIGKILL"])
def test_no_acknowledged_write_is_lost_and_all_is_well_in_five_seconds(
    whole: Stack, durable: Postgres, end: Callable[[Postgres], None]
) -> None:
    caller = whole.caller()
    workers = whole.have_workers(2)
    processes = [whole.serving.process.pid, *children(whole.serving.process.pid), *(worker.pid for worker in workers)]
    told, over = [Told() for _ in range(WRITERS)], threading.Event()
    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, caller, f"{caller.tenant} {n}", one, over) for n, one in enumerate(told)]
        try:
            until(lambda: all(len(one.may_be) > 20 for one in told), "all write")
            end(durable)
            until(lambda: all(one.answers[-1][1] == 503 for one in told), "all are told")
            durable.start()
            back = time.monotonic()
            until(lambda: is_ready(whole), "it is ready again", HEALTHY_SECONDS)
            time.sleep(max(0.0, back + HEALTHY_SECONDS - time.monotonic()))  # from then on everything has to succeed
            known = [len(one.may_be) for one in told]
            until(lambda: all(len(one.may_be) > n + 20 for one, n in zip(told, known, strict=True)), "all write again")
        finally:
            over.set()
        for one in writing:
            one.result()
    late = [status for one in told for begun, status in one.answers if begun > back + HEALTHY_SECONDS]
    assert late
    assert 503 not in late
    found = dict(whole.sql("SELECT id, raw_data->>'content' FROM memory_logs"))
    may_be = {id_: contents for one in told for id_, contents in one.may_be.items()}
    assert {id_: found.get(id_) for id_, contents in may_be.items() if found.get(id_) not in contents} == {}
    assert len(set(found.values())) == len(found)
    whole.until_indexed()
    whole.assert_right()
    assert [whole.serving.process.pid, *children(whole.serving.process.pid)] == processes[: -len(workers)]
    assert all(map(lives, processes))


@contextmanager
def away(server: Postgres) -> Iterator[None]:
    """It is not there during the block."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_the_service_and_its_index_worker_may_come_before_postgresql(tmp_path: Path, durable: Postgres) -> None:
    """Nobody has to start them in an order."""
    url = new_database(durable)
    with ExitStack() as held:
        chroma = held.enter_context(chroma_server(tmp_path / "chroma"))
        with away(durable):
            early = held.enter_context(stack(tmp_path, chroma, url, api_workers=2))
            worker = early.begin_worker()
            worker.wait_until(lambda: "indexing from" in worker.text())
            assert "PostgreSQL cannot be reached" in worker.text()
            api = early.serving.http
            assert api.get("/health").status_code == 200
            for answer in (
                api.get("/health/ready"),
                api.post("/memories", json={"content": "rain"}, headers={"x-api-key": f"cs_{'a' * 16}_{'b' * 43}"}),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"].endswith(":database-unavailable")
            processes = [early.serving.process.pid, *children(early.serving.process.pid), worker.pid]
        until(lambda: is_ready(early), "it is ready")
        caller = early.caller()
        with httpx.Client(base_url=caller.url, headers=caller.headers, timeout=60, trust_env=False) as http:
            assert http.post("/memories", json={"content": "rain"}).status_code == 201
            early.until_indexed()
            early.assert_right(memories=1)
            (found,) = http.post("/memories/search", json={"query": "rain"}).json()["results"]
        assert found["content"] == "rain"
        assert all(map(lives, processes))
        assert "Traceback" not in early.said()
