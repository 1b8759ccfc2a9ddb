from __future__ import annotations

import numpy as np
import pytest

from app.core.embedding.hashing import HashingEmbedder
from chromactl.embedding import hashing_embeddings
from chromactl.stores import names

TEXTS = [
    "",
    "  …  ",
    "One word",
    "word word word",
    "Ünïcödé ΣΊΣΥΦΟΣ İstanbul 東京",
    "a\x00b",
    " ".join(f"token{n}" for n in range(3000)),
]


@pytest.mark.parametrize("dimension", [1, 3, 768, 1536])
def test_agrees_with_the_toolkit_to_the_bit(dimension: int) -> None:
    ours = HashingEmbedder(dimension).embed(TEXTS)
    assert ours.dtype == np.float32
    assert ours.tobytes() == hashing_embeddings(TEXTS, dimension).tobytes()


def test_gives_unit_vectors_that_share_words() -> None:
    rain, shower, tax = HashingEmbedder(768).embed(["cold rain today", "rain again today", "income tax return"])
    assert np.linalg.norm(rain) == pytest.approx(1, abs=1e-6)
    assert rain @ shower > 0.5 > 0.2 > abs(rain @ tax)


def test_embeds_no_texts() -> None:
    assert HashingEmbedder(8).embed([]).shape == (0, 8)


def test_agrees_with_the_toolkit_on_work_collections() -> None:
    from app.core.chroma.resolver import is_work_collection

    run = "20261120T101500-0a1b2c"
    for name in ("x", names.staged_name("x", run), names.before_name("x", run), "x--m", "x--memo", "a--before-noon"):
        assert is_work_collection(name) == names.is_work_collection(name)
    assert is_work_collection(names.staged_name("x", run))
    assert is_work_collection(names.before_name("x", run))
