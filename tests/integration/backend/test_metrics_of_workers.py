"""/metrics of several workers: what it tells is of all of them, whoever answers; and the index worker's own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.killable import until
from support.ports import free_port
from support.process import children
from support.servers import CHECKOUT, Server, answers, chroma_server
from support.service import Service, index_worker, run_app, service
from support.stack import settings_of

WORKERS = 2
LAUNCHER = CHECKOUT / "roles/process/files/launch.py"
REFUSED = "chroma_stack_api_keys_refused_total"
SERVED = "chroma_stack_http_requests_total"
TIMED = "chroma_stack_http_request_duration_seconds"


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """The values by name and labels in the order of their names; one that is told twice is a mistake."""
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(value for _, value in sorted(sample.labels.items())))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def children_of(pid: int) -> set[int]:
    """The ids of uvicorn's workers, and not of what else Python has started."""
    return {child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


@dataclass(frozen=True)
class Several:
    """A service with several workers, which can be told apart."""

    api: Service
    parent: int
    http: httpx.Client

    @property
    def workers(self) -> set[int]:
        return children_of(self.parent)

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """This worker answers; the others are stopped meanwhile."""
        with ExitStack() as resumed:
            for other in self.workers - {worker}:
                os.kill(other, signal.SIGSTOP)
                resumed.callback(os.kill, other, signal.SIGCONT)
            yield

    def come_without_key(self, times: int) -> None:
        """So many requests that are refused, and need nobody else; returns when they are counted."""
        _, before, *_ = self.told()
        for _ in range(times):
            assert self.http.get("/memories").status_code == 401
        until(lambda: self.told()[1] == before + times, "it is counted, which comes after the answer")

    def told(self) -> tuple[float, float, float, float]:
        """What /metrics says of them: refused, served, timed, and in the histogram's last bucket."""
        numbers = samples(self.http.get("/metrics").raise_for_status().text)
        return (
            numbers.get((REFUSED, ("missing",)), 0),
            numbers.get((SERVED, ("GET", "/memories", "401")), 0),
            numbers.get((f"{TIMED}_count", ("GET", "/memories")), 0),
            numbers.get((f"{TIMED}_bucket", ("+Inf", "GET", "/memories")), 0),
        )

    def assert_told(self, number: int) -> None:
        """By every worker, however often it is asked."""
        for worker in self.workers:
            with self.only(worker):
                assert {self.told() for _ in range(3)} == {(number,) * 4}


@contextmanager
def several(folder: Path, database_url: str, *, before: Sequence[str] = ()) -> Iterator[Several]:
    """Chroma is not needed; the folder `numbers` is shared."""
    variables = settings_of(database_url, free_port(), {"PROMETHEUS_MULTIPROC_DIR": str(folder / "numbers")})
    with service(folder, variables, workers=WORKERS, before=before) as api:
        parent = api.process.pid
        if before:
            (parent,) = children(parent)
        until(lambda: api.process.text().count("Application startup complete") == WORKERS, "all workers are there")
        # a connection for each request, so that any worker may answer it
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=api.url, limits=limits, timeout=120, trust_env=False) as http:
            yield Several(api, parent, http)


def test_the_numbers_of_all_workers_add_up_and_those_of_a_killed_one_are_kept(tmp_path: Path, ready_url: str) -> None:
    with several(tmp_path, ready_url) as running:
        first, second = running.workers
        with running.only(first):
            running.come_without_key(5)
        with running.only(second):
            running.come_without_key(7)
        running.assert_told(12)

        os.kill(first, signal.SIGKILL)
        until(lambda: len(running.workers - {first}) == WORKERS, "another takes its place")  # and waits to be asked
        (third,) = running.workers - {first, second}
        running.assert_told(12)
        with running.only(third):
            running.come_without_key(3)
        running.assert_told(15)


def test_a_worker_that_begins_at_that_moment_spoils_nothing(tmp_path: Path, ready_url: str) -> None:
    with several(tmp_path, ready_url) as running:
        running.come_without_key(2)
        # as the library leaves it between making a file and giving it its length
        (tmp_path / "numbers" / "counter_4194303.db").touch()
        running.assert_told(2)


def test_numbers_of_an_earlier_start_are_gone_when_the_role_starts_it(tmp_path: Path, ready_url: str) -> None:
    """With the launcher that the role `process` puts before it."""
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    before = [sys.executable, "-I", str(LAUNCHER), "TERM", "-", str(numbers)]
    for _ in range(2):
        with several(tmp_path, ready_url, before=before) as running:
            running.come_without_key(3)
            running.assert_told(3)
            assert {int(path.stem.rpartition("_")[2]) for path in numbers.glob("*.db")} == running.workers
        (tmp_path / "service.log").unlink()


@pytest.fixture
def chroma(tmp_path: Path) -> Iterator[Server]:
    with chroma_server(tmp_path / "chroma") as server:
        yield server


def test_an_index_worker_tells_its_own_numbers_and_no_others(tmp_path: Path, ready_url: str, chroma: Server) -> None:
    """Also where it was given the folder of the API's workers."""
    port = free_port()
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    variables = settings_of(
        ready_url, chroma.port, {"INDEX_METRICS_PORT": str(port), "PROMETHEUS_MULTIPROC_DIR": str(numbers)}
    )
    url = f"http://127.0.0.1:{port}/metrics"

    def told() -> dict[tuple[str, tuple[str, ...]], float]:
        return samples(httpx.get(url, trust_env=False).raise_for_status().text)

    with index_worker(tmp_path, variables) as worker:
        worker.wait_until(answers(url))
        with psycopg.connect(ready_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO memory_logs (user_id, project_id, raw_data) "
                """SELECT 'ann', 'first', '{"content": "rain", "metadata": {}}' FROM generate_series(1, 30)"""
            )
        records = ("chroma_stack_index_records_total", ("indexed",))
        until(lambda: told().get(records) == 30, "it tells of all records")
        found = told()
        assert found["chroma_stack_index_lag_seconds_count", ()] == 30
        batches = found["chroma_stack_index_batches_total", ()]
        assert 1 <= batches == found["chroma_stack_index_batch_duration_seconds_count", ()]
        assert found["chroma_stack_chroma_up", ("chroma",)] == 1 or found["chroma_stack_chroma_up", ("memory",)] == 1
        assert list(numbers.iterdir()) == []

        taken = run_app(tmp_path, variables, "worker")
        assert taken.returncode == 3
        assert f"INDEX_METRICS_PORT={port} of 127.0.0.1 cannot be used: Address already in use" in taken.stderr
        assert "Traceback" not in taken.stderr
