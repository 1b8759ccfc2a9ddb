"""Made-up memories: in the form that PostgreSQL keeps them, and in the form that Chroma takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from app.core.embedding.hashing import HashingEmbedder
from app.core.memory.record import document_of, index_id, metadata_of
from app.core.memory.tenant import Tenant
from chromactl.stores.base import Batch

TENANT = Tenant("ann", "first")
DIMENSION = 768
WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "elo", "i", "orun", "u", "asti", "ebro")]
WORDS_A_MEMORY = 60  # about 300 characters
WORDS_A_QUERY = 6
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Memories:
    """`raw` as PostgreSQL keeps them; `vectors` float32[n, 768] of their contents, by the hashing provider."""

    raw: Sequence[dict[str, Any]]
    vectors: NDArray[np.float32]

    def finished(self, batch: int) -> Iterator[Batch]:
        """As Chroma takes them, cut into requests; ids from 1."""
        for start in range(0, len(self.raw), batch):
            raw = self.raw[start : start + batch]
            yield Batch(
                ids=[index_id(start + place) for place in range(1, len(raw) + 1)],
                embeddings=self.vectors[start : start + batch],
                documents=[document_of(one) for one in raw],
                uris=[None] * len(raw),
                metadatas=[metadata_of(one, _CREATED) for one in raw],
            )


def make(number: int, seed: int = 7) -> Memories:
    """So many memories; the same for the same seed."""
    random = Random(seed)  # noqa: S311 (no secret)
    raw = [_memory(random, place) for place in range(number)]
    embedder = HashingEmbedder(DIMENSION)
    return Memories(raw, embedder.embed([str(one["content"]) for one in raw]))


def queries(number: int, seed: int = 11) -> list[str]:
    """So many texts to search for."""
    random = Random(seed)  # noqa: S311 (no secret)
    return [" ".join(random.choices(WORDS, k=WORDS_A_QUERY)) for _ in range(number)]


def store(url: str, memories: Memories, *, embedded: bool) -> None:
    """Write them into memory_logs; the outbox follows by itself. `embedded`: with their embeddings."""
    columns = "user_id, project_id, kind, raw_data, embedding, embedding_model, created_at"
    model = HashingEmbedder(DIMENSION).model if embedded else None
    with (
        psycopg.connect(url) as connection,
        connection.cursor().copy(f"COPY memory_logs ({columns}) FROM STDIN".encode()) as copy,
    ):
        for raw, vector in zip(memories.raw, memories.vectors, strict=True):
            embedding = json.dumps(vector.tolist()) if embedded else None
            row = (TENANT.user_id, TENANT.project_id, "memory", json.dumps(raw), embedding, model, _CREATED)
            copy.write_row(row)


def _memory(random: Random, place: int) -> dict[str, Any]:
    metadata = {
        "date": f"2026-{random.randint(1, 12):02}-{random.randint(1, 28):02}",
        "task": random.choice(["plan", "review", "write", "test"]),
        "component": random.choice(["api", "index", "gateway", "docs"]),
        "priority": random.randint(1, 5),
        "weight": round(random.random(), 6),
        "open": random.random() < 0.5,
        "author": random.choice(["ann", "bob", "cid"]),
        "number": place,
    }
    return {"content": " ".join(random.choices(WORDS, k=WORDS_A_MEMORY)), "metadata": metadata}
