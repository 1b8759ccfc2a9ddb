"""The semantic memory: a tenant's memories by meaning, as far as the embedding provider knows any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.chroma.store import ChromaStore
from app.core.embedding import EmbeddingProvider
from app.core.errors import UnknownCollection
from app.core.found import Found
from app.core.memory.tenant import Tenant
from app.limits import Threads


class SemanticMemory:
    """Searches the memories of one tenant at a time."""

    def __init__(self, store: ChromaStore, embedder: EmbeddingProvider, threads: Threads) -> None:
        self._store = store
        self._embedder = embedder
        self._threads = threads

    async def search(self, tenant: Tenant, query: str, limit: int, where: Mapping[str, Any] | None = None) -> Found:
        """The memories nearest to the query, nearest first; none while nothing was ever remembered.

        Raises FilterRefused, DimensionMismatch, ChromaUnavailable, EmbeddingUnavailable.
        """

        def ask() -> Found:
            vector = self._embedder.embed([query])[0]
            try:
                return Found(self._store.query(tenant.collection("memory"), vector, limit, where))
            except UnknownCollection:
                return Found([])

        return await self._threads.run(ask)
