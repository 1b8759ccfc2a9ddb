"""Writing a collection of the index: made when first needed, told whole records, never merged with what was there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chromadb.types import Collection
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import Purpose
from app.core.chroma.resolver import present, present_or_new
from app.core.chroma.session import Session
from app.core.errors import UnknownCollection


@dataclass(frozen=True, slots=True)
class Entries:
    """Records as Chroma takes them; `vectors` is float32[n, dim]."""

    ids: Sequence[str]
    vectors: NDArray[float32]
    documents: Sequence[str]
    metadatas: Sequence[Mapping[str, Any]]


class IndexWriter:
    """Writes to one Chroma. All methods block, may be called from any thread, and raise ServiceError only.

    A name is resolved anew by every call: a rebuild or a migration may have put another collection in its place.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def put(self, name: str, entries: Entries, replacing: Sequence[str] = ()) -> None:
        """Have the collection hold these records, and of those named in `replacing` nothing that they had before.

        Chroma's upsert merges metadata, so keys that are no longer there are taken away by a null for each. Raises
        RecordsRefused, ChromaUnavailable.
        """
        self.session.run(partial(_put, name, entries, frozenset(replacing)), Purpose.WRITE)

    def remove(self, name: str, ids: Sequence[str]) -> None:
        """Have the collection hold none of these. A collection that does not exist holds none."""
        try:
            self.session.run(partial(_remove, name, list(ids)), Purpose.WRITE)
        except UnknownCollection:
            return

    def alive(self) -> bool:
        """Whether Chroma answers at all; raises ChromaUnavailable when not."""
        return self.session.answer(lambda client: client.heartbeat()) > 0


def put_whole(client: ChromaClient, model: Collection, entries: Entries, replacing: Iterable[str]) -> None:
    """As IndexWriter.put, to the collection of this id, whatever its name."""
    collection = client.bind(model)
    metadatas = [dict(metadata) for metadata in entries.metadatas]
    if ids := list(replacing):
        before = collection.get(ids=ids, include=["metadatas"])
        known = dict(zip(before["ids"], before["metadatas"] or [], strict=True))
        for id_, metadata in zip(entries.ids, metadatas, strict=True):
            for key in known.get(id_) or {}:
                metadata.setdefault(key, None)
    client.upsert(collection, list(entries.ids), entries.vectors, list(entries.documents), metadatas)


def _put(name: str, entries: Entries, replacing: frozenset[str], client: ChromaClient) -> None:
    put_whole(client, present_or_new(client, name), entries, replacing)


def _remove(name: str, ids: list[str], client: ChromaClient) -> None:
    client.bind(present(client, name)).delete(ids=ids)
