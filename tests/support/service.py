"""The FastAPI service for tests: in this process, or as real uvicorn processes."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from chromadb.api.client import Client
from chromadb.config import Settings as ChromaSettings
from starlette.testclient import TestClient

from app.config import Settings
from app.core.embedding.hashing import HashingEmbedder
from support.servers import PORT_ATTEMPTS, Process, ServerDied, answers, free_port

DIMENSION = 32

Records = Mapping[str, tuple[str, Mapping[str, Any]]]
"""id: (document, metadata)"""
Serve = Callable[..., AbstractContextManager[TestClient]]


def child_environment(**variables: str) -> dict[str, str]:
    """This process's environment without the service's settings, and with these."""
    known = {name.upper() for name in Settings.model_fields}
    return {key: value for key, value in os.environ.items() if key.upper() not in known} | variables


def chroma_client(directory: Path) -> Client:
    """A plain client of a directory; close it before the service opens the same one."""
    settings = ChromaSettings(is_persistent=True, persist_directory=str(directory), anonymized_telemetry=False)
    return Client(settings=settings)


def fill(directory: Path, name: str, records: Records, *, space: str = "cosine", dimension: int = DIMENSION) -> None:
    """Write a collection into a directory, embedded as the service embeds."""
    client = chroma_client(directory)
    collection = client.create_collection(name, metadata={"hnsw:space": space}, embedding_function=None)
    if records:
        texts = [document for document, _ in records.values()]
        collection.add(
            ids=list(records),
            embeddings=HashingEmbedder(dimension).embed(texts),
            documents=texts,
            metadatas=[metadata for _, metadata in records.values()],
        )
    client.close()


@contextmanager
def in_process(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """The application over the directories `rag` and `memory` of the folder, or over what the settings say."""
    # imported here: the module makes an application from the environment
    from app.main import create_app

    defaults = {
        "chroma_db_path": folder / "memory",
        "chroma_persist_dir": folder / "rag",
        "embedding_dimension": DIMENSION,
    }
    made = Settings.model_validate({**defaults, **settings})
    with TestClient(create_app(made), raise_server_exceptions=False) as client:
        yield client


_number = itertools.count(1)


def bearer(key: str) -> dict[str, str]:
    """The headers of who holds the key."""
    return {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True)
class Service:
    """A running service: its address, its process (the parent of its workers), a client."""

    url: str
    process: Process
    http: httpx.Client

    def rag(self, query: str, **fields: Any) -> httpx.Response:
        """POST /rag/query."""
        return self.http.post("/rag/query", json={"query": query, **fields})

    def chroma_health(self) -> httpx.Response:
        """GET /health/chromadb."""
        return self.http.get("/health/chromadb")


def uvicorn_argv(port: int, workers: int = 1) -> list[str]:
    """The command that operators run."""
    argv = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", str(port)]
    return argv if workers == 1 else [*argv, "--workers", str(workers)]


def run_app(
    folder: Path, variables: Mapping[str, str], *arguments: str, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `app …` in the folder to its end."""
    return subprocess.run(  # noqa: S603 (the tests' own arguments)
        [sys.executable, "-m", "app", *arguments],
        cwd=folder,
        env=child_environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def app_in_process(folder: Path, variables: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, from its main thread."""
    # imported here: few tests need it, and it takes long
    from app.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    logger = logging.getLogger("app")
    before = logger.handlers[:]
    logger.handlers.clear()  # they write to another stderr
    with (
        mock.patch.dict(os.environ, child_environment(**variables), clear=True),
        mock.patch.object(sys, "argv", ["app", *arguments]),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            logger.handlers[:] = before
    return subprocess.CompletedProcess(["app", *arguments], code, out.getvalue(), err.getvalue())


def issue_key(folder: Path, variables: Mapping[str, str], user: str = "ann", project: str = "first") -> str:
    """A key for the tenant, by `app keys issue`."""
    ended = run_app(folder, variables, "keys", "issue", "--user", user, "--project", project)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def upgrade_database(folder: Path, variables: Mapping[str, str]) -> None:
    """Make the tables, by `app database upgrade`."""
    ended = run_app(folder, variables, "database", "upgrade")
    assert ended.returncode == 0, ended.stderr


@contextmanager
def index_worker(folder: Path, variables: Mapping[str, str]) -> Iterator[Process]:
    """Run `app worker` in the folder until the block ends."""
    name = f"worker-{next(_number)}.log"
    process = Process([sys.executable, "-m", "app", "worker"], folder / name, child_environment(**variables), folder)
    with process.start():
        yield process


@contextmanager
def service(folder: Path, variables: Mapping[str, str] | None = None, *, workers: int = 1) -> Iterator[Service]:
    """Run `uvicorn app.main:app` in the folder with these variables until the block ends."""
    log = folder / "service.log"
    for attempt in range(PORT_ATTEMPTS):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        process = Process(uvicorn_argv(port, workers), log, env=child_environment(**(variables or {})), cwd=folder)
        with process.start():
            try:
                process.wait_until(partial(_is_up, process, url))
            except ServerDied:
                if attempt == PORT_ATTEMPTS - 1 or "address already in use" not in process.text():
                    raise
                continue
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
                yield Service(url, process, http)
            return


def _is_up(process: Process, url: str) -> bool:
    return "Application startup complete" in process.text() and answers(f"{url}/health")()
