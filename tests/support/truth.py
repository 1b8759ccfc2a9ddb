"""Whether Chroma holds what PostgreSQL says, read by none of the service's own code: every record, every value."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import psycopg

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
PAGE = 1000
# A cosine collection keeps vectors normalised anew, which costs a rounding.
TOLERANCE = 3e-7
_TENANTS = re.compile(r"(mem|rag)\.[a-z0-9-]*\.[0-9a-f]{32}")
_PREFIX = {"memory": "mem", "passage": "rag"}


@dataclass(frozen=True)
class Truth:
    """A database of the service, and the server that its index is in."""

    database_url: str
    chroma_url: str

    def differences(self) -> list[str]:
        """One line for each record that is missing, too many, or not what it should be; none when all is well."""
        wanted = self._wanted()
        found = self._found()
        lines = []
        for name in sorted(wanted.keys() | found.keys()):
            want, have = wanted.get(name, {}), found.get(name, {})
            lines += [f"{name} lacks {id_}" for id_ in sorted(want.keys() - have.keys())]
            lines += [f"{name} has {id_} besides" for id_ in sorted(have.keys() - want.keys())]
            for id_ in sorted(want.keys() & have.keys()):
                lines += [f"{name} {id_}: {line}" for line in _compared(want[id_], have[id_])]
        return lines

    def waiting(self) -> int:
        """Events in the outbox."""
        return int(self._rows("SELECT count(*) FROM outbox")[0][0])

    def letters(self) -> int:
        """Dead letters."""
        return int(self._rows("SELECT count(*) FROM dead_letters")[0][0])

    def memories(self) -> int:
        """Rows of memory_logs."""
        return int(self._rows("SELECT count(*) FROM memory_logs")[0][0])

    def _rows(self, query: str) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query.encode()).fetchall()

    def _wanted(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        wanted: dict[str, dict[str, tuple[Any, ...]]] = {}
        query = """
            SELECT id, user_id, project_id, kind, raw_data, embedding::text, extract(epoch FROM created_at)
            FROM memory_logs
        """
        for id_, user, project, kind, raw_data, embedding, created in self._rows(query):
            digest = hashlib.sha256(f"{user}\x00{project}".encode()).hexdigest()[:32]
            given = {key: value for key, value in raw_data["metadata"].items() if value not in (None, [])}
            metadata = {**given, "created_at": int(created)}
            vector = None if embedding is None else np.array(json.loads(embedding), dtype=np.float32)
            wanted.setdefault(f"{_PREFIX[kind]} {digest}", {})[f"memory_log_{id_}"] = (raw_data, metadata, vector)
        return wanted

    def _found(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        found: dict[str, dict[str, tuple[Any, ...]]] = {}
        with httpx.Client(base_url=self.chroma_url, timeout=60, trust_env=False) as http:
            for collection in http.get(COLLECTIONS, params={"limit": 10_000}).raise_for_status().json():
                if _TENANTS.fullmatch(collection["name"]) is None:
                    continue
                prefix, _, digest = collection["name"].split(".")
                records = found.setdefault(f"{prefix} {digest}", {})
                path = f"{COLLECTIONS}/{collection['id']}"
                number = int(http.get(f"{path}/count").raise_for_status().json())
                for offset in range(0, number, PAGE):
                    body = {"limit": PAGE, "offset": offset, "include": ["documents", "metadatas", "embeddings"]}
                    got = http.post(f"{path}/get", json=body).raise_for_status().json()
                    columns = (got["ids"], got["documents"], got["metadatas"], got["embeddings"])
                    for id_, document, metadata, vector in zip(*columns, strict=True):
                        assert id_ not in records, f"{collection['name']} holds {id_} twice"
                        records[id_] = (json.loads(document), metadata, np.array(vector, dtype=np.float32))
                assert len(records) == number, f"{collection['name']} counts {number} and gives {len(records)}"
        return found


def _compared(want: tuple[Any, ...], have: tuple[Any, ...]) -> list[str]:
    lines = []
    if want[0] != have[0]:
        lines.append(f"the document is {have[0]}, should be {want[0]}")
    if want[1] != have[1] or any(type(have[1][key]) is not type(value) for key, value in want[1].items()):
        lines.append(f"the metadata are {have[1]}, should be {want[1]}")
    if want[2] is None:
        lines.append("PostgreSQL has no embedding")
    elif want[2].shape != have[2].shape or float(np.abs(want[2] - have[2]).max()) > TOLERANCE:
        lines.append("the embedding is another")
    return lines
