from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromactl.digest import CollectionDigest
from support.records import Record, batch_of, nasty

RECORDS = nasty(lists=True)


def digest(records: list[Record], pieces: int = 1) -> str:
    total = CollectionDigest()
    for start in range(0, len(records), max(1, len(records) // pieces)):
        total.add(batch_of(records[start : start + max(1, len(records) // pieces)]))
    assert total.count == len(records)
    return total.hexdigest()


@given(st.permutations(RECORDS), st.integers(1, 5))
def test_order_and_batches_do_not_matter(records: list[Record], pieces: int) -> None:
    assert digest(records, pieces) == digest(RECORDS)


def test_a_lost_and_a_doubled_record_show() -> None:
    assert len({digest(RECORDS), digest(RECORDS[1:]), digest([*RECORDS, RECORDS[0]])}) == 3


def test_a_record_doubled_256_times_shows() -> None:
    assert digest([RECORDS[0]] * 256) not in (digest([]), digest([RECORDS[0]]))


BASE = Record("r", np.asarray([1, 2], np.float32), "d", None, {"a": 1, "b": "x"})


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "R"},
        {"document": None},
        {"document": ""},
        {"document": "d "},
        {"uri": ""},
        {"metadata": None},
        {"metadata": {"a": 1.0, "b": "x"}},
        {"metadata": {"a": True, "b": "x"}},
        {"metadata": {"a": "1", "b": "x"}},
        {"metadata": {"a": 1}},
        {"metadata": {"a": [1], "b": "x"}},
        {"embedding": np.asarray([1, np.nextafter(np.float32(2), np.float32(3))], np.float32)},
        {"embedding": np.asarray([2, 1], np.float32)},
        {"document": None, "uri": "d"},
    ],
)
def test_every_change_of_a_record_shows(changes: dict[str, Any]) -> None:
    assert digest([replace(BASE, **changes)]) != digest([BASE])


def test_the_order_of_metadata_keys_does_not_matter() -> None:
    assert digest([replace(BASE, metadata={"b": "x", "a": 1})]) == digest([BASE])


def test_the_digest_never_changes_between_versions() -> None:
    assert digest([BASE]) == "a6c909f655d06effe9d954949be7f43bff2fb657868c3009703dcbc8c6e0563f"
