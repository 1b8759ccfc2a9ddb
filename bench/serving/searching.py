"""Searching: what the service adds to one query, and what is left of Chroma's throughput when both share the cores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import httpx
from bench.serving.load import drive
from bench.serving.memories import DIMENSION, make, queries, store
from bench.serving.stage import Stage, stage

from app.core.embedding.hashing import HashingEmbedder
from chromactl.stores.http_target import HttpTarget
from support.service import Service, bearer

LIMIT = 10
QUERIES = 500
WARM_UP = 50
WORKERS = 4
USERS = 16
SERVICE_PATH = "/memories/search"
INCLUDE = ["documents", "metadatas", "distances"]


@dataclass(frozen=True)
class Both:
    """The same queries for the service and straight for Chroma, as requests that are ready to send."""

    service: list[dict[str, Any]]
    chroma: list[dict[str, Any]]
    chroma_path: str


@contextmanager
def filled(memories: int) -> Iterator[tuple[Stage, Both]]:
    """A stage whose index holds so many memories."""
    with stage() as running:
        store(running.database_url, make(memories), embedded=True)
        with running.index_workers(1):
            running.until(lambda waiting: waiting == 0)
        texts = queries(QUERIES)
        vectors = HashingEmbedder(DIMENSION).embed(texts)
        with closing(HttpTarget(running.chroma.url)) as target:
            (key,) = [one.key for one in target.collections() if one.name == running.collection]
        path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{key}/query"
        straight = [
            {"query_embeddings": [vector.tolist()], "n_results": LIMIT, "include": INCLUDE} for vector in vectors
        ]
        yield running, Both([{"query": text, "limit": LIMIT} for text in texts], straight, path)


def overhead(running: Stage, both: Both) -> dict[str, float]:
    """Medians in ms of one search at a time, by the service and straight, taking turns."""
    times: dict[str, list[float]] = {"service": [], "straight": []}
    with running.service(1) as service, httpx.Client(base_url=running.chroma.url, trust_env=False) as chroma:
        for place, (ours, theirs) in enumerate(zip(both.service, both.chroma, strict=True)):
            for way, client, path, body, headers in (
                ("service", service.http, SERVICE_PATH, ours, bearer(running.key)),
                ("straight", chroma, both.chroma_path, theirs, {}),
            ):
                content = json.dumps(body).encode()
                begun = perf_counter()
                answer = client.post(path, content=content, headers={"content-type": "application/json", **headers})
                seconds = perf_counter() - begun
                if answer.status_code != 200 or _found(answer.json()) != LIMIT:
                    raise RuntimeError(f"{way}: {answer.status_code} {answer.text[:300]}")
                if place >= WARM_UP:
                    times[way].append(1000 * seconds)
    return {way: median(found) for way, found in times.items()}


def saturation(running: Stage, both: Both, seconds: int) -> dict[str, float]:
    """Searches a second with as many at once as the machine takes, by the service and straight."""
    with running.service(WORKERS) as service:
        straight = _drive(running, running.chroma.url, both.chroma_path, both.chroma, {}, seconds)
        ours = _drive(running, service.url, SERVICE_PATH, both.service, bearer(running.key), seconds)
        _still_right(service, running, both)
    return {"service": ours, "straight": straight}


def _drive(
    running: Stage, host: str, path: str, bodies: list[dict[str, Any]], headers: dict[str, str], seconds: int
) -> float:
    settings = {"path": path, "bodies": bodies, "headers": headers}
    return drive("Searcher", host, settings, USERS, seconds, running.folder)[path].per_second


def _still_right(service: Service, running: Stage, both: Both) -> None:
    answer = service.http.post(SERVICE_PATH, json=both.service[0], headers=bearer(running.key))
    if answer.status_code != 200 or answer.json()["degraded"]:
        raise RuntimeError(f"the service does not answer from Chroma any more: {answer.status_code}")


def _found(answer: dict[str, Any]) -> int:
    return len(answer["results"] if "results" in answer else answer["ids"][0])
