"""Chroma's built-in model: its code, onnxruntime and tokenizers are the real ones, the model is a tiny one like it.

The model itself is not part of the repository, and nothing here downloads it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from app.config import ONNX_DIMENSION, Settings
from app.core.embedding import check_provider, make_provider
from app.core.embedding.onnx import FILES, OnnxEmbedder
from app.core.errors import StartupError, TextRefused
from support.tiny_onnx import DIMENSION, write_model

WORDS = ("rain", "sun", "on", "tuesday", "nothing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "onnx", WORDS)
    return tmp_path / "onnx"


def test_embeds_with_the_model_of_the_configured_folder(folder: Path) -> None:
    settings = Settings(embedding_provider="onnx", embedding_dimension=384, embedding_model_path=folder)
    provider = make_provider(settings)
    check_provider(provider)
    rows = provider.embed(["rain on tuesday", "sun", "rain on tuesday"])
    assert rows.dtype == np.float32
    assert rows.shape == (3, DIMENSION)
    assert provider.dimension == DIMENSION == ONNX_DIMENSION
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    assert rows[0].tobytes() == rows[2].tobytes() != rows[1].tobytes()
    # the padding counts for nothing, and neither do the other texts of a batch
    alone = provider.embed(["rain on tuesday"])[0]
    np.testing.assert_allclose(rows[0], alone, atol=1e-6)
    table = {word: provider.embed([word])[0] for word in ("rain", "sun")}
    assert table["rain"] @ rows[0] > 0.4 > abs(table["sun"] @ rows[0])
    assert provider.embed([]).shape == (0, DIMENSION)
    provider.close()


def test_many_texts_and_long_ones(folder: Path) -> None:
    provider = OnnxEmbedder(folder)
    assert provider.embed(["rain " * 5000] * 70).shape == (70, DIMENSION)


def test_is_named_by_what_it_computes_with(folder: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "same", WORDS)
    write_model(tmp_path / "other", (*WORDS, "snow"))
    one, same, other = (OnnxEmbedder(place).model for place in (folder, tmp_path / "same", tmp_path / "other"))
    assert one == same != other
    assert one.startswith("onnx:all-MiniLM-L6-v2:")


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_model_is_one_clear_line(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(StartupError) as caught:
        OnnxEmbedder(folder)
    line = str(caught.value)
    assert f"{folder / missing}: No such file" in line
    assert "EMBEDDING_MODEL_PATH" in line
    assert "\n" not in line


def test_without_a_path_it_looks_where_chroma_keeps_its_own(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("app.core.embedding.onnx.DEFAULT_PATH", folder)
    assert OnnxEmbedder().embed(["rain"]).shape == (1, DIMENSION)
    from app.core.embedding import onnx

    monkeypatch.undo()
    assert onnx.DEFAULT_PATH.parts[-2:] == ("all-MiniLM-L6-v2", "onnx")


@pytest.mark.parametrize("broken", FILES)
def test_a_broken_model_is_one_clear_line(folder: Path, broken: str) -> None:
    os.truncate(folder / broken, 100)
    with pytest.raises(StartupError, match="cannot use the model in") as caught:
        OnnxEmbedder(folder)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_length_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, WORDS, dimension=16)
    with pytest.raises(StartupError, match="dimension 16"):
        OnnxEmbedder(tmp_path)


def test_a_text_without_a_vector_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, WORDS, zero="nothing")
    provider = OnnxEmbedder(tmp_path)
    with pytest.raises(TextRefused):
        provider.embed(["rain", "nothing"])
    assert provider.embed(["rain"]).shape == (1, DIMENSION)
