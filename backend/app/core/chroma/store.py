"""Searching one Chroma (a server's database, or a directory): its names, queries and counts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial

from chromadb.errors import NotFoundError
from chromadb.types import Collection
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.client import ChromaClient
from app.core.chroma.deadline import set_aside
from app.core.chroma.failures import Purpose
from app.core.chroma.filters import CheckedWhere
from app.core.chroma.hits import Hit, read_hits
from app.core.chroma.known import Known
from app.core.chroma.resolver import by_name, called, may_be_searched
from app.core.chroma.session import Session
from app.core.errors import ChromaUnavailable, DimensionMismatch, UnknownCollection
from app.core.memory.tenant import is_tenant_collection

log = logging.getLogger(__name__)


class ChromaStore:
    """Searches one Chroma. All methods block, may be called from any thread, and raise ServiceError only."""

    def __init__(self, session: Session, resolve_seconds: float) -> None:
        self.session = session
        self._known = Known(
            resolve_seconds,
            get=lambda name: session.run(lambda client: called(client, name)),
            every=self._every,
        )

    def collections(self) -> Mapping[str, Collection]:
        """All collections by name, work collections of migrations left out; at most the clock old."""
        return self._known.all()

    def find(self, name: str) -> Collection | None:
        """The collection of this name, at most the clock old; None when there is none now, or it is a work collection.

        The name may be anything.
        """
        return self._known.find(name) if may_be_searched(name) else None

    def query(self, name: str, vector: NDArray[float32], limit: int, where: CheckedWhere | None = None) -> list[Hit]:
        """The `limit` records nearest to vector (float32[dim]), nearest first.

        Raises UnknownCollection, DimensionMismatch, FilterRefused, ChromaUnavailable.
        """
        collection = self.find(name)
        if collection is not None:
            try:
                return self._query(collection, vector, limit, where)
            except UnknownCollection:
                log.info("the id of collection %s is gone; its name is resolved again", name)
            collection = self._known.find(name, gone=collection.id)
        if collection is None:
            raise UnknownCollection(f"There is no collection {name}.")
        return self._query(collection, vector, limit, where)

    def listed(self) -> dict[str, Collection]:
        """All collections, whatever happened a moment ago: for who wants to know whether Chroma is there."""
        return by_name(self.session.answer(_list))

    def counts(self, collections: Iterable[Collection]) -> dict[str, int]:
        """How many records each has."""
        counts = {}
        for collection in collections:
            try:
                counts[collection.name] = self.session.answer(partial(_count, collection))
            except UnknownCollection:
                continue  # deleted since it was listed
        return counts

    def _every(self) -> list[Collection]:
        # of many thousands it may take longer than a search waits for Chroma, which would then be taken for dead
        with set_aside():
            return self.session.run(_list)

    def _query(
        self, collection: Collection, vector: NDArray[float32], limit: int, where: CheckedWhere | None
    ) -> list[Hit]:
        if collection.dimension is not None and collection.dimension != vector.shape[0]:
            name = "of your own records" if is_tenant_collection(collection.name) else collection.name
            raise DimensionMismatch(
                f"Collection {name} has vectors of dimension {collection.dimension}, "
                f"the query's has {vector.shape[0]}.",
                hint="Set EMBEDDING_PROVIDER and EMBEDDING_DIMENSION to what the collection was made with, "
                "or leave it out of RAG_COLLECTIONS.",
            )

        def ask(client: ChromaClient) -> list[Hit]:
            answer = client.bind(collection).query(
                query_embeddings=vector[None, :],
                n_results=limit,
                where=where.conditions if where is not None else None,
                include=["documents", "metadatas", "distances"],
            )
            return read_hits(collection, answer)

        return self.session.run(ask, Purpose.FILTERED if where is not None else Purpose.LOOK)


def _list(client: ChromaClient) -> list[Collection]:
    collections = client.collections()
    if not collections:
        try:
            client.check_database()  # a database that does not exist lists as an empty one
        except Exception as error:
            if not isinstance(error, NotFoundError):
                raise
            raise ChromaUnavailable(
                f"Chroma has no database {client.database} of tenant {client.tenant}.",
                hint="Correct CHROMA_TENANT and CHROMA_DATABASE.",
            ) from error
    return collections


def _count(collection: Collection, client: ChromaClient) -> int:
    return int(client.bind(collection).count())
