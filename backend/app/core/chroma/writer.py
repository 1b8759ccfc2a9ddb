"""Writing a collection of the index: made when first needed, told whole records, never merged with what was there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chromadb.types import Collection
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import Purpose, is_not_found
from app.core.chroma.quota import refusal
from app.core.chroma.resolver import present, present_or_new
from app.core.chroma.session import Session
from app.core.errors import (
    ChromaFailed,
    ChromaUnavailable,
    ChromaUncertain,
    CollectionUnwritable,
    DimensionMismatch,
    RecordsRefused,
    UnknownCollection,
)

# How often a collection may be gone between being found and being written.
ATTEMPTS = 3
# No record has this id: index_id makes none such.
NOBODY = "nobody"


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
    Writes raise ChromaUnavailable, where nothing was done; ChromaUncertain, where that is not known; ChromaFailed,
    where Chroma could not do it; CollectionUnwritable, where it is this collection that cannot be written.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def put(self, name: str, entries: Entries) -> None:
        """Have the collection hold these records, and nothing of what they were before.

        Chroma's upsert merges metadata, so keys that are no longer there are taken away by a null for each. Raises
        RecordsRefused too.
        """
        self._write(name, partial(_put, name, entries))

    def remove(self, name: str, ids: Sequence[str]) -> None:
        """Have the collection hold none of these. A collection that does not exist holds none."""
        self._write(name, partial(_remove, name, list(ids)))

    def check_writable(self, name: str) -> None:
        """Raise as a write does when the collection cannot be written, whatever the records are."""
        try:
            self.remove(name, [NOBODY])
        except ChromaFailed as error:
            raise CollectionUnwritable(f"Collection {name} takes no write: {error.message}", hint=error.hint) from error

    def _write(self, name: str, work: Callable[[_Sent, ChromaClient], None]) -> None:
        sent = _Sent()
        for _ in range(ATTEMPTS):
            try:
                self.session.run(partial(work, sent), Purpose.WRITE)
            except UnknownCollection:
                continue
            except DimensionMismatch as error:
                raise CollectionUnwritable(f"Collection {name}: {error.message}") from error
            except ChromaFailed:
                raise
            except ChromaUnavailable as error:
                if sent.times:
                    raise ChromaUncertain(error.message, hint=error.hint) from error
                raise
            if sent.times > 1:  # the session tried again by itself, and what came of the first is not known
                raise ChromaUncertain(f"{self.session.target} was told twice.")
            return
        raise CollectionUnwritable(f"Collection {name} is gone whenever it is to be written.")


def put_whole(client: ChromaClient, model: Collection, entries: Entries, replacing: Iterable[str]) -> None:
    """As IndexWriter.put, to the collection of this id, whatever its name; `replacing`: what may be there already."""
    metadatas = _without_what_was_there(client, model, entries, replacing)
    try:
        client.upsert(model.id, entries.ids, entries.vectors, entries.documents, metadatas)
    except (TypeError, ValueError) as error:  # of the client, which has no form to send this in
        raise RecordsRefused(f"Chroma's client does not take the records: {error}") from error
    except Exception as error:
        if not _only_leaving(error, entries, metadatas):
            raise
        client.delete(model, entries.ids)
        client.upsert(model.id, entries.ids, entries.vectors, entries.documents, entries.metadatas)


def _only_leaving(error: Exception, entries: Entries, metadatas: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one record has too many keys for a quota only because those that are to be taken away were counted."""
    refused = refusal(error)
    if refused is None or not refused.of_the_keys or refused.limit is None or len(entries.ids) > 1:
        return False
    return len(entries.metadatas[0]) <= refused.limit < len(metadatas[0])


class _Sent:
    """How often a write went out in one call and was not answered with a plain no: `with sent:` around each."""

    def __init__(self) -> None:
        self.times = 0

    def __enter__(self) -> None:
        self.times += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and is_not_found(error):
            self.times -= 1


def _put(name: str, entries: Entries, sent: _Sent, client: ChromaClient) -> None:
    model = present_or_new(client, name)
    with sent:
        put_whole(client, model, entries, entries.ids)


def _remove(name: str, ids: list[str], sent: _Sent, client: ChromaClient) -> None:
    try:
        model = present(client, name)
    except Exception as error:
        if not is_not_found(error):
            raise
        return
    with sent:
        client.delete(model, ids)


def _without_what_was_there(
    client: ChromaClient, model: Collection, entries: Entries, replacing: Iterable[str]
) -> list[dict[str, Any]]:
    metadatas = [dict(metadata) for metadata in entries.metadatas]
    if ids := list(replacing):
        known = client.metadatas(model, ids)
        for id_, metadata in zip(entries.ids, metadatas, strict=True):
            for key in known.get(id_) or {}:
                metadata.setdefault(key, None)
    return metadatas
