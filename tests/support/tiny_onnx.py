"""A model with the files, inputs and outputs of all-MiniLM-L6-v2, of a few kilobytes: a table with a vector a word.

ONNX's format is protobuf (github.com/onnx/onnx, onnx.proto); the few messages that one node needs are written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

DIMENSION = 384
_FLOAT, _INT64 = 1, 7
_OPSET, _IR_VERSION = 17, 8


def write_model(folder: Path, words: Sequence[str], *, dimension: int = DIMENSION, zero: str = "") -> None:
    """model.onnx and tokenizer.json that know these words; `zero` is one whose vector is zero."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: place for place, word in enumerate(("[PAD]", "[UNK]", *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(len(vocabulary), dimension)).astype("<f4")
    if zero:
        table[vocabulary[zero]] = 0.0
    (folder / "model.onnx").write_bytes(_model(table))


def _model(table: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bytes:
    """last_hidden_state[batch, tokens, dimension] = the rows of the table that input_ids name."""
    tensor = b"".join(_number(1, size) for size in table.shape) + _number(2, _FLOAT)
    tensor += _bytes(8, b"table") + _bytes(9, table.tobytes())
    node = _bytes(1, b"table") + _bytes(1, b"input_ids") + _bytes(2, b"last_hidden_state") + _bytes(4, b"Gather")
    inputs = [_value(name, _INT64, 2) for name in (b"input_ids", b"attention_mask", b"token_type_ids")]
    graph = _bytes(1, node) + _bytes(2, b"tiny") + _bytes(5, tensor)
    graph += b"".join(_bytes(11, value) for value in inputs) + _bytes(12, _value(b"last_hidden_state", _FLOAT, 3))
    return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, _OPSET))


def _value(name: bytes, kind: int, axes: int) -> bytes:
    shape = b"".join(_bytes(1, _bytes(2, name + bytes([65 + axis]))) for axis in range(axes))
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
