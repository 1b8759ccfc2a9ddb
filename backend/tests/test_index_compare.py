"""What `app verify` and `app rebuild` call the same, and that chromactl calls the same the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.wire import Columns, decode
from app.core.chroma.writer import Entries
from app.core.index.compare import COSINE_TOLERANCE, FLOAT_ULPS, differences
from chromactl import compare
from chromactl.stores.base import Batch

VECTOR = np.array([0.6, -0.8, 1e-9], float32)
METADATA: dict[str, Any] = {"a": 1, "f": 1 / 3, "b": True, "s": "x", "l": [0.1, 0.2]}


def entries(vector: NDArray[float32] = VECTOR, document: str = "text", metadata: Any = METADATA) -> Entries:
    return Entries(["1"], vector[None, :], [document], [metadata])


def columns(vector: NDArray[float32] = VECTOR, document: str | None = "text", metadata: Any = METADATA) -> Columns:
    return Columns(["1"], vector[None, :], [document], [metadata])


def off(value: float, ulps: int) -> float:
    for _ in range(ulps):
        value = float(np.nextafter(value, np.inf))
    return value


SAME = {
    "equal": columns(),
    "a rounded embedding": columns(VECTOR * float32(1 + 2e-7)),
    "a rounded float": columns(metadata={**METADATA, "f": off(1 / 3, 2)}),
    "a rounded float in a list": columns(metadata={**METADATA, "l": [off(0.1, 1), 0.2]}),
    "another order of keys": columns(metadata=dict(reversed(METADATA.items()))),
}
DIFFERENT = {
    "embedding": columns(VECTOR * float32(1 + 4e-7)),
    "document": columns(document="other"),
    "metadata a": columns(metadata={**METADATA, "a": 1.0}),
    "metadata b": columns(metadata={**METADATA, "b": 1}),
    "metadata f": columns(metadata={**METADATA, "f": off(1 / 3, 3)}),
    "metadata s": columns(metadata={key: value for key, value in METADATA.items() if key != "s"}),
    "metadata more": columns(metadata={**METADATA, "more": 0}),
    "metadata l": columns(metadata={**METADATA, "l": [0.1, 0.2, 0.3]}),
    "missing": Columns([], np.empty((0, 3), float32), [], []),
}


def chromactls(actual: Columns) -> bool:
    """Whether chromactl finds nothing."""
    comparison = compare.Comparison()
    none: list[Any] = [None] * len(actual.ids)
    expected = Batch(["1"], VECTOR[None, :], ["text"], [None], [METADATA])
    found = Batch(actual.ids, actual.vectors, list(actual.documents), none, [dict(m or {}) for m in actual.metadatas])
    comparison.add(expected, found, space="cosine")
    return not comparison.differences


@pytest.mark.parametrize("name", SAME)
def test_what_chroma_rounds_is_the_same(name: str) -> None:
    assert differences(entries(), SAME[name]) == {}
    assert chromactls(SAME[name])


@pytest.mark.parametrize("name", DIFFERENT)
def test_everything_else_is_told(name: str) -> None:
    assert differences(entries(), DIFFERENT[name]) == {"1": name}
    assert not chromactls(DIFFERENT[name])


def test_the_tolerances_are_chromactls() -> None:
    assert (COSINE_TOLERANCE, FLOAT_ULPS) == (compare.COSINE_TOLERANCE, compare.FLOAT_ULPS)


def test_without_metadata_and_document_there_is_none() -> None:
    assert differences(entries(document="text"), columns(document=None)) == {"1": "document"}
    assert differences(entries(metadata={"a": 0}), columns(metadata=None)) == {"1": "metadata a"}


def test_an_embedding_that_is_not_known_is_not_compared_and_one_that_is_lost_is_told() -> None:
    unknown = np.full(3, np.nan, float32)
    assert differences(entries(unknown), columns()) == {}
    assert differences(entries(), columns(unknown)) == {"1": "embedding"}
    assert differences(entries(), columns(VECTOR[:2])) == {"1": "embedding"}


def answer(**more: Any) -> dict[str, Any]:
    # what stands in texts and metadata must not be taken for the field itself
    trap = '"embeddings":[[1]]'
    body = {"ids": ["1", trap], "embeddings": [[0.1, 2], [1e-30, -3.5]], "documents": [trap, None]}
    return {**body, "metadatas": [{trap: trap}, None], **more}


@pytest.mark.parametrize("write", [orjson.dumps, lambda body: json.dumps(body, indent=1).encode()])
def test_an_answer_is_read_whatever_stands_in_it(write: Any) -> None:
    wanted = answer()
    found = decode(write(wanted))
    assert found.pop("embeddings").tobytes() == np.array(wanted.pop("embeddings"), float32).tobytes()
    assert found == wanted


def test_an_answer_without_records_or_vectors() -> None:
    nothing: dict[str, list[Any]] = {"ids": [], "embeddings": [], "documents": [], "metadatas": []}
    assert decode(orjson.dumps(nothing))["embeddings"].shape == (0, 0)
    found = decode(orjson.dumps(answer(embeddings=[None, [1.0, 2.0]])))["embeddings"]
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [1, 2]
    with pytest.raises(orjson.JSONDecodeError):
        decode(b"<html>")
