"""The FastAPI service for tests: in this process, or as real uvicorn processes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from chromadb.api.client import Client
from chromadb.config import Settings as ChromaSettings
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.api.auth import caller
from app.config import Settings
from app.core.chroma.session import Session
from app.core.chroma.writer import IndexWriter
from app.core.database.database import database_url as app_database_url
from app.core.database.upgrade import upgrade
from app.core.embedding.hashing import HashingEmbedder
from app.core.index.indexer import Indexer
from app.core.memory.record import document_of, index_id, metadata_of, text_of
from app.core.memory.tenant import Kind, Tenant
from app.services import AppServices
from support.loggers import loggers_as_they_were
from support.ports import free_port
from support.servers import PORT_ATTEMPTS, Process, Server, ServerDied, answers

DIMENSION = 32
ANN = Tenant("ann", "first")
WRITTEN = datetime(2026, 11, 20, 10, 15, tzinfo=UTC)
# a socket's directory that is not there: refused at once
NO_DATABASE = "postgresql://nobody@/none?host=/nonexistent"

Records = Mapping[str, tuple[str, Mapping[str, Any]]]
"""id: (document, metadata)"""
Serve = Callable[..., AbstractContextManager[TestClient]]


def child_environment(**variables: str) -> dict[str, str]:
    """This process's environment without the service's settings, and with these."""
    known = {name.upper() for name in Settings.model_fields} | {"PROMETHEUS_MULTIPROC_DIR"}
    return {key: value for key, value in os.environ.items() if key.upper() not in known} | variables


def chroma_client(directory: Path) -> Client:
    """A plain client of a directory; close it before the service opens the same one."""
    settings = ChromaSettings(is_persistent=True, persist_directory=str(directory), anonymized_telemetry=False)
    return Client(settings=settings)


def fill(
    directory: Path,
    name: str,
    records: Records,
    *,
    space: str = "cosine",
    dimension: int = DIMENSION,
    texts: Sequence[str] | None = None,
) -> None:
    """Write a collection into a directory, embedded as the service embeds: the documents, or these texts."""
    client = chroma_client(directory)
    collection = client.create_collection(name, metadata={"hnsw:space": space}, embedding_function=None)
    if records:
        documents = [document for document, _ in records.values()]
        collection.add(
            ids=list(records),
            embeddings=HashingEmbedder(dimension).embed(texts or documents),
            documents=documents,
            metadatas=[metadata for _, metadata in records.values()],
        )
    client.close()


def remember(directory: Path, kind: Kind, raw_data: Sequence[Mapping[str, Any]], tenant: Tenant = ANN) -> None:
    """Write a tenant's records into a directory as the index worker does, with the ids 1, 2, …"""
    records = {
        index_id(number): (document_of(one), metadata_of(one, WRITTEN)) for number, one in enumerate(raw_data, start=1)
    }
    fill(directory, tenant.collection(kind), records, texts=[text_of(one) for one in raw_data])


@contextmanager
def in_process(folder: Path, *, tenant: Tenant | None = ANN, **settings: Any) -> Iterator[TestClient]:
    """The application over the directories `rag` and `memory` of the folder, or over what the settings say.

    There is no PostgreSQL. Every request is the tenant's, without a key; with None it needs one, which nobody knows.
    """
    # imported here: the module makes an application from the environment
    from app.application import create_app

    defaults = {
        "chroma_db_path": folder / "memory",
        "chroma_persist_dir": folder / "rag",
        "embedding_dimension": DIMENSION,
        "database_url": NO_DATABASE,
        "rag_collections": "*",
    }
    app = create_app(Settings.model_validate({**defaults, **settings}))
    if tenant is not None:
        app.dependency_overrides[caller] = lambda: tenant
    with loggers_as_they_were(), TestClient(app, raise_server_exceptions=False) as client:
        yield client


_number = itertools.count(1)


def services_of(runner: asyncio.Runner, database_url: str, chroma: Server, **more: Any) -> AppServices:
    """What the application holds, on these servers, with the schema up to date. To be closed in the same runner."""
    made = Settings.model_validate(
        {
            "chroma_mode": "http",
            "chroma_host": "127.0.0.1",
            "chroma_port": chroma.port,
            "database_url": database_url,
            "embedding_dimension": DIMENSION,
            **more,
        }
    )
    url = app_database_url(SecretStr(database_url))
    upgrade(url, made.embedding_dimension)

    async def make() -> AppServices:
        return AppServices(made, url)

    return runner.run(make())


def indexer_of(services: AppServices) -> Indexer:
    """What an index worker does, on the same servers."""
    sessions: dict[Kind, Session] = {
        "memory": services.stores.memory.session,
        "passage": services.stores.rag.session,
    }
    writers = {kind: IndexWriter(session) for kind, session in sessions.items()}
    return Indexer(services.database, writers, services.embedder, batch_size=500, max_attempts=1)


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
    """The command that operators run; on a busy host workers are given time."""
    argv = [sys.executable, "-m", "uvicorn", "app.main:app", "--host", "127.0.0.1", "--port", str(port)]
    return argv if workers == 1 else [*argv, "--workers", str(workers), "--timeout-worker-healthcheck", "60"]


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
    with (
        loggers_as_they_were(),
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
def service(
    folder: Path, variables: Mapping[str, str] | None = None, *, workers: int = 1, before: Sequence[str] = ()
) -> Iterator[Service]:
    """Run `uvicorn app.main:app` in the folder with these variables until the block ends; `before` stands before it."""
    log = folder / "service.log"
    for attempt in range(PORT_ATTEMPTS):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        argv = [*before, *uvicorn_argv(port, workers)]
        process = Process(argv, log, env=child_environment(**(variables or {})), cwd=folder)
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
