"""Writing: latency and lag at a steady rate; draining a backlog and rebuilding, against bare inserts."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import httpx
import psycopg
from bench.serving.load import drive
from bench.serving.memories import Memories, make, queries, store
from bench.serving.stage import Stage, stage

from chromactl.stores.base import CollectionSpec
from chromactl.stores.http_target import HttpTarget
from support.servers import chroma_server
from support.service import bearer, run_app

RATE = 200
RATE_A_USER = 10
API_WORKERS = 4
INDEX_WORKERS = 1
# Batch size and writers of the bare inserts: the fastest of these counts.
GRID = ((1000, 2), (2000, 2), (5000, 2))
DRAINING_WORKERS = 1
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"

Say = Callable[[str], None]


def writes(seconds: int) -> dict[str, float]:
    """At 200 writes a second: percentiles of a write's answer and of the time until Chroma has it, in ms."""
    with stage() as running, running.service(API_WORKERS) as service, running.index_workers(INDEX_WORKERS):
        first = service.http.post("/memories", json={"content": "the first"}, headers=bearer(running.key))
        first.raise_for_status()
        running.until(lambda waiting: waiting == 0)
        bodies = [{"content": text, "metadata": {"task": "write", "number": n}} for n, text in enumerate(queries(500))]
        settings = {
            "path": "/memories",
            "bodies": bodies,
            "headers": bearer(running.key),
            "record_url": f"{running.chroma.url}{COLLECTIONS}/{_key(running)}/get",
        }
        users = RATE // RATE_A_USER
        seen = drive("Writer", service.url, settings, users, seconds, running.folder)
    written, lag = seen["/memories"], seen["searchable"]
    return {
        "writes a second": written.per_second,
        "write p50": written.percentile(0.5),
        "write p99": written.percentile(0.99),
        "followed": float(lag.requests),
        "lag p50": lag.percentile(0.5),
        "lag p99": lag.percentile(0.99),
    }


def backlog(number: int, say: Say) -> dict[str, float]:
    """Seconds for so many memories: bare inserts, draining the outbox, the same with stored embeddings, a rebuild."""
    memories = make(number)
    seconds = {}
    for batch, writers in GRID:
        with TemporaryDirectory(prefix="chroma-stack-bench-") as folder, chroma_server(Path(folder) / "data") as server:
            seconds[f"inserts {batch} x {writers}"] = taken = _inserts(server.url, memories, batch, writers)
            say(f"bare inserts, batches of {batch} by {writers}: {taken:.1f} s")
    with stage() as running:
        store(running.database_url, memories, embedded=False)
        for way in ("drain and embed", "drain"):
            seconds[way] = _drain(running, number)
            say(f"{way}: {seconds[way]:.1f} s")
            if way == "drain and embed":
                _forget_index(running)
        said = run_app(running.folder, running.variables, "rebuild", "--json", timeout=1800)
        if said.returncode:
            raise RuntimeError(f"app rebuild ended with {said.returncode}: {said.stderr[-2000:]}")
        result = json.loads(said.stdout)
        if result["records"] != number:
            raise RuntimeError(f"app rebuild wrote {result['records']} records, and there are {number}")
        seconds["rebuild"] = float(result["seconds"])
        say(f"rebuild: {seconds['rebuild']:.1f} s")
    return seconds


def _inserts(url: str, memories: Memories, batch: int, writers: int) -> float:
    parts = list(memories.finished(batch))
    with closing(HttpTarget(url)) as target, ThreadPoolExecutor(writers) as pool:
        begun = perf_counter()
        staged = target.stage(CollectionSpec(name="bench", space="cosine"), "bench")
        rejects = [reject for found in pool.map(lambda part: target.write(staged, part), parts) for reject in found]
        seconds = perf_counter() - begun
        if rejects or target.count(staged) != len(memories.raw):
            raise RuntimeError(f"{len(rejects)} records were refused, the server counts {target.count(staged)}")
    return seconds


def _drain(running: Stage, number: int) -> float:
    with running.index_workers(DRAINING_WORKERS):
        # from the first batch on: the start of the process is none of it
        begun = running.until(lambda waiting: waiting < number)
        missing = number - running.waiting()
        seconds = running.until(lambda waiting: waiting == 0) - begun
    with httpx.Client(base_url=running.chroma.url, trust_env=False) as http:
        if (count := http.get(f"{COLLECTIONS}/{_key(running)}/count").json()) != number:
            raise RuntimeError(f"Chroma counts {count} records, and there are {number}")
    return seconds * number / (number - missing)


def _forget_index(running: Stage) -> None:
    """Have everything to do again, embeddings apart."""
    with httpx.Client(base_url=running.chroma.url, trust_env=False) as http:
        http.delete(f"{COLLECTIONS}/{running.collection}").raise_for_status()
    with psycopg.connect(running.database_url) as connection:
        connection.execute(
            "INSERT INTO outbox (memory_id, user_id, project_id, kind, operation) "
            "SELECT id, user_id, project_id, kind, 'upsert' FROM memory_logs ORDER BY id"
        )
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")


def _key(running: Stage) -> str:
    with httpx.Client(base_url=running.chroma.url, trust_env=False) as http:
        found: list[dict[str, Any]] = http.get(COLLECTIONS).json()
    return str(next(one["id"] for one in found if one["name"] == running.collection))
