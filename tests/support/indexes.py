"""PostgreSQL and the index that follows it, for tests: filled, written to, and compared without the service's help."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from chromadb.types import Collection
from psycopg.types.json import Jsonb

from app.core.chroma.resolver import by_name
from app.core.memory.tenant import Kind, Tenant
from support.databases import Database, assert_holds
from support.records import Record
from support.servers import Process
from support.service import DIMENSION, app_in_process, child_environment

ADD = b"INSERT INTO memory_logs (user_id, project_id, kind, document_id, raw_data) VALUES (%s, %s, %s, %s, %s)"
# one of the tenant's first hundred in an order that has nothing to do with their age
_ONE = b"""(
    SELECT id FROM memory_logs WHERE user_id = %s AND project_id = %s AND kind = %s
    ORDER BY mod(id * 7919, 1009) LIMIT 1 OFFSET %s
)"""
REMOVE = b"DELETE FROM memory_logs WHERE id = " + _ONE
CHANGE = b"UPDATE memory_logs SET raw_data = %s WHERE id = " + _ONE

ANN, BOB = Tenant("ann", "first"), Tenant("bob", "second")
DEADLINE_SECONDS = 60.0


def raw_data(number: int) -> dict[str, Any]:
    """What somebody remembers: texts with some words in common, metadata of every type."""
    metadata = {
        "number": number,
        "weight": number / 7,
        "odd": number % 2 == 1,
        "name": f"ñame {number}",
        "tags": ["all", f"tag {number % 5}"],
    }
    return {"content": f"memory {number} of rain and {number % 17} more", "metadata": metadata}


@dataclass
class Place:
    """A database of PostgreSQL's, one of Chroma's, and the settings that name both."""

    folder: Path
    url: str
    chroma: Database
    dimension: int = DIMENSION
    more: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "CHROMA_MODE": "http",
            "CHROMA_HOST": "127.0.0.1",
            "CHROMA_PORT": str(self.chroma.server.port),
            "CHROMA_DATABASE": self.chroma.name,
            "CHROMA_RESOLVE_SECONDS": "0.2",
            "DATABASE_URL": self.url,
            "EMBEDDING_DIMENSION": str(self.dimension),
            "INDEX_POLL_SECONDS": "0.2",
            **self.more,
        }

    # PostgreSQL

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Do it in a transaction of its own; its rows, if it gives any."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def remember(self, tenant: Tenant, numbers: range, kind: Kind = "memory") -> None:
        """Write records, as the service does: with their events."""
        with psycopg.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.executemany(ADD, [_row(tenant, kind, number) for number in numbers])

    def without_events(self) -> None:
        """Nothing waits for the index workers."""
        self.sql("DELETE FROM outbox")

    def wait_for_workers(self) -> None:
        """Until nothing waits for them any more."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.sql("SELECT id FROM outbox LIMIT 1"):
            assert time.monotonic() < deadline, "the outbox is never empty"
            time.sleep(0.1)

    def wanted(self) -> dict[str, list[Record]]:
        """What the index has to hold, by collection: of every record of PostgreSQL all that belongs there."""
        found: dict[str, list[Record]] = {}
        rows = self.sql(
            "SELECT id, user_id, project_id, kind, raw_data, extract(epoch FROM created_at), embedding::real[] "
            "FROM memory_logs ORDER BY id"
        )
        for id_, user, project, kind, raw, created, embedding in rows:
            metadata = {**raw["metadata"], "created_at": int(created)}
            document = json.dumps(raw, ensure_ascii=False, separators=(",", ":"))
            record = Record(f"memory_log_{id_}", np.asarray(embedding, np.float32), document, None, metadata)
            found.setdefault(Tenant(user, project).collection(kind), []).append(record)
        return found

    # Chroma

    def assert_indexed(self, *, with_leftovers: bool = False) -> None:
        """The index holds what PostgreSQL does: each record, whole, and no other. A run may have left something."""
        wanted = self.wanted()
        entries = self.chroma.request("GET", "/collections")
        called = {entry["id"]: entry["name"] for entry in entries}
        live = {name: called[str(model.id)] for name, model in by_name(map(Collection.from_json, entries)).items()}
        assert with_leftovers or set(live) == set(called.values())
        for name in set(live) | set(wanted):
            records = wanted.get(name, [])
            assert_holds(self.chroma.records(live[name]) if records else {}, records, "cosine")
            assert self.chroma.counts()[live[name]] == len(records)

    # The service's commands

    def app(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `app …` to its end, in this process: starting one takes longer than all that most tests do."""
        return app_in_process(self.folder, {**self.variables, **variables}, *arguments)

    def rebuild(self, *arguments: str, code: int = 0, **variables: str) -> dict[str, Any]:
        """What `app rebuild --json` says, after it ended with this code."""
        return self._json("rebuild", *arguments, code=code, **variables)

    def verify(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What `app verify --json` says."""
        return self._json("verify", *arguments, code=code)

    def _json(self, *arguments: str, code: int, **variables: str) -> dict[str, Any]:
        ended = self.app(*arguments, "--json", **variables)
        assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
        said: dict[str, Any] = json.loads(ended.stdout)
        return said

    def rebuilding(self, *arguments: str, **variables: str) -> Process:
        """`app rebuild --json`, to be started and watched."""
        argv = [sys.executable, "-m", "app", "rebuild", "--json", *arguments]
        log = self.folder / "rebuild.log"
        log.unlink(missing_ok=True)
        return Process(argv, log, child_environment(**{**self.variables, **variables}), self.folder)


@contextmanager
def writing(place: Place, tenants: Mapping[Tenant, Kind], seed: int = 0) -> Iterator[threading.Event]:
    """Add, change and delete records of these tenants, about a hundred times a second, until the block ends."""
    over = threading.Event()
    trouble: list[BaseException] = []

    def write() -> None:
        try:
            chance = random.Random(seed)  # noqa: S311 (a test has to be repeatable)
            number = 100_000
            with psycopg.connect(place.url, autocommit=True) as connection:
                while not over.wait(0.01):
                    tenant = chance.choice(list(tenants))
                    number += 1
                    _write_once(connection, tenant, tenants[tenant], chance, number)
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join()
    assert trouble == []


def _write_once(
    connection: psycopg.Connection[Any], tenant: Tenant, kind: Kind, chance: random.Random, number: int
) -> None:
    what = chance.choice(["add", "add", "change", "change", "change", "remove"])
    if what == "add":
        connection.execute(ADD, _row(tenant, kind, number))
        return
    one = (tenant.user_id, tenant.project_id, kind, chance.randrange(100))
    if what == "remove":
        connection.execute(REMOVE, one)
    else:
        fewer = {"content": f"changed to {number}", "metadata": {"number": number}}
        connection.execute(CHANGE, (Jsonb(chance.choice([raw_data(number), fewer])), *one))


def _row(tenant: Tenant, kind: Kind, number: int) -> tuple[Any, ...]:
    document = uuid.uuid4() if kind == "passage" else None
    return tenant.user_id, tenant.project_id, kind, document, Jsonb(raw_data(number))
