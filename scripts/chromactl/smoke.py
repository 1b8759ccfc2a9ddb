"""A smoke test: does a database answer the operators' own queries, and fast enough?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from chromactl.embedding.provider import Embedder, HashEmbedder
from chromactl.errors import EmbeddingError, PreconditionError, UsageError
from chromactl.stores.base import Collection, Source
from chromactl.stores.names import is_work_collection

REPEATS = 5
RESULTS = 5
LIMIT_MS = 300.0

Entry = TypeVar("Entry")


class Query(BaseModel):
    """One entry of a test query file. Without a collection it is asked of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    text: str
    collection: str | None = None
    category: str = ""
    where: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query came to: the fewest results of any collection asked, milliseconds of every try."""

    query: Query
    results: int
    milliseconds: list[float]


@dataclass(frozen=True, slots=True)
class SmokeReport:
    """All answers; `limit_ms` is what the slowest twentieth has to stay below."""

    url: str
    answers: list[Answer]
    limit_ms: float

    def percentile(self, percent: float) -> float:
        """A percentile of the latencies of all tries, in milliseconds."""
        return float(np.percentile([value for answer in self.answers for value in answer.milliseconds], percent))

    @property
    def failures(self) -> list[str]:
        """What is wrong, a sentence each."""
        sentences = [
            f"no result for {answer.query.text!r} in {answer.query.collection or 'a collection'}"
            for answer in self.answers
            if answer.results == 0
        ]
        if self.percentile(95) >= self.limit_ms:
            sentences.append(f"p95 is {self.percentile(95):.0f} ms, the limit {self.limit_ms:.0f} ms")
        return sentences

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; latencies in milliseconds."""
        return {
            "command": "smoke",
            "changed": False,
            "url": self.url,
            "passed": not self.failures,
            "failures": self.failures,
            "latency_ms": {"p50": round(self.percentile(50), 2), "p95": round(self.percentile(95), 2)},
            "queries": [
                {
                    "text": answer.query.text,
                    "collection": answer.query.collection,
                    "category": answer.query.category,
                    "results": answer.results,
                    "latency_ms": round(float(np.median(answer.milliseconds)), 2),
                }
                for answer in self.answers
            ],
        }


def read_queries(path: Path) -> list[Query]:
    """The queries in a file: a JSON list of {"text", "collection" (or null), "category", "where" (optional)}.

    Raises:
        UsageError: as in `read_entries`.
    """
    return read_entries(path, Query)


def read_entries(path: Path, kind: type[Entry]) -> list[Entry]:
    """The entries of this kind in a file of test queries, a JSON list.

    Raises:
        UsageError: there is no such file, it is not of that form, or empty.
    """
    try:
        queries: list[Entry] = TypeAdapter(list[kind]).validate_python(  # type: ignore[valid-type]
            orjson.loads(path.read_bytes())
        )
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check --test-queries") from error
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path}: not JSON ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path}: entry {'.'.join(map(str, first['loc']))}: {what}") from error
    if not queries:
        raise UsageError(f"{path}: holds no queries")
    return queries


def smoke(
    store: Source, queries: list[Query], limit_ms: float = LIMIT_MS, embedder: Embedder | None = None
) -> SmokeReport:
    """Ask every query several times; without an embedder, the hashing one is taken.

    Raises:
        PreconditionError: a query names a collection that is not there, or there is none at all.
        EmbeddingError: the embedder does not give vectors, or of another dimension than a collection's.
    """
    there = {entry.name: entry for entry in store.collections() if not is_work_collection(entry.name)}
    asked: list[tuple[Query, list[Collection]]] = []
    for query in queries:
        if (query.collection is not None and query.collection not in there) or not there:
            raise PreconditionError(
                f"{store.url}: no collection {query.collection or 'at all'} to ask {query.text!r}; "
                f"it holds {', '.join(there) or 'nothing'}"
            )
        asked.append((query, list(there.values()) if query.collection is None else [there[query.collection]]))
    vectors = _vectors(asked, embedder or HashEmbedder())
    return SmokeReport(store.url, [_ask(store, query, some, vectors) for query, some in asked], limit_ms)


Vectors = dict[tuple[str, str], NDArray[np.float32]]
"""By a query's text and a collection's name."""


def _vectors(asked: list[tuple[Query, list[Collection]]], embedder: Embedder) -> Vectors:
    """All vectors, before the first question: latency is the database's alone."""
    texts: dict[str, list[str]] = {}
    collections: dict[str, Collection] = {}
    for query, some in asked:
        for collection in some:
            collections[collection.name] = collection
            texts.setdefault(collection.name, []).append(query.text)
    found: Vectors = {}
    for name, collection in collections.items():
        dimension = collection.spec.dimension
        rows = embedder.embed(texts[name], dimension or 1)
        if dimension is not None and rows.shape[1] != dimension:
            raise EmbeddingError(
                f"{embedder.name}: its vectors have dimension {rows.shape[1]}, those of {name} {dimension}; name the "
                "model that made them (--embedding-model)"
            )
        found |= {(text, name): row for text, row in zip(texts[name], rows, strict=True)}
    return found


def _ask(store: Source, query: Query, collections: list[Collection], vectors: Vectors) -> Answer:
    milliseconds: list[float] = []
    results: list[int] = []
    for collection in collections:
        vector = vectors[query.text, collection.name]
        for _ in range(REPEATS):
            begun = perf_counter()
            found = store.nearest(collection, vector, RESULTS, query.where)
            milliseconds.append(1000 * (perf_counter() - begun))
        results.append(len(found))
    return Answer(query, min(results), milliseconds)
