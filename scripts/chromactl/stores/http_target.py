"""A ChromaDB server to write to (1.x; the tests' sample also lands in older ones).

Facts this rests on (versions tested): 1.x takes embeddings as base64 and refuses bodies over 40 MiB; `add` of an
id that is there is ignored without a word, `update` and `upsert` merge metadata, and keep a document or uri where
they are given none; a rename keeps a collection's id.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import SecretStr

from chromactl.errors import ChromactlError, MissingDatabaseError, PreconditionError, RequestError
from chromactl.reject import Reject
from chromactl.stores import collection_json
from chromactl.stores.base import Batch, Collection, CollectionSpec
from chromactl.stores.changes import changes, with_leaving
from chromactl.stores.dialect import V2
from chromactl.stores.http import READ_RECORDS, HttpStore
from chromactl.stores.names import before_name, staged_name
from chromactl.stores.quota import TOO_LARGE, refusal
from chromactl.stores.transport import Network

log = logging.getLogger(__name__)

DELETE_RECORDS = 1000


class HttpTarget(HttpStore):
    """One database of a Chroma server, as a target.

    With `create_database` a missing database of an existing tenant is made.

    Raises (when made):
        As HttpStore.
    """

    DIALECTS = (V2,)

    def __init__(
        self,
        url: str,
        *,
        token: SecretStr | None = None,
        tenant: str = "default_tenant",
        database: str = "default_database",
        side: str = "source",
        network: Network | None = None,
        create_database: bool = False,
    ) -> None:
        self._may_create = create_database
        super().__init__(url, token=token, tenant=tenant, database=database, side=side, network=network)

    def _greet(self, tenant: str, database: str) -> None:
        try:
            super()._greet(tenant, database)
        except MissingDatabaseError as error:
            if not self._may_create or not self._create(tenant, database, error):
                raise
            super()._greet(tenant, database)

    def _create(self, tenant: str, database: str, missing: MissingDatabaseError) -> bool:
        try:
            # 1.x makes a database of a tenant that is not there, and nobody would find it again.
            self._http.get(f"/api/v2/tenants/{quote(tenant, safe='')}")
        except RequestError:
            return False
        try:
            self._http.post(f"/api/v2/tenants/{quote(tenant, safe='')}/databases", {"name": database})
        except RequestError as error:
            if error.status != 409:  # somebody was quicker
                raise PreconditionError(f"{missing}; it cannot be made either: {error}") from error
        return True

    def free_bytes(self) -> int | None:
        """Unknown: no Chroma server tells how much room its disk has."""
        return None

    def stage(self, spec: CollectionSpec, run: str) -> Collection:
        """The collection `<name>--m<run>` with the spec's metric and settings."""
        name = staged_name(spec.name, run)
        existing = self.find(name)
        if existing is not None:
            return existing
        body = orjson.dumps(collection_json.create(spec, name, modern=self._modern))
        try:
            entry = self._http.request("POST", f"{self._root}/collections", body, stores=True)
        except RequestError:
            # The answer to a try that made it may have been lost.
            if (existing := self.find(name)) is None:
                raise
            return existing
        if spec.schema is not None and "schema" not in entry:
            log.warning("%s: this server keeps no schema; the index switches of %s are lost", self.url, spec.name)
            self._http.request("DELETE", f"{self._root}/collections/{quote(name, safe='')}")
            return self.stage(replace(spec, schema=None), run)
        return Collection(collection_json.read(entry), entry["id"])

    # Writing

    def write(self, collection: Collection, batch: Batch, *, repeat: bool = False) -> list[Reject]:
        """Add the records, in requests bounded by bytes, by the server's batch size, and by what it said of quotas."""
        return self._make_so(collection, batch) if repeat else self._put(collection, batch, "add")

    def amend(self, collection: Collection, batch: Batch, removed: Sequence[str]) -> list[Reject]:
        """Make the records exactly what is under their ids, and remove others.

        In place, so that a record can be found all the time; but one that loses its document or uri is deleted and
        added, because nothing else takes these away.
        """
        self._delete(collection, removed)
        return self._make_so(collection, batch)

    def _make_so(self, collection: Collection, batch: Batch) -> list[Reject]:
        return [reject for part in batch.slices(READ_RECORDS) for reject in self._make_part_so(collection, part)]

    def _make_part_so(self, collection: Collection, batch: Batch) -> list[Reject]:
        there, unreadable = self.read(collection, batch.ids)
        found = changes(there, batch, collection.spec.space)
        broken = [record for entry in unreadable for record in entry.ids]
        self._delete(collection, [*broken, *(batch.ids[row] for row in found.emptied)])
        rejects: list[Reject] = []
        for rows, verb in ((found.text, "update"), (found.embedding, "upsert")):
            if rows:
                rejects += self._put(collection, with_leaving(batch, rows, found.leaving), verb)
        refused = {reject.id for reject in rejects}
        self._delete(collection, sorted(refused))
        # Keys that only had to go were counted too; without its former self there is nothing to take away.
        once_more = [row for row in found.leaving if batch.ids[row] in refused]
        final = refused - {batch.ids[row] for row in once_more}
        rows = sorted([*found.missing, *found.emptied, *once_more])
        if rows:
            rejects = [reject for reject in rejects if reject.id in final]
            rejects += self._put(collection, batch.take(rows), "add")
        return rejects

    def _put(self, collection: Collection, batch: Batch, verb: str) -> list[Reject]:
        most = min(self.max_batch, self._quota.written or self.max_batch)
        parts = batch.slices(min(most, _records_within(batch, self._quota.body_bytes)))
        return [reject for part in parts for reject in self._put_part(collection, part, verb)]

    def _put_part(self, collection: Collection, batch: Batch, verb: str) -> list[Reject]:
        batch, rejects = self._quota.part_off(batch)
        if len(batch) > (self._quota.written or len(batch)):  # learned since the parts were cut
            return rejects + self._put(collection, batch, verb)
        return rejects + self._send(collection, batch, verb) if len(batch) else rejects

    def _send(self, collection: Collection, batch: Batch, verb: str) -> list[Reject]:
        content = self._records_json(batch, embeddings=verb != "update")
        try:
            # Sent again after it broke off: what did land is not added a second time, it is ignored.
            self._http.request("POST", self._path(collection, verb), content, stores=True)
        except RequestError as error:
            refused = refusal(error)
            if refused is None:
                raise _explained(error) from error
            if self._quota.learn_from_write(refused, batch):
                return self._put(collection, batch, verb)
            if len(batch) == 1:
                return [self._quota.reject(refused, batch)]
            halves = batch.slices((len(batch) + 1) // 2)
            rejects = [reject for half in halves for reject in self._put_part(collection, half, verb)]
            if error.status == TOO_LARGE:
                self._quota.too_large(len(content))
            elif not rejects:  # each half was taken, so it was not about a record
                self._quota.fewer_written(refused, len(batch))
            return rejects
        return []

    def _records_json(self, batch: Batch, *, embeddings: bool) -> bytes:
        body: dict[str, Any] = {"ids": batch.ids, "documents": batch.documents, "metadatas": batch.metadatas}
        if embeddings and self._modern:
            body["embeddings"] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in batch.embeddings]
        elif embeddings:
            body["embeddings"] = batch.embeddings
        if any(uri is not None for uri in batch.uris):
            body["uris"] = batch.uris
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def _delete(self, collection: Collection, ids: Sequence[str]) -> None:
        start = 0
        while start < len(ids):
            page = list(ids[start : start + min(DELETE_RECORDS, self._quota.written or DELETE_RECORDS)])
            body = orjson.dumps({"ids": page})
            try:
                self._http.request("POST", self._path(collection, "delete"), body, stores=True)
            except RequestError as error:
                if (refused := refusal(error)) is None or len(page) == 1:
                    raise _explained(error) from error
                self._quota.fewer_written(refused, len(page))
            else:
                start += len(page)

    # What is live

    def swap(self, staged: Sequence[Collection], run: str) -> dict[str, str]:
        """Rename each live collection away and the staged one into its place; can be repeated after a crash.

        Raises:
            ChromactlError: somebody made a collection of a live name between the two renames.
        """
        kept: dict[str, str] = {}
        for collection in staged:
            name = collection.name.removesuffix(staged_name("", run))
            before = self.find(before_name(name, run))
            live = self.find(name)
            if live is None or live.key != collection.key:
                if live is not None and before is not None:
                    raise ChromactlError(
                        f"{self.url}: there are both {name} and {before.name}, so somebody made {name} anew while it "
                        "was being replaced; rename or remove one of the two, then run the same command again"
                    )
                if live is not None:
                    self.rename(live, before_name(name, run))
                    before = live
                self.rename(collection, name)
            if before is not None:
                kept[name] = before_name(name, run)
        return kept

    def rename(self, collection: Collection, name: str) -> None:
        """Give the collection another name; its key stays."""
        try:
            body = orjson.dumps({"new_name": name})
            self._http.request("PUT", f"{self._root}/collections/{collection.key}", body)
        except ChromactlError:
            # The answer to a try that did it may have been lost.
            renamed = self.find(name)
            if renamed is None or renamed.key != collection.key:
                raise

    def discard(self, staged: Collection) -> None:
        """Remove the collection's records, then the collection; nothing to do where it is gone.

        In this order, because 1.x leaves list-valued metadata of a dropped collection behind, where the next
        collection's records inherit it (chroma issue 7594); deleting the records does not.
        """
        if self.find(staged.name) is None:
            return
        self._delete(staged, self.ids(staged))
        try:
            self._http.request("DELETE", f"{self._root}/collections/{quote(staged.name, safe='')}")
        except RequestError:
            if self.find(staged.name) is not None:
                raise


def _explained(error: RequestError) -> ChromactlError:
    if error.status < 500:
        return error
    # A full disk says so in one version and "Failed to apply logs" in another; 1.5.9 hangs afterwards for good.
    return ChromactlError(
        f"{error}; the server could not store these records: look at the free space of its disk and at its log, "
        "restart it, then run the same command again"
    )


def _records_within(batch: Batch, size: int) -> int:
    """How many of the batch's records make about `size` bytes of request body, at least 1."""
    text = sum(len(document or "") for document in batch.documents)
    metadata = sum(64 * len(metadata or ()) for metadata in batch.metadatas)
    bytes_each = max(1, (2 * text + metadata) // max(1, len(batch)) + 6 * batch.dimension)
    return max(1, size // bytes_each)
