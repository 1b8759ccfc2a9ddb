"""What becomes of a record on its way into the index and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.chroma.hits import Hit, own_matches
from app.core.memory.record import document_of, index_id, memory_id, metadata_of, to_jsonb
from app.core.rag.splitter import BLOCK_CHARACTERS, Splitter, blocks

WRITTEN = datetime(2026, 11, 20, 10, 15, 0, 999_999, tzinfo=UTC)
DOCUMENT = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")


@dataclass
class Given:
    content: str
    source: str = "almanac.md"
    metadata: dict[str, Any] = field(default_factory=dict)


def hit(raw_data: dict[str, Any], id_: str = "memory_log_5") -> Hit:
    return Hit(id_, "mem.x", document_of(raw_data), metadata_of(raw_data, WRITTEN), 0.25, "cosine", 0.75)


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


@given(
    content=TEXTS, metadata=st.dictionaries(TEXTS.filter(lambda key: key != "created_at"), VALUES | TEXTS, max_size=5)
)
def test_a_memory_comes_back_from_the_index_as_it_went(content: str, metadata: dict[str, Any]) -> None:
    (match,) = own_matches([hit({"content": content, "metadata": metadata})], "memory")
    assert (match.id, match.content, match.metadata) == ("5", content, metadata)
    assert {key: type(value) for key, value in match.metadata.items()} == {
        key: type(value) for key, value in metadata.items()
    }
    assert match.created_at == WRITTEN.replace(microsecond=0)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_as_one(value: float) -> None:
    text = to_jsonb({"k": value})
    assert "e" not in text
    back = json.loads(text)["k"]
    assert (type(back), back) == (float, value)


def test_the_index_gets_what_it_has_a_form_for_and_when_it_was_written() -> None:
    given_metadata = {"a": 1, "b": None, "c": [], "d": [1]}
    expected = {"a": 1, "d": [1], "created_at": int(WRITTEN.timestamp())}
    assert metadata_of({"metadata": given_metadata}, WRITTEN) == expected
    assert metadata_of({}, WRITTEN) == {"created_at": int(WRITTEN.timestamp())}


def test_ids_go_both_ways() -> None:
    assert memory_id(index_id(2**63 - 1)) == 2**63 - 1
    for strange in ("5", "memory_log_", "memory_log_x", "doc_5"):
        with pytest.raises(ValueError, match=r"memory|invalid literal"):
            memory_id(strange)


def test_passages_tell_where_they_are_from_beside_what_was_said() -> None:
    passages = Splitter(100, 10).passages(Given("word " * 100, metadata={"language": "en"}), DOCUMENT)
    assert len(passages) > 3
    for position, passage in enumerate(passages):
        assert passage["metadata"] == {
            "language": "en",
            "document_id": str(DOCUMENT),
            "source": "almanac.md",
            "passage": position,
        }
    (match,) = own_matches([hit(passages[1])], "passage")
    assert match.metadata == {"language": "en"}
    assert (match.document_id, match.source, match.passage) == (DOCUMENT, "almanac.md", 1)


@given(st.text(st.characters(), min_size=1, max_size=300), st.integers(2, 50))
def test_blocks_are_the_text_and_none_is_too_long(text: str, size: int) -> None:
    made = list(blocks(text, size))
    assert "".join(made) == text
    assert all(0 < len(block) <= size for block in made)


def test_a_block_ends_where_it_breaks_best() -> None:
    assert list(blocks("aaa b\n\ncc d. ee", 10)) == ["aaa b\n\n", "cc d. ee"]
    assert list(blocks("aaa bbb. cc dddd", 11)) == ["aaa bbb. ", "cc dddd"]


@pytest.mark.parametrize("text", ["漢字" * 20_000, "x" * 40_000, "a" + "\u0301" * 40_000, "a\n" * 20_000])
def test_a_long_text_without_ends_is_cut_all_the_same(text: str) -> None:
    passages = Splitter(1000, 100).passages(Given(text), DOCUMENT)
    assert len(text) > 4 * BLOCK_CHARACTERS
    assert all(0 < len(passage["content"]) <= 1000 for passage in passages)
    assert sum(len(passage["content"]) for passage in passages) > 0.9 * len(text)
