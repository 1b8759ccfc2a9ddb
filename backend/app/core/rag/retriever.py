"""The retriever: the passages nearest to a question, from one or several collections."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.core.chroma.hits import Hit, metric_of
from app.core.chroma.store import ChromaStore
from app.core.embedding import EmbeddingProvider
from app.core.errors import CollectionMissing, MixedMetrics, UnknownCollection


class Retriever:
    """Searches the served collections: those configured, or every one that is not the memory's."""

    def __init__(
        self,
        store: ChromaStore,
        embedder: EmbeddingProvider,
        collections: Sequence[str],
        memory_collection: str,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._configured = tuple(collections)
        self._memory = memory_collection

    def serves(self, name: str) -> bool:
        """Whether queries may reach the collection of this name."""
        return name in self._configured if self._configured else name != self._memory

    def missing(self, live: Collection[str]) -> list[str]:
        """The configured collections that are not among the live ones."""
        return [name for name in self._configured if name not in live]

    def search(
        self,
        query: str,
        limit: int,
        collections: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """The `limit` passages nearest to the query over the collections, nearest first.

        Without names all served collections are asked. Raises UnknownCollection for a name that is not
        served, CollectionMissing when a configured one does not exist, MixedMetrics, DimensionMismatch,
        FilterRefused, ChromaUnavailable.
        """
        vector = self._embedder.embed([query])[0]
        hits: list[Hit] = []
        for name in self._choose(collections):
            try:
                hits += self._store.query(name, vector, limit, where)
            except UnknownCollection:
                # Gone since it was listed: an error only for those who count on it by name.
                if collections is not None:
                    raise
                if self._configured:
                    raise _missing([name]) from None
        return heapq.nsmallest(limit, hits, key=lambda hit: (hit.distance, hit.collection, hit.id))

    def _choose(self, requested: Sequence[str] | None) -> list[str]:
        """The names to search: existing, served, and of one metric."""
        names = list(dict.fromkeys(requested if requested is not None else self._configured))
        live = self._store.collections()
        if not live.keys() >= set(names):
            live = self._store.collections_now()
        absent = [name for name in names if name not in live or not self.serves(name)]
        if absent and requested is not None:
            raise UnknownCollection(f"There is no collection {', '.join(absent)}.")
        if absent:
            raise _missing(absent)
        names = names or sorted(filter(self.serves, live))
        metrics = {name: metric_of(live[name]) for name in names}
        if len(set(metrics.values())) > 1:
            raise MixedMetrics(
                "The collections measure distance in different ways, so their results cannot be merged: "
                + ", ".join(f"{name} ({metric})" for name, metric in metrics.items())
                + ".",
                hint="Name collections of one metric.",
            )
        return names


def _missing(names: Sequence[str]) -> CollectionMissing:
    return CollectionMissing(
        f"Chroma has no collection {', '.join(names)}, which RAG_COLLECTIONS names.",
        hint="It may be on its way (a migration); otherwise correct RAG_COLLECTIONS.",
    )
