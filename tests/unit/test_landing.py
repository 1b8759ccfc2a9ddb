from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from chromactl.landing import misfits
from support.records import INT64_MAX, INT64_MIN, Record, batch_of, nasty


def reasons(metadata: dict[str, Any] | None = None, *, id: str = "r", embedding: Any = None) -> list[str]:
    vector = np.ones(8, np.float32) if embedding is None else np.asarray(embedding, np.float32)
    return [reject.reason for reject in misfits(batch_of([Record(id, vector, None, None, metadata)]), 8)]


def test_everything_that_chroma_keeps_passes() -> None:
    assert misfits(batch_of(nasty(lists=True)), 8) == []


@pytest.mark.parametrize(
    "value",
    ["", "\x00", "ü", "\U0001f600", -0.0, 0, INT64_MAX, INT64_MIN, 0.0, 5e-324, True, ["a"], [1], [0.5], [False]],
)
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
        ([True, False, 0], "invalid_list"),
        ([float("nan"), "a"], "not_finite"),
        ({"nested": 1}, "nested_value"),
        ({}, "nested_value"),
        (b"bytes", "nested_value"),
        ({"#type": "sparse_vector", "indices": [1], "values": [0.5]}, "sparse_vector"),
        (None, "null_value"),
        ([None], "null_value"),
        ("half \ud83d", "not_unicode"),
        (["whole", "\ude00 half"], "not_unicode"),
        ([["a"]], "nested_value"),
    ],
)
def test_values_that_a_server_would_bend(value: Any, reason: str) -> None:
    assert reasons({"a": value}) == [reason]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty_key"),
        ("#id", "reserved_key"),
        ("$and", "reserved_key"),
        ("chroma:document", "reserved_key"),
        ("chroma:", "reserved_key"),
        ("\ud800", "not_unicode"),
    ],
)
def test_keys_that_a_server_would_refuse_or_lose(key: str, reason: str) -> None:
    assert reasons({key: 1}) == [reason]


def test_a_bad_key_is_found_in_every_record_that_has_it() -> None:
    records = [Record(name, np.ones(8, np.float32), None, None, {"good": 1, "#bad": 1}) for name in "abc"]
    assert [(one.id, one.field) for one in misfits(batch_of(records), 8)] == [(name, "#bad") for name in "abc"]


@pytest.mark.parametrize(
    "key", ["k" * 100_000, "a\x00b", "Chroma:x", "a.b", "a b", "schlüssel", "a#", "a$", "chroma", "☃"]
)
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


@pytest.mark.parametrize("key", ["\ud800", "k" * 500 + "\ud800", "#\ud800"])
def test_a_reject_can_be_written_down_whatever_the_key(key: str) -> None:
    (reject,) = misfits(batch_of([Record("r", np.ones(8, np.float32), None, None, {key: "\ud800"})]), 8)[:1]
    assert orjson.dumps([reject.field, reject.value])


def test_records_that_share_an_id_are_all_rejected() -> None:
    records = [Record(name, np.ones(8, np.float32)) for name in ("a", "twice", "b", "twice")]
    rejects = misfits(batch_of(records), 8)
    assert [(reject.id, reject.field, reject.reason) for reject in rejects] == [("twice", "id", "duplicate_id")] * 2


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (Record("\ud800", np.ones(8, np.float32)), "id"),
        (Record("r", np.ones(8, np.float32), "text \udfff"), "document"),
        (Record("r", np.ones(8, np.float32), None, "file:///\ud800"), "uri"),
    ],
)
def test_half_a_character_is_in_no_request(record: Record, field: str) -> None:
    (reject,) = misfits(batch_of([record]), 8)
    assert (reject.field, reject.reason) == (field, "not_unicode")


def test_a_zero_vector_is_a_vector() -> None:
    assert reasons(embedding=np.zeros(8)) == []


def test_everything_that_is_wrong_with_a_record_is_said() -> None:
    bad = Record("", np.full(8, np.nan, np.float32), None, None, {"": [], "b": None})
    found = [(reject.field, reject.reason) for reject in misfits(batch_of([bad]), 8)]
    assert found == [
        ("id", "invalid_id"),
        ("embedding", "invalid_embedding"),
        ("", "empty_key"),
        ("", "invalid_list"),
        ("b", "null_value"),
    ]


@pytest.mark.parametrize(
    ("embedding", "lands"),
    [
        ([0.0] * 8, True),
        ([-0.0] * 8, True),
        ([1e-18] * 8, True),
        ([1e18] * 8, True),
        ([1.0, 1e-37, *[0.0] * 6], True),
        ([1e-20] * 8, False),
        ([5e-45, *[0.0] * 7], False),
        ([1e19] * 8, False),
        ([3e38] * 8, False),
        ([1e10, 1e-30, *[0.0] * 6], False),
    ],
)
def test_a_cosine_collection_takes_only_vectors_whose_square_is_a_number(embedding: list[float], lands: bool) -> None:
    batch = batch_of([Record("r", np.array(embedding, np.float32))])
    assert [one.reason for one in misfits(batch, 8, "cosine")] == ([] if lands else ["not_normalizable"])
    assert misfits(batch, 8, "l2") == misfits(batch, 8, "ip") == misfits(batch, 8) == []
