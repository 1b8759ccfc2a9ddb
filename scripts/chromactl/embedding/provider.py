"""Who embeds texts. The hashing embedder can make any dimension, a model has its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from chromactl.embedding.hashing import hashing_embeddings


class Embedder(Protocol):
    """Makes vectors of texts. It may hold connections: `with` lets go of them."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def embed(self, texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
        """Vectors of the texts, float32[n, d]; d is the dimension asked for, unless a model has another.

        Raises:
            EmbeddingError: the model does not give them.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class HashEmbedder:
    """The hashing embedder: no model, no network."""

    name = "the hashing embedder"

    def embed(self, texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
        """Unit vectors, float32[n, dimension]."""
        return hashing_embeddings(texts, dimension)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""
