"""A ChromaDB server to write to (1.x; the tests' sample also lands in older ones).

Facts this rests on (versions tested): 1.x takes embeddings as base64 and refuses bodies over 40 MiB; `add` of an
id that is there is ignored without a word, `upsert` merges metadata; a rename keeps a collection's id.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from chromactl.errors import ChromactlError, RequestError
from chromactl.stores import collection_json
from chromactl.stores.base import Batch, Collection, CollectionSpec
from chromactl.stores.http import HttpStore
from chromactl.stores.names import before_name, staged_name

log = logging.getLogger(__name__)

DELETE_RECORDS = 1000
WRITE_BYTES = 24 * 2**20


class HttpTarget(HttpStore):
    """One database of a Chroma server, as a target."""

    def free_bytes(self) -> int | None:
        """Unknown: no Chroma server tells how much room its disk has."""
        return None

    def stage(self, spec: CollectionSpec, run: str) -> Collection:
        """The collection `<name>--m<run>` with the spec's metric and settings."""
        name = staged_name(spec.name, run)
        existing = self.find(name)
        if existing is not None:
            return existing
        body = collection_json.create(spec, name, modern=self._modern)
        entry = self._http.post(f"{self._root}/collections", body)
        return Collection(collection_json.read(entry), entry["id"])

    def write(self, collection: Collection, batch: Batch, *, repeat: bool = False) -> None:
        """Add the records, in requests bounded by the server's batch size and by bytes."""
        for part in batch.slices(min(self.max_batch, _records_within(batch, WRITE_BYTES))):
            self._write_part(collection, part, repeat)

    def _write_part(self, collection: Collection, batch: Batch, repeat: bool) -> None:
        content = self._records_json(batch)
        try:
            # An add that broke off may or may not have landed, so only its first try may be an add.
            if not repeat:
                try:
                    self._http.request("POST", self._path(collection, "add"), content, tries=1)
                    return
                except RequestError:
                    raise
                except ChromactlError as error:
                    log.warning("%s; sent again as upsert", error)
            self._http.request("POST", self._path(collection, "upsert"), content)
        except RequestError as error:
            if error.status == 413 and len(batch) > 1:
                for half in batch.slices((len(batch) + 1) // 2):
                    self._write_part(collection, half, repeat)
                return
            if error.status >= 500:
                # A full disk says so in one version and "Failed to apply logs" in another.
                raise ChromactlError(
                    f"{error}; the server could not store these records: look at the free space of its disk and at "
                    "its log, then run the same command again"
                ) from error
            raise

    def _records_json(self, batch: Batch) -> bytes:
        embeddings: Any = (
            [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in batch.embeddings]
            if self._modern
            else batch.embeddings
        )
        body: dict[str, Any] = {
            "ids": batch.ids,
            "embeddings": embeddings,
            "documents": batch.documents,
            "metadatas": batch.metadatas,
        }
        if any(uri is not None for uri in batch.uris):
            body["uris"] = batch.uris
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def swap(self, staged: Sequence[Collection], run: str) -> dict[str, str]:
        """Rename each live collection away and the staged one into its place; can be repeated after a crash."""
        kept: dict[str, str] = {}
        for collection in staged:
            name = collection.name.removesuffix(staged_name("", run))
            live = self.find(name)
            if live is None or live.key != collection.key:
                if live is not None:
                    self._rename(live, before_name(name, run))
                self._rename(collection, name)
            if self.find(before_name(name, run)) is not None:
                kept[name] = before_name(name, run)
        return kept

    def _rename(self, collection: Collection, name: str) -> None:
        self._http.request(
            "PUT", f"{self._root}/collections/{collection.key}", orjson.dumps({"new_name": name}), tries=1
        )

    def discard(self, staged: Collection) -> None:
        """Remove the collection's records, then the collection.

        In this order, because 1.x leaves list-valued metadata of a dropped collection behind, where the next
        collection's records inherit it (chroma issue 7594); deleting the records does not.
        """
        ids = self.ids(staged)
        for start in range(0, len(ids), DELETE_RECORDS):
            self._http.post(self._path(staged, "delete"), {"ids": ids[start : start + DELETE_RECORDS]})
        self._http.request("DELETE", f"{self._root}/collections/{quote(staged.name, safe='')}")


def _records_within(batch: Batch, size: int) -> int:
    """How many of the batch's records make about `size` bytes of request body, at least 1."""
    text = sum(len(document or "") for document in batch.documents)
    metadata = sum(64 * len(metadata or ()) for metadata in batch.metadatas)
    bytes_each = max(1, (2 * text + metadata) // max(1, len(batch)) + 6 * batch.dimension)
    return max(1, size // bytes_each)
