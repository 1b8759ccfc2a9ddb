"""The deterministic hashing embedder: for tests and the local stack, where no model can be had.

Random indexing (Kanerva, Kristofersson, Holst: "Random Indexing of Text Samples for Latent Semantic
Analysis", 2000): each token has a fixed pseudo-random vector, a text is the normalised sum of its tokens'.
Texts that share words are near each other; there is no meaning beyond that. The service has the same
embedder (backend/app/core/embedding/hashing.py); a test holds the two bit-identical.
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


@lru_cache(maxsize=16_384)
def _token_vector(token: str, dimension: int) -> NDArray[np.float64]:
    digest = hashlib.shake_256(token.encode()).digest(4 * dimension)
    return np.frombuffer(digest, dtype="<u4").astype(np.float64) / 2**31 - 1.0


def hashing_embeddings(texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
    """Unit vectors for the texts, float32[n, dimension]; the same text gives the same bits everywhere."""
    rows = np.empty((len(texts), dimension), dtype=np.float32)
    for row, text in enumerate(texts):
        total = np.zeros(dimension, dtype=np.float64)
        for token in _TOKEN.findall(text.lower()) or [""]:
            total += _token_vector(token, dimension)
        rows[row] = total / math.sqrt(math.fsum(total * total))
    return rows
