"""The retriever: the passages nearest to a question, from a tenant's documents and from what all tenants share."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.core.chroma.hits import Hit, metric_of
from app.core.chroma.store import ChromaStore
from app.core.embedding import EmbeddingProvider
from app.core.errors import CollectionMissing, MixedMetrics, UnknownCollection
from app.core.found import Found
from app.core.memory.tenant import Tenant, is_tenant_collection
from app.limits import Threads

EVERY = "*"


class Retriever:
    """Searches a tenant's own passages and the collections that all tenants share (RAG_COLLECTIONS)."""

    def __init__(
        self, store: ChromaStore, embedder: EmbeddingProvider, shared: Sequence[str], threads: Threads
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._shared = tuple(shared)
        self._threads = threads

    def serves(self, name: str) -> bool:
        """Whether the collection of this name is shared by all tenants."""
        return not is_tenant_collection(name) and (name in self._shared or EVERY in self._shared)

    def missing(self, live: Collection[str]) -> list[str]:
        """The configured collections that are not among the live ones."""
        return [name for name in self._shared if name not in live and name != EVERY]

    async def search(
        self,
        tenant: Tenant,
        query: str,
        limit: int,
        collections: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Found:
        """The `limit` passages nearest to the query, nearest first.

        Without names the tenant's own and all shared collections are asked. Raises UnknownCollection for a name that is
        not shared, CollectionMissing when a configured one does not exist, MixedMetrics, DimensionMismatch,
        FilterRefused, ChromaUnavailable, EmbeddingUnavailable.
        """
        return await self._threads.run(lambda: Found(self._search(tenant, query, limit, collections, where)))

    def _search(
        self,
        tenant: Tenant,
        query: str,
        limit: int,
        collections: Sequence[str] | None,
        where: Mapping[str, Any] | None,
    ) -> list[Hit]:
        vector = self._embedder.embed([query])[0]
        hits: list[Hit] = []
        for name in self._choose(tenant, collections):
            try:
                hits += self._store.query(name, vector, limit, where)
            except UnknownCollection:
                # Gone since it was listed: an error only for those who count on it by name.
                if collections is not None:
                    raise
                if name in self._shared:
                    raise _missing([name]) from None
        return heapq.nsmallest(limit, hits, key=lambda hit: (hit.distance, hit.collection, hit.id))

    def _choose(self, tenant: Tenant, requested: Sequence[str] | None) -> list[str]:
        """The names to search: existing, the tenant's or shared, and of one metric."""
        configured = [name for name in self._shared if name != EVERY]
        names = list(dict.fromkeys(requested if requested is not None else configured))
        live = self._store.collections()
        if not live.keys() >= set(names):
            live = self._store.collections_now()
        absent = [name for name in names if name not in live or not self.serves(name)]
        if absent and requested is not None:
            raise UnknownCollection(f"There is no collection {', '.join(absent)}.")
        if absent:
            raise _missing(absent)
        if requested is None:
            own = tenant.collection("passage")
            names = sorted({*names, *filter(self.serves, live), *({own} & live.keys())})
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
