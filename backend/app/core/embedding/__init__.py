"""Text to vectors, behind one interface."""

from __future__ import annotations

import logging

from app.config import Settings
from app.core.embedding.hashing import HashingEmbedder
from app.core.embedding.openai import Endpoint, OpenAIEmbedder
from app.core.embedding.provider import EmbeddingProvider
from app.core.errors import EmbeddingUnavailable, StartupError, TextRefused, WrongDimension

__all__ = ["EmbeddingProvider", "HashingEmbedder", "check_provider", "make_provider"]

log = logging.getLogger(__name__)


def make_provider(settings: Settings) -> EmbeddingProvider:
    """The provider that EMBEDDING_PROVIDER names. Asks nobody yet; raises StartupError where a model is missing."""
    if settings.embedding_provider == "openai":
        endpoint = Endpoint(
            url=settings.embedding_url or "",
            model=settings.embedding_model or "",
            key=settings.embedding_key,
            send_dimension=settings.embedding_send_dimension,
        )
        return OpenAIEmbedder(
            endpoint, settings.embedding_dimension, settings.embedding_batch, settings.embedding_timeout_seconds
        )
    if settings.embedding_provider == "onnx":
        # imported here: it takes a while, and only those who want it have to wait
        from app.core.embedding.onnx import OnnxEmbedder

        return OnnxEmbedder(settings.embedding_model_path)
    return HashingEmbedder(settings.embedding_dimension)


def check_provider(provider: EmbeddingProvider) -> None:
    """Have it embed something. StartupError when its vectors have another dimension than is configured.

    One that cannot be reached is only told of: it may come later.
    """
    try:
        provider.embed(["The provider is there."])
    except (WrongDimension, TextRefused) as error:
        raise StartupError(error.message, hint=error.hint) from None
    except EmbeddingUnavailable as error:
        log.warning("%s", error)
