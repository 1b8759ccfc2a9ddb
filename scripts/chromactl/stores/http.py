"""A ChromaDB server to read from, spoken to in its v2 REST API (0.5 to 1.x).

Facts this rests on (versions tested): a name is resolved to an id once and the id used from then on;
`get(ids)` keeps no order and skips what is not there; one record without a vector makes 1.x refuse the whole
page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from chromactl.errors import (
    ChromactlError,
    MissingCollectionError,
    NotChromaError,
    PreconditionError,
    RequestError,
)
from chromactl.stores import collection_json
from chromactl.stores.base import Batch, Collection, Neighbour, Unreadable, Where, concatenate
from chromactl.stores.transport import Transport

log = logging.getLogger(__name__)

READ_RECORDS = 500
LIST_COLLECTIONS = 1000
UNREADABLE_PAUSES = (0.2, 1.0)  # seconds
_EVERYTHING = ["embeddings", "metadatas", "documents", "uris"]
_TEXT = ["metadatas", "documents", "uris"]


class HttpStore:
    """One database of a Chroma server.

    Raises (when made):
        UnreachableError, AuthenticationError, NotChromaError: as their names say.
        PreconditionError: the tenant or database is not there, or the server speaks only v1.
    """

    def __init__(
        self,
        url: str,
        *,
        token: SecretStr | None = None,
        tenant: str = "default_tenant",
        database: str = "default_database",
        side: str = "source",
        transport: Transport | None = None,
    ) -> None:
        self.url = url
        self._http = transport or Transport(url, token, side)
        self._root = f"/api/v2/tenants/{quote(tenant, safe='')}/databases/{quote(database, safe='')}"
        try:
            self._greet(tenant, database)
        except ChromactlError:
            self._http.close()
            raise

    def _greet(self, tenant: str, database: str) -> None:
        try:
            heartbeat = self._http.get("/api/v2/heartbeat", tries=1)
        except RequestError as error:
            if error.status == 404 and self._speaks_v1():
                raise PreconditionError(
                    f"{self.url}: this server speaks only the v1 API (Chroma 0.4 or older); "
                    "upgrade it to 0.5 or 0.6 first, or migrate a copy of its directory (path:/dir)"
                ) from error
            raise NotChromaError(self._not_chroma(f"HTTP {error.status}")) from error
        if not isinstance(heartbeat, dict) or "nanosecond heartbeat" not in heartbeat:
            raise NotChromaError(self._not_chroma("no heartbeat"))
        preflight = self._http.get("/api/v2/pre-flight-checks")
        self.max_batch = int(preflight.get("max_batch_size", 300))
        # 1.x is told by what it can do; its version number is a constant.
        self._modern = bool(preflight.get("supports_base64_encoding", False))
        try:
            self._http.get(self._root)
        except RequestError as error:
            raise PreconditionError(
                f"{self.url}: no database {database!r} of tenant {tenant!r} there ({error}); "
                "check --tenant and --database"
            ) from error

    def _speaks_v1(self) -> bool:
        try:
            answer = self._http.get("/api/v1/heartbeat", tries=1)
        except ChromactlError:
            return False
        return isinstance(answer, dict) and "nanosecond heartbeat" in answer

    def _not_chroma(self, seen: str) -> str:
        return f"{self.url}: what answers is not a ChromaDB ({seen} from /api/v2/heartbeat); check the address and port"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Reading

    def collections(self) -> list[Collection]:
        """Every collection of the database, by name."""
        found: dict[str, Collection] = {}
        offset = 0
        while True:
            page = self._http.get(f"{self._root}/collections?limit={LIST_COLLECTIONS}&offset={offset}")
            for entry in page:
                found[entry["id"]] = Collection(collection_json.read(entry), entry["id"])
            offset += len(page)
            if len(page) < LIST_COLLECTIONS:
                return sorted(found.values(), key=lambda collection: collection.name)

    def find(self, name: str) -> Collection | None:
        """The collection that has this name now."""
        try:
            entry = self._http.get(f"{self._root}/collections/{quote(name, safe='')}")
        except RequestError as error:
            if error.status in (400, 404):
                return None
            raise
        return Collection(collection_json.read(entry), entry["id"])

    def count(self, collection: Collection) -> int:
        """How many records the server says the collection holds."""
        return int(self._http.get(self._path(collection, "count")))

    def ids(self, collection: Collection) -> list[str]:
        """The ids of all records, in one answer, so that writes during a run cannot shift a page."""
        return list(self._get(collection, {"include": []})["ids"])

    def read(self, collection: Collection, ids: Sequence[str]) -> tuple[Batch, list[Unreadable]]:
        """The records of these ids that still exist, and those the server cannot give back."""
        batches: list[Batch] = []
        unreadable: list[Unreadable] = []
        for start in range(0, len(ids), READ_RECORDS):
            self._read_or_halve(collection, list(ids[start : start + READ_RECORDS]), batches, unreadable)
        return concatenate(batches, collection.spec.dimension or 0), unreadable

    def _read_or_halve(
        self, collection: Collection, ids: list[str], batches: list[Batch], unreadable: list[Unreadable]
    ) -> None:
        try:
            batches.append(_batch(self._get(collection, {"ids": ids, "include": _EVERYTHING})))
        except RequestError as error:
            if error.status != 500:
                raise
            if len(ids) == 1:
                self._read_once_more(collection, ids, batches, unreadable)
                return
            middle = len(ids) // 2
            self._read_or_halve(collection, ids[:middle], batches, unreadable)
            self._read_or_halve(collection, ids[middle:], batches, unreadable)

    def _read_once_more(
        self, collection: Collection, ids: list[str], batches: list[Batch], unreadable: list[Unreadable]
    ) -> None:
        # A server in passing trouble answers 500 too: only a record that stays unreadable is called so.
        for pause in UNREADABLE_PAUSES:
            time.sleep(pause)
            try:
                batches.append(_batch(self._get(collection, {"ids": ids, "include": _EVERYTHING})))
            except RequestError as error:
                if error.status != 500:
                    raise
                reason = str(error)
            else:
                return
        self.count(collection)  # a server that cannot even count is in trouble as a whole
        unreadable.append(Unreadable(ids, reason))

    def read_text(self, collection: Collection, ids: Sequence[str]) -> Batch:
        """Ids, documents, uris and metadata of these records; embeddings are float32[n, 0]."""
        pages = [
            _batch(self._get(collection, {"ids": list(ids[start : start + READ_RECORDS]), "include": _TEXT}))
            for start in range(0, len(ids), READ_RECORDS)
        ]
        return concatenate(pages, 0)

    def nearest(
        self, collection: Collection, vector: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[Neighbour]:
        """The index's answer to one query vector, nearest first."""
        body: dict[str, Any] = {
            "query_embeddings": [vector.tolist()],
            "n_results": limit,
            "include": ["distances"],
        }
        if where:
            body["where"] = where
        answer = self._http.post(self._path(collection, "query"), body)
        return [
            Neighbour(record, distance)
            for record, distance in zip(answer["ids"][0], answer["distances"][0], strict=True)
        ]

    def _get(self, collection: Collection, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._http.post(self._path(collection, "get"), body)
        except RequestError as error:
            if error.status in (400, 404) and "does not exist" in str(error):
                raise MissingCollectionError(
                    f"{self.url}: collection {collection.name} was removed while it was read; run again"
                ) from error
            raise
        if not isinstance(answer, dict):
            raise NotChromaError(self._not_chroma("an unknown answer"))
        return answer

    def _path(self, collection: Collection, verb: str) -> str:
        return f"{self._root}/collections/{collection.key}/{verb}"


def _batch(answer: dict[str, Any]) -> Batch:
    ids: list[str] = answer["ids"]
    empty: list[Any] = [None] * len(ids)
    embeddings = answer.get("embeddings")
    return Batch(
        ids=ids,
        embeddings=np.empty((len(ids), 0), np.float32) if embeddings is None else _matrix(embeddings),
        documents=answer.get("documents") or empty,
        uris=answer.get("uris") or empty,
        metadatas=[metadata or None for metadata in answer.get("metadatas") or empty],
    )


def _matrix(rows: list[list[float]]) -> NDArray[np.float32]:
    if not rows:
        return np.empty((0, 0), np.float32)
    if len({len(row) for row in rows}) > 1:
        raise ChromactlError(
            "the records of one collection have embeddings of different dimensions; "
            "this source is damaged: find them with a get of ids and embeddings, and repair it first"
        )
    return np.asarray(rows, dtype=np.float32)
