"""Text to vectors, behind one interface."""

from __future__ import annotations

from app.config import Settings
from app.core.embedding.hashing import HashingEmbedder
from app.core.embedding.provider import EmbeddingProvider

__all__ = ["EmbeddingProvider", "HashingEmbedder", "make_provider"]


def make_provider(settings: Settings) -> EmbeddingProvider:
    """The provider that EMBEDDING_PROVIDER names; the settings have refused unknown names already."""
    return HashingEmbedder(settings.embedding_dimension)
