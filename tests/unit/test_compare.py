from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chromactl.compare import Comparison, Difference
from chromactl.stores.base import Batch
from support.records import Record, batch_of, nasty


def comparison(expected: Batch, actual: Batch, space: str = "l2") -> Comparison:
    found = Comparison()
    found.add(expected, actual, space=space)
    return found


def record(embedding: Any = (1, 2, 3), document: str | None = "d", uri: str | None = None, **metadata: Any) -> Record:
    return Record("r", np.asarray(embedding, np.float32), document, uri, metadata or None)


def fields(expected: Record, actual: Record, space: str = "l2") -> list[str]:
    return [one.field for one in comparison(batch_of([expected]), batch_of([actual]), space).differences]


def ulps(value: float, count: int) -> float:
    for _ in range(count):
        value = math.nextafter(value, math.inf)
    return value


def test_the_same_records_in_another_order_are_equal() -> None:
    batch = batch_of(nasty(lists=True))
    found = comparison(batch, batch.take(list(reversed(range(len(batch))))))
    assert (found.compared, found.differences) == (len(batch), [])


def test_no_metadata_and_empty_metadata_are_the_same_to_chroma() -> None:
    assert fields(record(), replace(record(), metadata={})) == []


def test_a_missing_record() -> None:
    records = nasty(lists=False)[:3]
    found = comparison(batch_of(records), batch_of([records[0], records[2]]))
    assert found.differences == [Difference(records[1].id, "record", "there", "missing")]
    assert found.compared == 2


def test_all_records_missing() -> None:
    assert len(comparison(batch_of(nasty(lists=False)[:3]), batch_of([])).differences) == 3


def test_another_document_and_no_document() -> None:
    assert fields(record(document="a"), record(document="b")) == ["document"]
    assert fields(record(document=""), record(document=None)) == ["document"]
    assert fields(record(document=None), record(document="")) == ["document"]


def test_another_uri() -> None:
    assert fields(record(uri="a"), record(uri="b")) == ["uri"]
    assert fields(record(uri="a"), record(uri=None)) == ["uri"]


def test_a_lost_a_new_and_another_value() -> None:
    assert fields(record(a=1, b=2), record(b=2)) == ["a"]
    assert fields(record(b=2), record(a=1, b=2)) == ["a"]
    assert fields(record(a="x"), record(a="y")) == ["a"]


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 1.0),
        (1.0, 1),
        (1, True),
        (True, 1),
        (0, False),
        (0.0, False),
        ("1", 1),
        (2**53, float(2**53)),
        ([1], [1.0]),
        ([1], [True]),
        ([1.0], [1]),
        (["a"], "a"),
        (["a", "b"], ["b", "a"]),
        (["a"], ["a", "a"]),
        ("", " "),
    ],
)
def test_a_value_of_another_type_differs(expected: Any, actual: Any) -> None:
    assert fields(record(a=expected), record(a=actual)) == ["a"]


@pytest.mark.parametrize("value", [0.1, 1.0, 1e300, 5e-324, -0.3])
@pytest.mark.parametrize("count", [1, 2])
def test_two_ulps_of_a_float_are_rounding_and_counted(value: float, count: int) -> None:
    found = comparison(batch_of([record(a=value)]), batch_of([record(a=ulps(value, count))]))
    assert (found.differences, found.rounded_floats) == ([], 1)
    listed = comparison(batch_of([record(a=[0.5, value])]), batch_of([record(a=[0.5, ulps(value, count)])]))
    assert (listed.differences, listed.rounded_floats) == ([], 1)


@pytest.mark.parametrize("value", [0.1, 1.0, 1e300, 5e-324])
def test_three_ulps_differ(value: float) -> None:
    assert fields(record(a=value), record(a=ulps(value, 3))) == ["a"]
    assert fields(record(a=[value]), record(a=[ulps(value, 3)])) == ["a"]


def test_rounding_is_counted_once_a_record() -> None:
    found = comparison(batch_of([record(a=0.1, b=0.2)]), batch_of([record(a=ulps(0.1, 1), b=ulps(0.2, 1))]))
    assert found.rounded_floats == 1


def test_an_embedding_one_bit_off_differs_in_l2_and_ip() -> None:
    off = [1, 2, float(np.nextafter(np.float32(3), np.float32(4)))]
    for space in ("l2", "ip"):
        found = comparison(batch_of([record()]), batch_of([record(off)]), space)
        assert [(one.field, one.expected) for one in found.differences] == [("embedding", "[2] = 3.0")]


def test_an_embedding_may_be_rounded_in_cosine_and_is_counted() -> None:
    near = np.asarray([1, 2, 3], np.float32) * np.float32(1 + 1.2e-7)
    found = comparison(batch_of([record()]), batch_of([record(near)]), "cosine")
    assert (found.differences, found.rounded_embeddings) == ([], 1)


@pytest.mark.parametrize("space", ["cosine", "l2"])
def test_an_embedding_further_off_differs(space: str) -> None:
    far = np.asarray([1, 2, 3], np.float32) * np.float32(1 + 2e-6)
    assert fields(record(), record(far), space) == ["embedding"]


def test_a_small_component_has_no_slack_beside_a_large_one() -> None:
    assert fields(record([1e4, 1e-4, 0]), record([1e4, 1.001e-4, 0]), "cosine") == ["embedding"]
    assert fields(record([1e4, 0, 0]), record([1e4, 1e-6, 0]), "cosine") == ["embedding"]


def test_an_embedding_that_is_no_number_differs() -> None:
    assert fields(record(), record([1, 2, np.nan]), "cosine") == ["embedding"]


def test_another_dimension() -> None:
    found = comparison(batch_of([record()]), batch_of([record((1, 2))]))
    assert found.differences == [Difference("r", "embedding", "dimension 3", "dimension 2")]


def test_long_values_are_cut_in_the_report() -> None:
    found = comparison(batch_of([record(document="x" * 10_000)]), batch_of([record(document="y" * 10_000)]))
    assert len(found.differences[0].expected) <= 80
