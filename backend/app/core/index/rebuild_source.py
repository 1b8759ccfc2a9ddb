"""What the index is rebuilt from and compared with: the records in PostgreSQL, in bulk and without Python floats.

A record's `version` is PostgreSQL's own (xmin): another one after every change of the row, also of its embedding alone.
Reading goes page by page, each in a transaction of its own: one snapshot for all of it would keep PostgreSQL from
clearing up after the outbox as long as a rebuild lasts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from app.core.database.direct import Connection
from app.core.memory.tenant import Kind, Tenant

# A piece of work: two thousand records are written fastest (docs/benchmarks.md), if they are not long.
PIECE_RECORDS = 2000
PIECE_BYTES = 24 * 2**20
_FETCH = 200

_PARTS = """
    SELECT user_id, project_id, kind, sum(records)::bigint FROM (
        SELECT user_id, project_id, kind, count(*) AS records FROM memory_logs GROUP BY 1, 2, 3
        UNION ALL SELECT DISTINCT user_id, project_id, kind, 0 FROM tombstones
        UNION ALL SELECT DISTINCT user_id, project_id, kind, 0 FROM outbox
        UNION ALL SELECT user_id, project_id, kind, 0 FROM api_keys, (VALUES ('memory'), ('passage')) AS k (kind)
    ) known
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_COLUMNS = """
    SELECT id, xmin::text::bigint, raw_data, created_at, embedding_model = %(model)s, octet_length(raw_data::text),
           embedding
    FROM memory_logs
    WHERE user_id = %(user)s AND project_id = %(project)s AND kind = %(kind)s
"""
_PAGE = f"{_COLUMNS} AND id > %(after)s ORDER BY id LIMIT %(limit)s".encode()
_SOME = f"{_COLUMNS} AND id = ANY(%(ids)s)".encode()


@dataclass(frozen=True, slots=True)
class Part:
    """A tenant's records of one kind: what one collection of the index holds. `records` were there when it began."""

    tenant: Tenant
    kind: Kind
    records: int

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self.tenant.collection(self.kind)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some records of one part, a column each. `vectors` is float32[n, dim], NaN where there is no embedding.

    `current` says of which records there is an embedding, and of the configured model.
    """

    ids: list[int]
    versions: list[int]
    raw_datas: list[Any]
    created: list[datetime]
    current: NDArray[np.bool_]
    vectors: NDArray[float32]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Rows:
        """The given rows, in the given order."""
        return Rows(
            [self.ids[row] for row in rows],
            [self.versions[row] for row in rows],
            [self.raw_datas[row] for row in rows],
            [self.created[row] for row in rows],
            self.current[list(rows)],
            self.vectors[list(rows)],
        )


class Source:
    """The records of PostgreSQL. One thread at a time uses it, and nobody else its connection."""

    def __init__(self, connection: Connection, model: str, dimension: int) -> None:
        self._connection = connection
        self._model = model
        self._dimension = dimension

    def parts(self) -> list[Part]:
        """Every part that there is or was: tenants with records, with keys, with deleted records, with events."""
        rows = self._connection.execute(_PARTS.encode()).fetchall()
        return [Part(Tenant(user, project), kind, records) for user, project, kind, records in rows]

    def pages(self, part: Part) -> Iterator[Rows]:
        """Every record, by id. One that is written meanwhile may be missed."""
        after = -(2**63)
        ended = False
        while not ended:
            read = 0
            for rows in self._read(part, _PAGE, {"after": after, "limit": PIECE_RECORDS}):
                read += len(rows)
                after = rows.ids[-1]
                yield rows
            ended = read < PIECE_RECORDS

    def some(self, part: Part, ids: Sequence[int]) -> Iterator[Rows]:
        """Those of these records that there are."""
        for start in range(0, len(ids), PIECE_RECORDS):
            yield from self._read(part, _SOME, {"ids": list(ids[start : start + PIECE_RECORDS])})

    def _read(self, part: Part, query: bytes, more: dict[str, Any]) -> Iterator[Rows]:
        values = {
            "model": self._model,
            "user": part.tenant.user_id,
            "project": part.tenant.project_id,
            "kind": part.kind,
            **more,
        }
        with self._connection.transaction(), self._connection.cursor("records", binary=True) as cursor:
            cursor.execute(query, values)
            found: list[tuple[Any, ...]] = []
            size = 0
            while some := cursor.fetchmany(_FETCH):
                for row in some:
                    bytes_ = row[5] + 4 * self._dimension * 4 // 3
                    if found and size + bytes_ > PIECE_BYTES:
                        yield self._rows(found)
                        found, size = [], 0
                    found.append(row)
                    size += bytes_
        if found:
            yield self._rows(found)

    def _rows(self, found: list[tuple[Any, ...]]) -> Rows:
        return Rows(
            ids=[row[0] for row in found],
            versions=[row[1] for row in found],
            raw_datas=[row[2] for row in found],
            created=[row[3] for row in found],
            current=np.fromiter((bool(row[4]) for row in found), np.bool_, len(found)),
            vectors=self._vectors([row[6] for row in found]),
        )

    def _vectors(self, sent: Sequence[bytes | None]) -> NDArray[float32]:
        """As pgvector sends a vector: its dimension and a reserved number (int16 each), then float32, big-endian."""
        form = np.dtype([("dimension", ">i2"), ("reserved", ">i2"), ("vector", ">f4", (self._dimension,))])
        none = b"\0\0\0\0" + np.full(self._dimension, np.nan, ">f4").tobytes()
        joined = b"".join(none if one is None else one for one in sent)
        return np.frombuffer(joined, form)["vector"].astype(float32)
