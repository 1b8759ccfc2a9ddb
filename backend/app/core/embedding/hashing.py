"""The deterministic hashing embedder: for tests and the local stack, where no model can be had.

Each token has a fixed pseudo-random vector and a text is the normalised sum of its tokens' (random
indexing: Kanerva, Kristofersson and Holst, 2000). Texts that share words are near each other; it knows
nothing of meaning. chromactl writes the local stack's data with the same embedder
(scripts/chromactl/embedding/hashing.py), so the two must agree to the bit; a test compares them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_TOKEN = re.compile(r"\w+")


class HashingEmbedder:
    """Embeds with hashes of the words; no model, no network."""

    name = "hashing"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.model = f"hashing-{dimension}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, float32[n, dimension]. A text without a word counts as one empty word."""
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            total = np.zeros(self.dimension)
            for token in _TOKEN.findall(text.lower()) or [""]:
                total += _token_vector(token, self.dimension)
            # fsum rounds once, so the norm is the same on every machine
            rows[row] = total / math.sqrt(math.fsum(total * total))
        return rows

    def close(self) -> None:
        """It holds nothing."""


@lru_cache(maxsize=4096)  # 6 KiB each at dimension 768
def _token_vector(token: str, dimension: int) -> NDArray[np.float64]:
    digest = hashlib.shake_256(token.encode()).digest(4 * dimension)
    vector = np.frombuffer(digest, dtype="<u4").astype(np.float64) / 2**31 - 1.0
    vector.flags.writeable = False
    return vector
