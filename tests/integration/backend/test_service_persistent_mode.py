"""uvicorn processes in persistent mode: no configuration at all, and never two on one directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.ports import free_port
from support.process import children, wait_until_gone
from support.servers import Process
from support.service import (
    ANN,
    DIMENSION,
    Service,
    bearer,
    child_environment,
    fill,
    issue_key,
    service,
    uvicorn_argv,
)
from support.stack import new_key

RECORDS = {str(n): (f"rain number {n}", {"n": n}) for n in range(50)}


def run_to_its_end(folder: Path, workers: int = 1, **variables: str) -> tuple[int, str]:
    """Exit code and output of a service that cannot start."""
    log = folder / "second.log"
    argv = uvicorn_argv(free_port(), workers)
    with Process(argv, log, env=child_environment(**variables), cwd=folder) as process:
        code = process.start().wait(120)
    return code, process.text()


def test_needs_no_configuration(tmp_path: Path) -> None:
    """A checkout, `uvicorn app.main:app` and a key: PostgreSQL and the index worker come along."""
    with service(tmp_path) as api:
        assert api.http.get("/health/ready").json()["status"] == "ready"
        assert api.chroma_health().json()["mode"] == "persistent"
        assert api.rag("rain").status_code == 401
        api.http.headers.update(bearer(issue_key(tmp_path, {})))
        assert found(api, "/memories/search") == []
        assert found(api, "/rag/query") == []
        api.http.post("/memories", json={"content": "rain on Tuesday"}).raise_for_status()
        document = api.http.post("/rag/documents", json={"content": "rain on Friday", "source": "almanac.md"})
        until(lambda: [one["content"] for one in found(api, "/memories/search")] == ["rain on Tuesday"])
        until(lambda: [one["document_id"] for one in found(api, "/rag/query")] == [document.json()["id"]])
        page = api.http.get("/openapi.json").json()
    assert (tmp_path / "data/chroma/chroma.sqlite3").is_file()
    assert (tmp_path / "data/chroma_memory/chroma.sqlite3").is_file()
    problem = page["paths"]["/rag/query"]["post"]["responses"]["503"]["content"]
    assert list(problem) == ["application/problem+json"]


def found(api: Service, path: str) -> list[dict[str, Any]]:
    answer = api.http.post(path, json={"query": "rain"}).raise_for_status().json()
    assert answer["degraded"] is False
    results: list[dict[str, Any]] = answer["results"]
    return results


def until(check: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_finds_what_was_there_before_it_started_again(tmp_path: Path, ready_url: str) -> None:
    fill(tmp_path / "data/chroma", "notes", RECORDS)
    variables = {"EMBEDDING_DIMENSION": str(DIMENSION), "RAG_COLLECTIONS": "notes", "DATABASE_URL": ready_url}
    key = new_key(ready_url, ANN)
    for _ in range(2):
        with service(tmp_path, variables) as api, ThreadPoolExecutor(16) as pool:
            api.http.headers.update(bearer(key))
            ids = pool.map(lambda n: api.rag(f"number {n}", limit=1).json()["results"][0]["id"], range(50))
            assert list(ids) == [str(n) for n in range(50)]
            assert api.process.stop() in (0, -15)


def test_a_second_process_ends_at_once_and_says_why(tmp_path: Path, ready_url: str) -> None:
    variables: dict[str, Any] = {"EMBEDDING_DIMENSION": str(DIMENSION), "DATABASE_URL": ready_url}
    with service(tmp_path, variables) as api:
        code, output = run_to_its_end(tmp_path, **variables)
        assert code == 3
        line = next(line for line in output.splitlines() if "in use by" in line)
        assert str(api.process.pid) in line
        assert "CHROMA_MODE=http" in line
        assert "Traceback" not in output
        assert api.chroma_health().status_code == 200
        api.process.kill()
    with service(tmp_path, variables) as api:  # a crash leaves nothing behind that would lock anybody out
        assert api.chroma_health().status_code == 200


def test_two_workers_end_at_once_instead_of_corrupting_the_directory(tmp_path: Path) -> None:
    code, output = run_to_its_end(tmp_path, workers=2)
    assert code != -9
    assert "CHROMA_MODE=http" in output
    assert "Traceback" not in output
    assert output.count("in use by") == 1  # no loop of restarts


def test_other_directories_are_other_services_business(tmp_path: Path) -> None:
    others = {"CHROMA_DB_PATH": "other/memory", "CHROMA_PERSIST_DIR": "other/rag"}
    with service(tmp_path), service(tmp_path, others) as api:  # one PostgreSQL for both, from the wheel
        assert api.chroma_health().status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_setting_ends_it_with_one_line(tmp_path: Path, workers: int) -> None:
    code, output = run_to_its_end(tmp_path, workers, CHROMA_PORT="abc")
    assert "chroma-stack-api: CHROMA_PORT='abc' (environment)" in output
    assert "Traceback" not in output
    assert output.count("CHROMA_PORT") <= 2 * workers  # uvicorn may start one again before it sees why it ended
    assert code == (3 if workers == 1 else code)


def test_a_directory_of_no_use_ends_it_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, output = run_to_its_end(tmp_path, CHROMA_DB_PATH="file/db")
    assert code == 3
    assert "CHROMA_DB_PATH=" in output
    assert "Not a directory" in output
    assert "Traceback" not in output


def test_a_body_that_never_ends_is_cut_off(tmp_path: Path, ready_url: str) -> None:
    with service(tmp_path, {"EMBEDDING_DIMENSION": str(DIMENSION), "DATABASE_URL": ready_url}) as api:
        sent = 0

        def endless() -> object:
            nonlocal sent
            while sent < 500 * 65536:
                sent += 65536
                yield b" " * 65536

        try:
            status = api.http.post("/rag/query", content=endless()).status_code  # type: ignore[arg-type]
        except httpx.WriteError:  # it was told and hung up on while it still talked
            status = 413
        assert status == 413
        assert sent < 500 * 65536
        assert api.http.get("/health").status_code == 200


def test_no_process_is_left_behind(tmp_path: Path, ready_url: str) -> None:
    variables = {"CHROMA_MODE": "http", "EMBEDDING_DIMENSION": str(DIMENSION), "DATABASE_URL": ready_url}
    with service(tmp_path, variables, workers=2) as api:
        family = children(api.process.pid)
        assert len(family) >= 2
    wait_until_gone(family)  # multiprocessing's own helper ends a moment after its parent
