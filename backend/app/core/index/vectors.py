"""Embeddings on their way to PostgreSQL and back: fast, and exact to the bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
from numpy import float32
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# A row that somebody has locked is left out: a writer must not wait for us, nor we for an open psql session.
_KEEP = text("""
    WITH unlocked AS (
        SELECT m.id, v.embedding
        FROM unnest(CAST(:ids AS bigint[]), CAST(:revisions AS bigint[]), CAST(:embeddings AS text[]))
             AS v (id, revision, embedding)
        JOIN memory_logs m ON m.id = v.id AND m.revision = v.revision
        FOR NO KEY UPDATE OF m SKIP LOCKED
    )
    UPDATE memory_logs m SET embedding = u.embedding::vector, embedding_model = :model
    FROM unlocked u
    WHERE m.id = u.id
    RETURNING m.id
""")
_UNCHANGED = text("""
    SELECT v.id
    FROM unnest(CAST(:ids AS bigint[]), CAST(:revisions AS bigint[])) AS v (id, revision)
    JOIN memory_logs m ON m.id = v.id AND m.revision = v.revision
""")
# pgvector's binary form: two bytes of dimension, two unused, then big-endian floats.
_HEADER = 4

# (id, revision): float32[dim]
Embeddings = Mapping[tuple[int, int], NDArray[float32]]


async def keep(connection: AsyncConnection, embeddings: Embeddings, model: str) -> list[int]:
    """Store each with its record where that still has this revision; the ids of those that somebody has locked now.

    Those are not stored. A record that has changed since is nobody's loss: its change brought an event of its own.
    """
    values = {
        "ids": [id_ for id_, _ in embeddings],
        "revisions": [revision for _, revision in embeddings],
        "embeddings": [_as_text(vector) for vector in embeddings.values()],
        "model": model,
    }
    kept = set((await connection.execute(_KEEP, values)).scalars())
    left = [(id_, revision) for id_, revision in embeddings if id_ not in kept]
    if not left:
        return []
    asked = {"ids": [id_ for id_, _ in left], "revisions": [revision for _, revision in left]}
    return list((await connection.execute(_UNCHANGED, asked)).scalars())


def from_bytes(sent: bytes | None) -> NDArray[float32] | None:
    """What vector_send gave, as float32[dim]."""
    return None if sent is None else np.frombuffer(sent, dtype=">f4", offset=_HEADER).astype(float32)


def _as_text(vector: NDArray[float32]) -> str:
    # the shortest digits that are this float32 and no other
    return orjson.dumps(np.ascontiguousarray(vector, dtype=float32), option=orjson.OPT_SERIALIZE_NUMPY).decode()
