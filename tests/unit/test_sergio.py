"""Profile sergio against section 4 of the design, field by field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chromactl.schema import profile
from chromactl.schema.transform import Transform
from support.records import Record, batch_of

OWN = {
    "sergio_personality": ("big_five_trait", {"trait": "openness"}),
    "sergio_rhetorical": ("device_type", {"device": "metaphor"}),
    "sergio_humor": ("humor_type", {"humor": "absurd"}),
    "sergio_corpus": ("document_type", {"kind": "narrative"}),
}
COMMON = {
    "source_file": "",
    "source_line": 0,
    "author": "Unknown",
    "category": "migrated",
    "language": "en",
    "authenticity_score": 0.75,
    "confidence_level": "medium",
    "disputed": False,
    "if_citation_uri": "",
}


def transformed(collection: str, metadata: dict[str, Any], document: str | None = "one two") -> dict[str, Any]:
    given = batch_of([Record("r", np.ones(8, np.float32), document, None, metadata)])
    targets, rejects = Transform(profile.load("sergio"), collection).apply(given)
    assert rejects == []
    return targets[collection].metadatas[0] or {}


def refused(collection: str, metadata: dict[str, Any]) -> list[tuple[str, str]]:
    given = batch_of([Record("r", np.ones(8, np.float32), "one two", None, metadata)])
    targets, rejects = Transform(profile.load("sergio"), collection).apply(given)
    assert targets == {}
    return [(reject.field, reject.reason) for reject in rejects]


def exactly(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found == wanted
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in wanted.items()}


@pytest.mark.parametrize("collection", OWN)
def test_defaults_where_the_legacy_record_has_nothing(collection: str) -> None:
    field, given = OWN[collection]
    short = collection.removeprefix("sergio_")
    wanted = COMMON | {"source": f"migrated_{collection}", "collection_type": short, field: next(iter(given.values()))}
    if collection == "sergio_rhetorical":
        wanted["frequency"] = "sometimes"
    if collection == "sergio_corpus":
        wanted |= {"word_count": 2, "emotional_intensity": 0.5}
    exactly(transformed(collection, given), wanted)


def test_a_corpus_record_needs_nothing_at_all() -> None:
    found = transformed("sergio_corpus", {})
    assert found["document_type"] == "transcript"
    assert len({key for key in found if key in COMMON} | {"source", "collection_type", "document_type"}) == 12


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("file", "source_file", "a/b.md"),
        ("line", "source_line", 7),
        ("speaker", "author", "Sergio"),
        ("topic", "category", "trust"),
        ("authenticity", "authenticity_score", 0.9),
        ("confidence", "confidence_level", "high"),
        ("is_disputed", "disputed", True),
        ("citation", "if_citation_uri", "if://citation/abc-2025-01-31"),
        ("words", "word_count", 12),
        ("intensity", "emotional_intensity", 0.25),
        ("kind", "document_type", "interview"),
    ],
)
def test_older_keys_are_renamed(old: str, new: str, value: Any) -> None:
    found = transformed("sergio_corpus", {old: value})
    assert found[new] == value
    assert type(found[new]) is type(value)
    assert old not in found


@pytest.mark.parametrize(
    ("collection", "old", "new", "value"),
    [
        ("sergio_personality", "score", "trait_score", 71.5),
        ("sergio_personality", "examples", "behavioral_examples_count", 3),
        ("sergio_rhetorical", "marker", "linguistic_marker", "as if"),
        ("sergio_rhetorical", "context", "usage_context", "opening"),
        ("sergio_humor", "context", "emotional_context", "warm"),
        ("sergio_humor", "audience", "target_audience", "group"),
        ("sergio_humor", "rating", "effectiveness_rating", 4.5),
    ],
)
def test_each_collection_has_fields_of_its_own(collection: str, old: str, new: str, value: Any) -> None:
    found = transformed(collection, {**OWN[collection][1], old: value})
    assert found[new] == value
    assert old not in found


def test_frameworks_are_a_list_and_absent_when_empty() -> None:
    own = OWN["sergio_personality"][1]
    assert transformed("sergio_personality", own | {"related_frameworks": ["IFS", "ACT"]})["related_frameworks"] == [
        "IFS",
        "ACT",
    ]
    assert "related_frameworks" not in transformed("sergio_personality", own | {"related_frameworks": []})


@pytest.mark.parametrize(
    ("old", "new"), [("english", "en"), ("spanish", "es"), ("mixed", "es_en"), ("en", "en"), ("es_en", "es_en")]
)
def test_languages(old: str, new: str) -> None:
    assert transformed("sergio_corpus", {"lang": old})["language"] == new


def test_the_collection_type_follows_from_the_collection() -> None:
    assert transformed("sergio_humor", {"humor": "x", "collection_type": "corpus"})["collection_type"] == "humor"


def test_further_fields_pass_through() -> None:
    found = transformed("sergio_corpus", {"session": 5, "ratio": 1.0, "flag": False, "tags": ["a"]})
    assert {key: found[key] for key in ("session", "ratio", "flag", "tags")} == {
        "session": 5,
        "ratio": 1.0,
        "flag": False,
        "tags": ["a"],
    }
    assert type(found["ratio"]) is float


def test_a_record_in_the_new_form_stays_as_it_is() -> None:
    once = transformed("sergio_rhetorical", {"device": "metaphor", "line": 3, "lang": "mixed", "x": "y"})
    exactly(transformed("sergio_rhetorical", once), once)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"line": -1}, "source_line"),
        ({"line": "many"}, "source_line"),
        ({"lang": "french"}, "language"),
        ({"authenticity": 1.01}, "authenticity_score"),
        ({"authenticity": -0.01}, "authenticity_score"),
        ({"confidence": "certain"}, "confidence_level"),
        ({"is_disputed": "perhaps"}, "disputed"),
        ({"citation": "if://citation/abc-2025-02-30"}, "if_citation_uri"),
        ({"citation": "see the book"}, "if_citation_uri"),
        ({"words": -1}, "word_count"),
        ({"speaker": 7}, "author"),
    ],
)
def test_what_the_schema_does_not_allow_is_a_reject(metadata: dict[str, Any], field: str) -> None:
    assert refused("sergio_corpus", metadata) == [(field, f"invalid_{field}")]


@pytest.mark.parametrize("collection", ["sergio_personality", "sergio_rhetorical", "sergio_humor"])
def test_the_collections_own_field_must_be_there(collection: str) -> None:
    field = OWN[collection][0]
    assert refused(collection, {}) == [(field, f"missing_{field}")]


def test_usual_dimensions() -> None:
    assert profile.load("sergio").usual_dimensions == (768, 1024, 1536)
