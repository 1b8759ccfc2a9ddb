"""`uvicorn app.main:app` with no configuration: everything below ./data, one process on it, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from support.own_postgres import none_left_below, ordinary, servers_below
from support.ports import free_port
from support.process import children, wait_until_gone
from support.servers import Process
from support.service import Service, bearer, child_environment, issue_key, run_app, service, uvicorn_argv

DEADLINE_SECONDS = 30.0
JSON_FILE = {"collections": [{"name": "c", "records": [{"id": "1", "embedding": [1.0, 0.0], "document": "d"}]}]}


@dataclass(frozen=True)
class Here:
    """A service without configuration, its folder, and somebody with a key."""

    folder: Path
    api: Service
    http: httpx.Client

    def remember(self, *texts: str) -> None:
        for text in texts:
            self.http.post("/memories", json={"content": text, "metadata": {"of": "test"}}).raise_for_status()

    def found(self, query: str) -> list[str]:
        """The contents of the memories that are found."""
        answer = self.http.post("/memories/search", json={"query": query, "limit": 100}).raise_for_status().json()
        return [str(result["content"]) for result in answer["results"]]


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not check():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


@contextmanager
def serving(folder: Path, key: str = "", before: Sequence[str] = ()) -> Iterator[Here]:
    with service(folder, before=before) as api:
        headers = bearer(key or issue_key(folder, {}))
        with httpx.Client(base_url=api.url, headers=headers, timeout=60, trust_env=False) as http:
            yield Here(folder, api, http)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """Shared by the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("no-configuration")
    with none_left_below(folder):
        with serving(folder) as running:
            assert running.found("anything") == []  # the directory is made on first use
            yield running


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For a service of the test's own; nothing of it is left running."""
    with none_left_below(tmp_path):
        yield tmp_path


