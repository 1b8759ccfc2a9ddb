"""The semantic memory: search over the one collection that holds memories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.chroma.hits import Hit
from app.core.chroma.store import ChromaStore
from app.core.embedding import EmbeddingProvider
from app.core.errors import UnknownCollection


class SemanticMemory:
    """Searches memories by meaning, as far as the embedding provider knows any."""

    def __init__(self, store: ChromaStore, embedder: EmbeddingProvider, collection: str) -> None:
        self._store = store
        self._embedder = embedder
        self._collection = collection

    def search(self, query: str, limit: int, where: Mapping[str, Any] | None = None) -> list[Hit]:
        """The memories nearest to the query, nearest first; none while nothing was ever remembered.

        Raises FilterRefused, DimensionMismatch, ChromaUnavailable.
        """
        vector = self._embedder.embed([query])[0]
        try:
            return self._store.query(self._collection, vector, limit, where)
        except UnknownCollection:
            return []
