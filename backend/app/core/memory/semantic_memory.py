"""The semantic memory: a tenant's memories by meaning, as far as the embedding provider knows any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.deadline import within
from app.core.chroma.filters import CheckedWhere, checked_where
from app.core.chroma.hits import own_matches
from app.core.chroma.store import ChromaStore
from app.core.embedding import EmbeddingProvider
from app.core.errors import ChromaUnavailable, UnknownCollection
from app.core.found import Found, Match
from app.core.memory.nearest import Nearest
from app.core.memory.tenant import Tenant
from app.limits import Threads


class SemanticMemory:
    """Searches the memories of one tenant at a time: asks Chroma for `patience` seconds, then the substitute if any."""

    def __init__(
        self,
        store: ChromaStore,
        embedder: EmbeddingProvider,
        threads: Threads,
        substitute: Nearest | None = None,
        patience: float | None = None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._threads = threads
        self.substitute = substitute
        self._patience = patience

    async def search(self, tenant: Tenant, query: str, limit: int, where: Mapping[str, Any] | None = None) -> Found:
        """The memories nearest to the query, nearest first; none while nothing was ever remembered.

        Raises FilterRefused, DimensionMismatch, EmbeddingUnavailable, Overloaded; without a substitute
        ChromaUnavailable, with one DatabaseUnavailable.
        """
        checked = checked_where(where)
        vector, matches = await self._threads.run(partial(self._ask, tenant, query, limit, checked))
        if not isinstance(matches, ChromaUnavailable):
            return Found(matches)
        if self.substitute is None:
            raise matches
        meaning = checked.meaning if checked else None
        return Found(await self.substitute.search(tenant, vector, limit, meaning), degraded=True)

    def _ask(
        self, tenant: Tenant, query: str, limit: int, where: CheckedWhere | None
    ) -> tuple[NDArray[float32], Sequence[Match] | ChromaUnavailable]:
        vector = self._embedder.embed([query])[0]
        try:
            with within(self._patience):
                hits = self._store.query(tenant.collection("memory"), vector, limit, where)
        except UnknownCollection:
            return vector, []
        except ChromaUnavailable as error:
            return vector, error
        return vector, own_matches(hits, "memory")