def run_to_its_end(folder: Path, workers: int = 1, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of a service that cannot start."""
    log = folder / f"ended-{workers}.log"
    argv = uvicorn_argv(free_port(), workers)
    with Process(argv, log, env=child_environment(**(variables or {})), cwd=folder) as process:
        code = process.start().wait(120)
    return code, process.text()


def test_writes_and_finds_memories_and_documents(here: Here) -> None:
    here.remember("rain on tuesday", "sun on wednesday")
    until(lambda: set(here.found("rain")) >= {"rain on tuesday", "sun on wednesday"})
    assert here.found("rain on tuesday")[0] == "rain on tuesday"
    here.http.post("/rag/documents", json={"content": "Hail is frozen rain.", "source": "a book"}).raise_for_status()
    until(lambda: bool(here.http.post("/rag/query", json={"query": "hail"}).json()["results"]))
    for name in ("chroma", "chroma_memory"):
        assert (here.folder / "data" / name / "chroma.sqlite3").is_file()
    assert (here.folder / "data" / "postgres").stat().st_mode & 0o777 == 0o700
    assert here.api.http.get("/health").json()["embedding_provider"] == "hashing"
    assert here.api.chroma_health().json()["mode"] == "persistent"


def test_who_has_no_key_is_told(here: Here) -> None:
    assert here.api.http.get("/memories").status_code == 401
    assert here.api.http.get("/health").status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_service_ends_at_once_and_says_why(here: Here, workers: int) -> None:
    code, output = run_to_its_end(here.folder, workers)
    assert code == 3 if workers == 1 else code != -signal.SIGKILL
    lines = [line for line in output.splitlines() if "in use by" in line]
    # uvicorn's parent, which came to its end, may have tried once more
    assert len(lines) == 1 if workers == 1 else 1 <= len(lines) <= workers + 1
    assert f"process {here.api.process.pid}," in lines[0]
    assert "CHROMA_MODE=http" in lines[0]
    assert "Traceback" not in output
    assert here.found("rain") is not None


@pytest.mark.parametrize("command", [["worker"], ["rebuild"]])
def test_a_command_that_needs_the_index_ends_at_once_and_says_why(here: Here, command: list[str]) -> None:
    ended = run_app(here.folder, {}, *command)
    assert (ended.returncode, ended.stdout) == (5, ""), ended.stderr
    assert f"in use by process {here.api.process.pid}," in ended.stderr
    assert "CHROMA_MODE=http" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_toolkit_keeps_away_from_its_directories(here: Here, tmp_path: Path, side: str) -> None:
    (tmp_path / "data.json").write_text(json.dumps(JSON_FILE))
    there = f"path:{here.folder / 'data' / 'chroma_memory'}"
    where = {"source": str(tmp_path / "data.json"), "target": f"path:{tmp_path / 'new'}", side: there}
    urls = ["--source-url", where["source"], "--target-url", where["target"], "--profile", "identity"]
    ended = subprocess.run(  # noqa: S603 (the tests' own arguments)
        [sys.executable, "-m", "chromactl", "migrate", *urls],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 5, ended.stderr
    assert str(here.folder) in ended.stderr


def test_several_commands_at_once_use_the_service_s_database(here: Here) -> None:
    (pid,) = servers_below(here.folder)
    commands = [["keys", "list"], ["database", "check"], ["database", "upgrade"]]
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda command: run_app(here.folder, {}, *command), commands))
    assert [one.returncode for one in ended] == [0, 0, 0], [one.stderr for one in ended]
    assert servers_below(here.folder) == [pid]
    assert here.http.get("/memories").status_code == 200


def test_its_numbers_include_the_index_worker_s(here: Here) -> None:
    here.remember("numbers")
    until(lambda: "numbers" in here.found("numbers"))
    text = here.api.http.get("/metrics").text
    assert 'chroma_stack_index_records_total{outcome="indexed"}' in text
    assert 'chroma_stack_chroma_up{store="memory"} 1.0' in text
    assert "chroma_stack_postgres_up 1.0" in text


def test_two_workers_end_at_once_instead_of_corrupting_the_directory(folder: Path) -> None:
    code, output = run_to_its_end(folder, workers=2)
    assert code != -signal.SIGKILL
    assert "CHROMA_MODE=http" in output
    assert "Traceback" not in output
    assert 1 <= output.count("in use by") <= 2  # no loop of restarts


def test_what_was_written_is_there_after_a_stop_and_after_a_kill(folder: Path) -> None:
    written = [f"text number {n}" for n in range(20)]
    with serving(folder) as here:
        key = here.http.headers["authorization"].removeprefix("Bearer ")
        here.remember(*written[:10])
        until(lambda: set(here.found("number")) == set(written[:10]))
        assert here.api.process.stop() in (0, -signal.SIGTERM)
        assert servers_below(folder) == []
    with serving(folder, key) as here:
        assert set(here.found("number")) == set(written[:10])
        here.remember(*written[10:])  # killed at once: what of it is in the index yet is not known
        here.api.process.kill()
        (pid,) = servers_below(folder)
    with serving(folder, key) as here:
        assert servers_below(folder) == [pid]  # PostgreSQL was joined
        until(lambda: set(here.found("number")) == set(written))
        assert sorted(one["content"] for one in here.http.get("/memories").json()["memories"]) == sorted(written)
    assert servers_below(folder) == []


def test_commands_at_once_start_one_database_and_end_it(folder: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda user: issue_key(folder, {}, user), ["ann", "ben", "cem"]))
    assert servers_below(folder) == []
    listed = json.loads(run_app(folder, {}, "keys", "list", "--json").stdout)
    assert sorted(key["user"] for key in listed["keys"]) == ["ann", "ben", "cem"]


def test_an_ordinary_user_can_run_it(folder: Path) -> None:
    with serving(folder, before=ordinary(folder)) as here:
        owner = (folder / "data" / "postgres" / "cluster").stat().st_uid
        assert owner == (folder / "data" / "chroma" / ".chroma-stack.lock").stat().st_uid != 0
        here.remember("an ordinary text")
        until(lambda: here.found("text") == ["an ordinary text"])


def test_a_long_path_is_no_obstacle(folder: Path) -> None:
    far = folder / ("x" * 100) / ("y" * 100)
    far.mkdir(parents=True)
    with serving(far) as here:
        here.remember("far away")
        until(lambda: here.found("far") == ["far away"])


def test_other_directories_are_other_services_business(here: Here, folder: Path) -> None:
    others = {"CHROMA_DB_PATH": "other/memory", "CHROMA_PERSIST_DIR": "other/rag", "DATABASE_PATH": "other/postgres"}
    with service(folder, others) as api:
        assert api.chroma_health().status_code == 200
    assert sorted(path.name for path in (folder / "other").iterdir()) == ["memory", "postgres", "rag"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_setting_ends_it_with_one_line(folder: Path, workers: int) -> None:
    code, output = run_to_its_end(folder, workers, {"CHROMA_PORT": "abc"})
    assert "chroma-stack-api: CHROMA_PORT='abc' (environment)" in output
    assert "Traceback" not in output
    assert output.count("CHROMA_PORT") <= workers
    assert code == (3 if workers == 1 else code)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"CHROMA_DB_PATH": "file/db"}, "CHROMA_DB_PATH="),
        ({"DATABASE_PATH": "file/db"}, "DATABASE_PATH="),
        ({"EMBEDDING_PROVIDER": "onnx", "EMBEDDING_DIMENSION": "384", "EMBEDDING_MODEL_PATH": "file"}, "model.onnx"),
    ],
)
def test_a_path_of_no_use_ends_it_with_one_line(folder: Path, variables: dict[str, str], says: str) -> None:
    (folder / "file").touch()
    code, output = run_to_its_end(folder, variables=variables)
    assert code == 3
    assert says in output
    assert "Not a directory" in output
    assert "Traceback" not in output


def test_a_body_that_never_ends_is_cut_off(here: Here) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 500 * 65536:
            sent += 65536
            yield b" " * 65536

    try:
        status = here.http.post("/rag/query", content=endless()).status_code
    except httpx.WriteError:  # it was told and hung up on while it still talked
        status = 413
    assert status == 413
    assert sent < 500 * 65536
    assert here.api.http.get("/health").status_code == 200


def test_no_process_is_left_behind(folder: Path) -> None:
    with service(folder, {"CHROMA_MODE": "http"}, workers=2) as api:
        family = children(api.process.pid)
        assert len(family) >= 2
        assert len(servers_below(folder)) == 1  # both use it
    wait_until_gone(family)
    assert servers_below(folder) == []
    assert not [name for name in os.listdir(folder) if name.startswith("core")]
