"""What every embedding provider promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from numpy import float32
from numpy.typing import NDArray


class EmbeddingProvider(Protocol):
    """Turns texts into unit vectors. Safe to share between threads."""

    @property
    def name(self) -> str:
        """Its name, as EMBEDDING_PROVIDER spells it."""

    @property
    def model(self) -> str:
        """What made the vectors: equal names, equal vectors for equal texts. Stored beside each embedding."""

    @property
    def dimension(self) -> int:
        """The length of its vectors."""

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        """One vector a text: float32[n, dimension]. Blocks.

        Raises EmbeddingUnavailable, and TextRefused where a text is to blame, whatever else would be embedded.
        """

    def close(self) -> None:
        """Let go of what it holds."""
