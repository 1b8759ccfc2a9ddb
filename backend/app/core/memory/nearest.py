"""Search without Chroma: the nearest of a tenant's records by PostgreSQL, exactly, one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy import float32
from numpy.typing import NDArray
from sqlalchemy import Row, select

from app.core.chroma.filters import Filter
from app.core.chroma.hits import score_of
from app.core.database.database import Database
from app.core.database.schema import memory_logs
from app.core.found import Match
from app.core.memory.conditions import condition
from app.core.memory.record import PASSAGE, SOURCE, moment, of_caller, seconds
from app.core.memory.tenant import Kind, Tenant

# That of every collection of a tenant, so that distances and scores mean the same from here.
METRIC = "cosine"
_COLUMNS: Sequence[Any] = [memory_logs.c[name] for name in ("id", "raw_data", "created_at", "document_id")]


class Nearest:
    """The tenants' records of one kind, as far as they have an embedding of the model."""

    def __init__(self, database: Database, kind: Kind, model: str) -> None:
        self._database = database
        self._kind = kind
        self._model = model

    async def search(self, tenant: Tenant, vector: NDArray[float32], limit: int, meaning: Filter | None) -> list[Match]:
        """The `limit` records nearest to vector (float32[dim]), nearest first.

        Raises DatabaseUnavailable, Overloaded.
        """
        distance = memory_logs.c.embedding.cosine_distance(vector).label("distance")
        query = (
            select(*_COLUMNS, distance)
            .where(
                memory_logs.c.user_id == tenant.user_id,
                memory_logs.c.project_id == tenant.project_id,
                memory_logs.c.kind == self._kind,
                memory_logs.c.embedding_model == self._model,
            )
            .order_by(distance, memory_logs.c.id)
            .limit(limit)
        )
        if meaning is not None:
            query = query.where(condition(meaning))
        async with self._database.begin() as connection:
            return [self._match(row) for row in await connection.execute(query)]

    def _match(self, row: Row[*tuple[Any, ...]]) -> Match:
        # of a vector without direction there is no cosine: Chroma says 1, PostgreSQL NaN
        distance = 1.0 if math.isnan(row.distance) else row.distance
        given = row.raw_data.get("metadata")
        of_passage = given if self._kind == "passage" and isinstance(given, Mapping) else {}
        return Match(
            id=str(row.id),
            collection=None,
            content=row.raw_data.get("content"),
            metadata=of_caller(row.raw_data, self._kind),
            metric=METRIC,
            distance=distance,
            score=score_of(METRIC, distance),
            created_at=moment(seconds(row.created_at)),
            document_id=row.document_id,
            source=of_passage.get(SOURCE),
            passage=of_passage.get(PASSAGE),
        )
