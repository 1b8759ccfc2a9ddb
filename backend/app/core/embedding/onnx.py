"""Chroma's built-in model, all-MiniLM-L6-v2 by onnxruntime: no server, no GPU. It reads 256 tokens of a text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from chromadb.utils.embedding_functions.onnx_mini_lm_l6_v2 import ONNXMiniLM_L6_V2
from numpy import float32
from numpy.typing import NDArray

from app.config import ONNX_DIMENSION as DIMENSION
from app.core.errors import StartupError, TextRefused

DEFAULT_PATH = Path(ONNXMiniLM_L6_V2.DOWNLOAD_PATH) / ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME
FILES = ("model.onnx", "tokenizer.json")


class _Model(ONNXMiniLM_L6_V2):
    """Chroma's, on files of our choosing. It never downloads: what a service computes with is put there on purpose."""

    EXTRACTED_FOLDER_NAME = ""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.DOWNLOAD_PATH = directory

    def _download_model_if_not_exists(self) -> None:
        """It is there, or was complained of."""


class OnnxEmbedder:
    """Embeds in this process, on all its cores. `directory` holds model.onnx and tokenizer.json."""

    name = "onnx"
    dimension = DIMENSION

    def __init__(self, directory: Path | None = None) -> None:
        where = directory if directory is not None else DEFAULT_PATH
        digest = hashlib.sha256()
        try:
            for file in FILES:
                digest.update((where / file).read_bytes())
        except OSError as error:
            raise StartupError(
                f"EMBEDDING_PROVIDER=onnx has no model: {error.filename}: {error.strerror}.",
                hint="Set EMBEDDING_MODEL_PATH to the folder `onnx` of Chroma's all-MiniLM-L6-v2 "
                f"({ONNXMiniLM_L6_V2.MODEL_DOWNLOAD_URL}).",
            ) from None
        # of its content: another model in the same place has another name
        self.model = f"onnx:all-MiniLM-L6-v2:{digest.hexdigest()[:12]}"
        self._model = _Model(where)
        try:
            made = self._model.tokenizer and len(self._model(["loaded"])[0])
        except Exception as error:  # each library has exceptions of its own
            reason = " ".join(str(error).split())[:200]
            raise StartupError(
                f"EMBEDDING_PROVIDER=onnx cannot use the model in {where}: {reason}.",
                hint="Unpack it again, or set EMBEDDING_MODEL_PATH.",
            ) from None
        if made != DIMENSION:
            raise StartupError(f"The model in {where} makes vectors of dimension {made}; all-MiniLM-L6-v2 makes 384.")

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        """Unit vectors, float32[n, 384]. Raises TextRefused."""
        if not texts:
            return np.empty((0, DIMENSION), dtype=float32)
        rows = np.stack(self._model(list(texts))).astype(float32, copy=False)
        if not np.isfinite(rows).all() or not rows.any(axis=1).all():
            raise TextRefused("The model makes a vector of the text that is zero or not finite.")
        return rows

    def close(self) -> None:
        """It holds memory only."""
