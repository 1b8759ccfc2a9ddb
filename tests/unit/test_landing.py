from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chromactl.landing import misfits
from support.records import INT64_MAX, INT64_MIN, Record, batch_of, nasty


def reasons(metadata: dict[str, Any] | None = None, *, id: str = "r", embedding: Any = None) -> list[str]:
    vector = np.ones(8, np.float32) if embedding is None else np.asarray(embedding, np.float32)
    return [reject.reason for reject in misfits(batch_of([Record(id, vector, None, None, metadata)]), 8)]


def test_everything_that_chroma_keeps_passes() -> None:
    assert misfits(batch_of(nasty(lists=True)), 8) == []


@pytest.mark.parametrize("value", ["", "\x00", 0, INT64_MAX, INT64_MIN, 0.0, 5e-324, True, ["a"], [1], [0.5], [False]])
def test_values_that_pass(value: Any) -> None:
    assert reasons({"a": value}) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "invalid_list"),
        ([1, "a"], "invalid_list"),
        ([1, 1.0], "invalid_list"),
        ([1, True], "invalid_list"),
        (float("nan"), "not_finite"),
        (float("inf"), "not_finite"),
        ([1.0, float("-inf")], "not_finite"),
        (INT64_MAX + 1, "integer_too_large"),
        (INT64_MIN - 1, "integer_too_large"),
        ([2**70], "integer_too_large"),
        ({"nested": 1}, "nested_value"),
        (None, "nested_value"),
        ([["a"]], "nested_value"),
    ],
)
def test_values_that_a_server_would_bend(value: Any, reason: str) -> None:
    assert reasons({"a": value}) == [reason]


@pytest.mark.parametrize("key", ["", "#id", "$and", "chroma:document"])
def test_keys_that_a_server_would_refuse_or_lose(key: str) -> None:
    assert reasons({key: 1}) == ["reserved_key"]


@pytest.mark.parametrize("key", ["a.b", "a b", "schlüssel", "a#", "a$", "chroma", "☃"])
def test_keys_that_pass(key: str) -> None:
    assert reasons({key: 1}) == []


def test_an_empty_id() -> None:
    assert reasons(id="") == ["invalid_id"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_embedding_that_is_no_vector(bad: float) -> None:
    assert reasons(embedding=[1, 2, 3, bad, 5, 6, 7, 8]) == ["invalid_embedding"]


def test_another_dimension() -> None:
    rejects = misfits(batch_of(nasty(lists=False)[:2]), 7)
    assert [(reject.field, reject.reason) for reject in rejects] == [("embedding", "invalid_dimension")] * 2


def test_an_unknown_dimension_is_no_misfit() -> None:
    assert misfits(batch_of(nasty(lists=False)), None) == []
