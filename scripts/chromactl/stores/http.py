"""A ChromaDB server to read from, of any version from 0.4 on, spoken to in REST.

Facts this rests on (versions tested): a name is resolved to an id once and the id used from then on;
`get(ids)` keeps no order and skips what is not there; one record without a vector makes 1.x refuse the whole
page.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from chromactl.errors import (
    ChromactlError,
    MissingCollectionError,
    MissingDatabaseError,
    NotChromaError,
    PreconditionError,
    RequestError,
)
from chromactl.stores import answer, collection_json
from chromactl.stores.base import Batch, Collection, Neighbour, Unreadable, Where, concatenate
from chromactl.stores.dialect import V1, V2, Dialect
from chromactl.stores.quota import Quota, all_ids, pages_of, refusal
from chromactl.stores.transport import Network, Transport

log = logging.getLogger(__name__)

READ_RECORDS = 500
LIST_ENTRIES = 1000
WRITE_BYTES = 24 * 2**20
UNREADABLE_PAUSES = (0.2, 1.0)  # seconds
LOST_FOR_SURE = 10
"""After so many lost records of a collection it is damaged, not in passing trouble; there is no pause for others."""
_EVERYTHING = ["embeddings", "metadatas", "documents", "uris"]
_TEXT = ["metadatas", "documents", "uris"]


class HttpStore:
    """One database of a Chroma server.

    Raises (when made):
        UnreachableError, AuthenticationError, NotChromaError: as their names say.
        PreconditionError: the tenant or database is not there, or the server does not speak what is needed here.
    """

    DIALECTS: ClassVar[tuple[type[V2] | type[V1], ...]] = (V2, V1)

    def __init__(
        self,
        url: str,
        *,
        token: SecretStr | None = None,
        tenant: str = "default_tenant",
        database: str = "default_database",
        side: str = "source",
        network: Network | None = None,
    ) -> None:
        self.url = url
        self._http = self._transport(url, token, side, network)
        self._quota = Quota(WRITE_BYTES)
        try:
            self._greet(tenant, database)
        except ChromactlError:
            self._http.close()
            raise

    def _transport(self, url: str, token: SecretStr | None, side: str, network: Network | None) -> Transport:
        return Transport(url, token, side, network)

    def _greet(self, tenant: str, database: str) -> None:
        self._dialect = self._dialect_spoken(tenant, database)
        self._root = self._dialect.database
        preflight = self._http.get(self._dialect.PREFLIGHT)
        self.max_batch = int(preflight.get("max_batch_size", 300))
        # Of servers before 1.x, by collection: where in the list of ids each page begins.
        self._places: dict[str, dict[str, int]] = {}
        self._lost: Counter[str] = Counter()
        # 1.x is told by what it can do; its version number is a constant.
        self._modern = bool(preflight.get("supports_base64_encoding", False))
        self.embeddings_are_dear = not self._modern
        if not self._modern:
            # A Python server: two requests at once only make its interpreter switch between them.
            self._http.take_turns()
        try:
            self._http.get(self._dialect.database)
        except RequestError as error:
            raise MissingDatabaseError(
                f"{self.url}: no database {database!r} of tenant {tenant!r} there ({error}); "
                "check --tenant and --database"
            ) from error

    def _dialect_spoken(self, tenant: str, database: str) -> Dialect:
        if self._has_heartbeat(V2):
            return V2(tenant, database)
        if not self._has_heartbeat(V1):
            raise NotChromaError(self._not_chroma("HTTP 404"))
        if V1 not in self.DIALECTS:
            raise PreconditionError(
                f"{self.url}: this server speaks only the v1 API (Chroma 0.4 or early 0.5), and can be read but not "
                "written to; name a Chroma 1.x server or a new directory (path:/dir) as target"
            )
        return V1(tenant, database)

    def _has_heartbeat(self, dialect: type[V2] | type[V1]) -> bool:
        try:
            heartbeat = self._http.get(dialect.HEARTBEAT, tries=1)
        except RequestError as error:
            if error.status == 404:
                return False
            raise NotChromaError(self._not_chroma(f"HTTP {error.status}")) from error
        if not isinstance(heartbeat, dict) or "nanosecond heartbeat" not in heartbeat:
            raise NotChromaError(self._not_chroma("no heartbeat"))
        return True

    def _not_chroma(self, seen: str) -> str:
        return f"{self.url}: what answers is not a ChromaDB ({seen} from /api/v2/heartbeat); check the address and port"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Reading

    def databases(self) -> list[str]:
        """The names of all databases of the tenant.

        Raises:
            PreconditionError: the server is of 0.5 or older, which do not tell.
        """
        try:
            return sorted(entry["name"] for entry in self._list(self._dialect.databases))
        except RequestError as error:
            if error.status != 405:
                raise
            raise PreconditionError(
                f"{self.url}: this server (Chroma 0.5 or older) does not tell which databases it has; "
                "name each with --database, or migrate a copy of its directory (path:/dir)"
            ) from error

    def collections(self) -> list[Collection]:
        """Every collection of the database, by name."""
        entries = self._list(self._dialect.collections)
        found = [Collection(collection_json.read(entry), entry["id"]) for entry in entries]
        return sorted(found, key=lambda collection: collection.name)

    def _list(self, path_of: Callable[[int, int], str]) -> list[dict[str, Any]]:
        """The entries of all pages, each once."""

        def page(limit: int, offset: int) -> list[dict[str, Any]]:
            entries: list[dict[str, Any]] = self._http.get(path_of(limit, offset))
            return entries

        pages = pages_of(self._quota, LIST_ENTRIES, page)
        return list({entry["id"]: entry for entries in pages for entry in entries}.values())

    def find(self, name: str) -> Collection | None:
        """The collection that has this name now."""
        try:
            entry = self._http.get(self._dialect.collection(name))
        except RequestError as error:
            if error.status in (400, 404) or self._dialect.means_missing(error):
                return None
            raise
        return Collection(collection_json.read(entry), entry["id"])

    def count(self, collection: Collection) -> int:
        """How many records the server says the collection holds."""
        try:
            return int(self._http.get(self._path(collection, "count")))
        except RequestError as error:
            raise self._explained(error, collection) from error

    def ids(self, collection: Collection) -> list[str]:
        """The ids of all records: in one answer if the server gives it, so that writes cannot shift a page."""

        def some(limit: int | None, offset: int) -> list[str]:
            body = {"include": []} if limit is None else {"include": [], "limit": limit, "offset": offset}
            return list(self._get(collection, body)["ids"])

        found = all_ids(self._quota, lambda: self.count(collection), some)
        if not self._modern:
            self._places[collection.key] = {found[at]: at for at in range(0, len(found), READ_RECORDS)}
        return found

    def read(self, collection: Collection, ids: Sequence[str]) -> tuple[Batch, list[Unreadable]]:
        """The records of these ids that still exist, and those the server cannot give back."""
        batches: list[Batch] = []
        unreadable: list[Unreadable] = []
        for page in self._quota.pages(ids, READ_RECORDS):
            if (batch := self._in_its_place(collection, page)) is not None:
                batches.append(batch)
            else:
                self._read_or_halve(collection, page, batches, unreadable)
        return concatenate(batches, collection.spec.dimension or 0), unreadable

    def _in_its_place(self, collection: Collection, ids: list[str]) -> Batch | None:
        """The page by its place in the list of ids, if it is there still; else None.

        Servers before 1.x need a tenth less for it than by ids. What moves the records (a delete, say) shows in the
        ids that come, and is read by ids from then on.
        """
        at = self._places.get(collection.key, {}).get(ids[0])
        if at is None:
            return None
        try:
            found = self._get(collection, {"limit": len(ids), "offset": at, "include": _EVERYTHING})
        except RequestError:
            return None
        if found["ids"] == ids:
            return answer.batch(found)
        self._places.pop(collection.key, None)
        return None

    def _read_or_halve(
        self, collection: Collection, ids: list[str], batches: list[Batch], unreadable: list[Unreadable]
    ) -> None:
        try:
            batches.append(self._page(collection, ids, _EVERYTHING))
        except RequestError as error:
            if len(ids) > 1 and (refused := refusal(error)) is not None:
                size = self._quota.fewer_read(refused, len(ids))
            elif error.status != 500:
                raise
            elif len(ids) == 1:
                self._read_once_more(collection, ids, batches, unreadable)
                return
            else:
                size = (len(ids) + 1) // 2
            for start in range(0, len(ids), size):
                self._read_or_halve(collection, ids[start : start + size], batches, unreadable)

    def _read_once_more(
        self, collection: Collection, ids: list[str], batches: list[Batch], unreadable: list[Unreadable]
    ) -> None:
        # A server in passing trouble answers 500 too: only a record that stays unreadable is called so.
        for pause in UNREADABLE_PAUSES if self._lost[collection.key] < LOST_FOR_SURE else (0.0,):
            time.sleep(pause)
            try:
                batches.append(self._page(collection, ids, _EVERYTHING))
            except RequestError as error:
                if error.status != 500:
                    raise
                reason = str(error)
            else:
                return
        self.count(collection)  # a server that cannot even count is in trouble as a whole
        self._lost[collection.key] += 1
        unreadable.append(Unreadable(ids, reason))

    def read_text(self, collection: Collection, ids: Sequence[str]) -> Batch:
        """Ids, documents, uris and metadata of these records; embeddings are float32[n, 0]."""
        pages: list[Batch] = []
        waiting = list(self._quota.pages(ids, READ_RECORDS))
        while waiting:
            page = waiting.pop(0)
            try:
                pages.append(self._page(collection, page, _TEXT))
            except RequestError as error:
                if len(page) == 1 or (refused := refusal(error)) is None:
                    raise
                self._quota.fewer_read(refused, len(page))
                waiting = list(self._quota.pages([*page, *chain.from_iterable(waiting)], len(page)))
        return concatenate(pages, 0)

    def _page(self, collection: Collection, ids: list[str], include: list[str]) -> Batch:
        # With a limit, since a server with a quota leaves out what is over it without a word.
        return answer.batch(self._get(collection, {"ids": ids, "limit": len(ids), "include": include}))

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
        found = self._http.post(self._path(collection, "query"), body)
        # JSON has no NaN and no infinity, and a server answers null then.
        return [
            Neighbour(record, math.nan if distance is None else distance)
            for record, distance in zip(found["ids"][0], found["distances"][0], strict=True)
        ]

    def _get(self, collection: Collection, body: dict[str, Any]) -> dict[str, Any]:
        try:
            found = self._http.post(self._path(collection, "get"), body, decode=answer.decode)
        except RequestError as error:
            raise self._explained(error, collection) from error
        if not isinstance(found, dict):
            raise NotChromaError(self._not_chroma("an unknown answer"))
        return found

    def _explained(self, error: RequestError, collection: Collection) -> ChromactlError:
        if self._dialect.means_missing(error):
            return MissingCollectionError(
                f"{self.url}: collection {collection.name} was removed while it was read; run again"
            )
        return error

    def _path(self, collection: Collection, verb: str) -> str:
        return self._dialect.records(collection.key, verb)
