from __future__ import annotations

import hashlib

import numpy as np
import pytest

from chromactl.embedding import hashing_embeddings


def test_golden_values() -> None:
    """The service has the same embedder; these bits may never change."""
    found = hashing_embeddings(["the quick brown fox", "", "ÄRGER ärger"], 4)
    assert found.tolist() == [
        [0.2950063645839691, 0.04563775286078453, -0.6534698605537415, 0.6956045031547546],
        [-0.42802587151527405, -0.5517154932022095, 0.5456123352050781, -0.4633692502975464],
        [0.8378634452819824, 0.5333810448646545, 0.09280692785978317, 0.06983067840337753],
    ]
    wide = hashing_embeddings(["self-deprecating humor", "día de mañana"], 768)
    assert (
        hashlib.sha256(wide.astype("<f4").tobytes()).hexdigest()
        == "aedb5a578ab95fe431c33b821681f8411b02dcec94bc9b49e2ae8dde414f795a"
    )


@pytest.mark.parametrize("dimension", [1, 3, 768, 1536])
def test_vectors_have_length_one(dimension: int) -> None:
    found = hashing_embeddings(["a b c", "", "!?"], dimension)
    assert found.shape == (3, dimension)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_the_same_text_gives_the_same_bits_alone_or_among_others() -> None:
    alone = hashing_embeddings(["pets are fine"], 64)
    among = hashing_embeddings(["x", "pets are fine", "y"], 64)
    assert alone[0].tobytes() == among[1].tobytes()


def test_case_order_and_punctuation_do_not_matter_words_do() -> None:
    a, b, c = hashing_embeddings(["Red fox", "fox, RED!", "red dog"], 256)
    assert np.allclose(a, b, atol=1e-6)
    assert not np.allclose(a, c, atol=1e-2)


def test_texts_that_share_words_are_nearer() -> None:
    asked, near, far = hashing_embeddings(
        ["boundaries and trust", "trust needs boundaries", "a joke about timing"], 768
    )
    assert asked @ near > asked @ far


def test_no_texts_give_no_vectors() -> None:
    assert hashing_embeddings([], 8).shape == (0, 8)
