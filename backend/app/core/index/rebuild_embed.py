"""Embeddings that a rebuild makes, and keeps where they belong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.bulk import PATIENCE_SECONDS
from app.core.database.direct import Connection
from app.core.embedding.provider import EmbeddingProvider
from app.core.errors import EmbeddingUnavailable

log = logging.getLogger(__name__)

# Records of one transaction: nobody who changes one of them waits longer than for these.
_KEPT_AT_ONCE = 500

# What others have locked is left out, never waited for: they may be waiting for something that is locked here.
_KEEP = b"""
    WITH free AS (
        SELECT m.id FROM memory_logs m JOIN made ON made.id = m.id AND made.version = m.xmin::text::bigint
        FOR NO KEY UPDATE OF m SKIP LOCKED
    )
    UPDATE memory_logs m SET embedding = made.embedding, embedding_model = %s
    FROM made WHERE made.id = m.id AND m.id IN (SELECT id FROM free)
    RETURNING m.id, m.xmin::text::bigint
"""


class Embedder:
    """Embeds texts, and asks again for a minute while the provider is away. Threads may share it."""

    def __init__(self, provider: EmbeddingProvider, pause: Callable[[float], None]) -> None:
        self._provider = provider
        self._pause = pause

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        """float32[n, dim]. Raises EmbeddingUnavailable, TextRefused."""
        delay, waited = 1.0, 0.0
        while True:
            try:
                return self._provider.embed(texts)
            except EmbeddingUnavailable as error:
                if waited + delay > PATIENCE_SECONDS:
                    raise
                log.warning("asking again in %.0f s: %s", delay, error)
            self._pause(delay)
            waited += delay
            delay *= 2


class Keeper:
    """Stores embeddings with their records. One thread at a time uses it, and nobody else its connection."""

    def __init__(self, connection: Connection, model: str, dimension: int) -> None:
        self._connection = connection
        self._model = model
        self._dimension = dimension
        connection.execute(
            b"CREATE TEMPORARY TABLE made (id bigint, version bigint, embedding vector) ON COMMIT DELETE ROWS"
        )

    def keep(self, ids: Sequence[int], versions: Sequence[int], vectors: NDArray[float32]) -> dict[int, int]:
        """Store vectors, float32[n, dim], where the records are still of these versions, and return their new ones."""
        kept: dict[int, int] = {}
        for start in range(0, len(ids), _KEPT_AT_ONCE):
            part = slice(start, start + _KEPT_AT_ONCE)
            with self._connection.transaction():
                with self._connection.cursor() as cursor, cursor.copy(b"COPY made FROM STDIN (FORMAT binary)") as copy:
                    copy.write(self._rows(ids[part], versions[part], vectors[part]))
                kept.update(self._connection.execute(_KEEP, [self._model]).fetchall())
        return kept

    def _rows(self, ids: Sequence[int], versions: Sequence[int], vectors: NDArray[float32]) -> bytes:
        """In COPY's binary format: of each row the number of fields, and each field after its length, big-endian."""
        form = np.dtype(
            [
                ("fields", ">i2"),
                *(("length of id", ">i4"), ("id", ">i8")),
                *(("length of version", ">i4"), ("version", ">i8")),
                *(("length of vector", ">i4"), ("dimension", ">i2"), ("reserved", ">i2")),
                ("vector", ">f4", (self._dimension,)),
            ]
        )
        rows = np.zeros(len(ids), form)
        rows["fields"] = 3
        rows["length of id"] = rows["length of version"] = 8
        rows["length of vector"] = 4 + 4 * self._dimension
        rows["dimension"] = self._dimension
        rows["id"], rows["version"], rows["vector"] = ids, versions, vectors
        return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"
