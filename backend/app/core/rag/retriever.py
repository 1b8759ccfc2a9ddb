"""The retriever: the passages nearest to a question, from a tenant's documents and from what all tenants share."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.deadline import within
from app.core.chroma.filters import CheckedWhere, checked_where
from app.core.chroma.hits import metric_of, own_matches, shared_match
from app.core.chroma.store import ChromaStore
from app.core.embedding import EmbeddingProvider
from app.core.errors import ChromaUnavailable, CollectionMissing, MixedMetrics, UnknownCollection
from app.core.found import Found, Match
from app.core.memory.nearest import Nearest
from app.core.memory.tenant import Tenant, is_tenant_collection
from app.limits import Threads

EVERY = "*"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and where.

    `collections`: shared ones by name, or None for all of them. `own`: whether the tenant's own passages are searched.
    """

    text: str
    limit: int
    collections: Sequence[str] | None = None
    own: bool = True
    where: Mapping[str, Any] | None = None


class Retriever:
    """Searches a tenant's own passages and the collections that all tenants share (RAG_COLLECTIONS).

    Chroma is asked for `patience` seconds, then the substitute if there is one, which has the tenant's own alone.
    """

    def __init__(
        self,
        store: ChromaStore,
        embedder: EmbeddingProvider,
        shared: Sequence[str],
        threads: Threads,
        substitute: Nearest | None = None,
        patience: float | None = None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        # whatever the settings say, no tenant's collection is ever shared
        self._shared = tuple(name for name in shared if not is_tenant_collection(name))
        self._threads = threads
        self._substitute = substitute
        self._patience = patience

    def serves(self, name: str) -> bool:
        """Whether the collection of this name is shared by all tenants."""
        return not is_tenant_collection(name) and (name in self._shared or EVERY in self._shared)

    def missing(self, live: Collection[str]) -> list[str]:
        """The configured collections that are not among the live ones."""
        return [name for name in self._shared if name not in live and name != EVERY]

    async def search(self, tenant: Tenant, question: Question) -> Found:
        """The passages nearest to the question, nearest first.

        Raises UnknownCollection for a name that is not shared, CollectionMissing when a configured one does not exist,
        MixedMetrics, DimensionMismatch, FilterRefused, EmbeddingUnavailable, Overloaded; without a substitute, or where
        the tenant's own passages are not asked for, ChromaUnavailable; with one DatabaseUnavailable.
        """
        where = checked_where(question.where)
        vector, matches = await self._threads.run(partial(self._ask, tenant, question, where))
        if not isinstance(matches, ChromaUnavailable):
            return Found(matches)
        if self._substitute is None or not question.own:
            raise matches
        meaning = where.meaning if where else None
        own = await self._substitute.search(tenant, vector, question.limit, meaning)
        return Found(own, degraded=True, partial=bool(self._shared) and question.collections != [])

    def _ask(
        self, tenant: Tenant, question: Question, where: CheckedWhere | None
    ) -> tuple[NDArray[float32], Sequence[Match] | ChromaUnavailable]:
        vector = self._embedder.embed([question.text])[0]
        try:
            with within(self._patience):
                return vector, self._search(tenant, question, where, vector)
        except ChromaUnavailable as error:
            return vector, error

    def _search(
        self, tenant: Tenant, question: Question, where: CheckedWhere | None, vector: NDArray[float32]
    ) -> list[Match]:
        matches: list[Match] = []
        for name in self._choose(tenant, question):
            try:
                hits = self._store.query(name, vector, question.limit, where)
            except UnknownCollection:
                # Gone since it was listed: an error only for those who count on it by name.
                if question.collections is not None and name in question.collections:
                    raise
                if name in self._shared:
                    raise _missing([name]) from None
                continue
            matches += own_matches(hits, "passage") if is_tenant_collection(name) else map(shared_match, hits)
        return heapq.nsmallest(
            question.limit, matches, key=lambda match: (match.distance, match.collection or "", match.id)
        )

    def _choose(self, tenant: Tenant, question: Question) -> list[str]:
        """The names to search: existing, the tenant's or shared, and of one metric."""
        requested = question.collections
        configured = [name for name in self._shared if name != EVERY]
        names = list(dict.fromkeys(requested if requested is not None else configured))
        mine = tenant.collection("passage")
        live = {name: found for name in names if self.serves(name) and (found := self._store.find(name))}
        absent = [name for name in names if name not in live]
        if absent and requested is not None:
            raise UnknownCollection(f"There is no collection {', '.join(absent)}.")
        if absent:
            raise _missing(absent)
        if requested is None and EVERY in self._shared:
            live |= {name: found for name, found in self._store.collections().items() if self.serves(name)}
            names = sorted(live)
        metrics = {name: metric_of(live[name]) for name in names}
        if question.own and (own := self._store.find(mine)):
            metrics["your own documents"] = metric_of(own)
            names.append(mine)
        if len(set(metrics.values())) > 1:
            raise MixedMetrics(
                "The collections measure distance in different ways, so their results cannot be merged: "
                + ", ".join(f"{name} ({metric})" for name, metric in metrics.items())
                + ".",
                hint="Name collections of one metric, or ask for your own documents alone.",
            )
        return names


def _missing(names: Sequence[str]) -> CollectionMissing:
    return CollectionMissing(
        f"Chroma has no collection {', '.join(names)}, which RAG_COLLECTIONS names.",
        hint="It may be on its way (a migration); otherwise correct RAG_COLLECTIONS.",
    )
