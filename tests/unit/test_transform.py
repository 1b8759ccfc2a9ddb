from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from chromactl.reject import Reject
from chromactl.schema import profile
from chromactl.schema.transform import Transform
from chromactl.schema.values import is_citation
from support.records import Record, batch_of


def put_through(rules: dict[str, Any], *records: Record, **settings: Any) -> tuple[list[dict[str, Any]], list[Reject]]:
    body = {"name": "own", "fields": rules, **settings}
    path = Path("own.yml")
    path.write_text(yaml.safe_dump(body))
    targets, rejects = Transform(profile.load("own.yml"), "pets").apply(batch_of(records))
    return [metadata or {} for metadata in targets["pets"].metadatas] if targets else [], rejects


def record(metadata: dict[str, Any] | None = None, document: str | None = "text") -> Record:
    return Record("r", np.ones(8, np.float32), document, None, metadata)


def one(rules: dict[str, Any], metadata: dict[str, Any] | None = None, document: str | None = "text") -> dict[str, Any]:
    (transformed,), rejects = put_through(rules, record(metadata, document))
    assert rejects == []
    return transformed


def refused(rules: dict[str, Any], metadata: dict[str, Any] | None = None) -> Reject:
    transformed, (reject,) = put_through(rules, record(metadata))
    assert transformed == []
    return reject


# Where a value comes from


def test_a_constant_wins_over_what_is_there() -> None:
    assert one({"kind": {"constant": "cat"}}, {"kind": "dog"}) == {"kind": "cat"}


def test_without_an_origin_it_is_the_field_of_the_same_name() -> None:
    assert one({"a": {"type": "int"}}, {"a": "5"}) == {"a": 5}
    assert one({"a": {"default": "d"}}, {"a": "own"}) == {"a": "own"}
    assert one({"a": {"constant": "c"}}, {"a": "own"}) == {"a": "c"}


def test_the_collections_name_gives_a_value() -> None:
    found = {"a": {"from": ["a", {"collection": "^p(.)"}, "b"], "values": {"e": "translated"}}}
    assert one(found, {"a": "own"}) == {"a": "own"}
    assert one(found, {"b": "later"}) == {"a": "translated", "b": "later"}
    assert one({"a": {"from": [{"collection": "pet|dog"}]}}) == {"a": "pet"}
    assert one({"a": {"from": [{"collection": "^q"}, "b"], "default": "d"}}) == {"a": "d"}
    assert one({"a": {"from": [{"collection": "^q"}, "b"]}}, {"b": "later"}) == {"a": "later"}


def test_what_the_collections_name_gives_is_checked_like_any_value() -> None:
    rule = {"a": {"from": [{"collection": ".*"}], "allowed": ["cats"]}}
    assert refused(rule) == Reject("r", "a", "invalid_a", "'pets'")
    assert one({"a": {"type": "int", "from": [{"collection": "."}], "values": {"p": 7}}}) == {"a": 7}


def test_a_record_without_any_field_left_has_no_metadata() -> None:
    Path("own.yml").write_text("name: own\nkeep_other_fields: false\n")
    targets, _ = Transform(profile.load("own.yml"), "pets").apply(batch_of([record({"a": 1})]))
    assert targets["pets"].metadatas == [None]


def test_a_renamed_field_loses_its_old_name() -> None:
    assert one({"new": {"from": ["new", "old"]}}, {"old": "v", "other": 1}) == {"new": "v", "other": 1}


def test_with_old_and_new_key_the_new_one_wins_and_the_old_one_is_kept() -> None:
    assert one({"new": {"from": ["new", "old"]}}, {"new": "n", "old": "o"}) == {"new": "n", "old": "o"}


def test_an_origin_can_be_spelled_out() -> None:
    assert one({"new": {"from": [{"field": "old"}]}}, {"old": "v"}) == {"new": "v"}


def test_a_pattern_takes_a_part_and_leaves_the_whole() -> None:
    rule = {"session": {"type": "int", "from": [{"regex": {"field": "file", "pattern": r"session_(\d+)"}}]}}
    assert one(rule, {"file": "a/session_0042.md"}) == {"session": 42, "file": "a/session_0042.md"}


def test_a_pattern_without_a_group_takes_all_it_found() -> None:
    rule = {"year": {"from": [{"regex": {"field": "file", "pattern": r"\d{4}"}}]}}
    assert one(rule, {"file": "in-2024-x"}) == {"year": "2024", "file": "in-2024-x"}


@pytest.mark.parametrize("metadata", [{"file": "none"}, {"file": 7}, {}])
def test_a_pattern_that_finds_nothing_leaves_the_default(metadata: dict[str, Any]) -> None:
    rule = {"year": {"from": [{"regex": {"field": "file", "pattern": r"\d{4}"}}], "default": "?"}}
    assert one(rule, metadata)["year"] == "?"


def test_words_are_counted_in_the_document() -> None:
    rule = {"words": {"type": "int", "from": ["words", {"document": "words"}]}}
    assert one(rule, {}, "three little  words\n") == {"words": 3}
    assert one(rule, {"words": 9}, "three little words") == {"words": 9}
    assert one(rule, {}, "") == {"words": 0}
    assert one(rule, {}, None) == {}


def test_values_are_translated_and_others_left() -> None:
    rule = {"lang": {"from": ["lang"], "values": {"english": "en"}}}
    assert one(rule, {"lang": "english"}) == {"lang": "en"}
    assert one(rule, {"lang": "fr"}) == {"lang": "fr"}


def test_a_default_can_name_the_collection() -> None:
    assert one({"source": {"default": "from_{collection}"}}) == {"source": "from_pets"}


def test_without_a_default_the_field_is_left_out() -> None:
    assert one({"a": {"from": ["b"]}}, {"c": 1}) == {"c": 1}


def test_a_required_field_that_is_nowhere_is_a_reject() -> None:
    assert refused({"a": {"from": ["b"], "required": True}}) == Reject("r", "a", "missing_a", "")


def test_an_empty_text_is_a_value() -> None:
    assert one({"a": {"from": ["a"], "default": "d"}}, {"a": ""}) == {"a": ""}


def test_an_empty_list_is_left_out() -> None:
    assert one({"a": {"type": "list", "from": ["a"]}}, {"a": []}) == {}


def test_a_list_stays_as_it_is() -> None:
    assert one({"a": {"type": "list", "from": ["a"]}}, {"a": ["x", "y"]}) == {"a": ["x", "y"]}


def test_two_fields_can_change_places() -> None:
    assert one({"a": {"from": ["b"]}, "b": {"from": ["a"]}}, {"a": "1", "b": "2"}) == {"a": "2", "b": "1"}


def test_other_fields_can_be_left_behind() -> None:
    (transformed,), _ = put_through({"a": {"from": ["a"]}}, record({"a": "x", "b": "y"}), keep_other_fields=False)
    assert transformed == {"a": "x"}


def test_a_collections_own_rule_wins() -> None:
    collections = {"pets": {"fields": {"a": {"constant": "own"}}}}
    (transformed,), _ = put_through({"a": {"constant": "common"}}, record(), collections=collections)
    assert transformed == {"a": "own"}


def test_rules_never_touch_anything_but_metadata() -> None:
    given = Record("id ☃", np.arange(8, dtype=np.float32), None, "file:///x", {"a": 1})
    Path("own.yml").write_text("name: own\nfields: {b: {default: c}}\n")
    targets, _ = Transform(profile.load("own.yml"), "pets").apply(batch_of([given]))
    batch = targets["pets"]
    assert (batch.ids, batch.documents, batch.uris) == (["id ☃"], [None], ["file:///x"])
    assert batch.embeddings.tobytes() == given.embedding.tobytes()


def test_without_rules_records_are_the_very_same() -> None:
    batch = batch_of([record({"a": 1})])
    targets, rejects = Transform(profile.load("identity"), "x").apply(batch)
    assert targets["x"] is batch
    assert (list(targets), rejects) == (["x"], [])


def test_a_reject_leaves_the_others_in_their_order() -> None:
    records = [Record(str(number), np.full(8, number, np.float32), None, None, {"n": value})
               for number, value in enumerate([1, "two", 3])]  # fmt: skip
    Path("own.yml").write_text("name: own\nfields: {n: {type: int, from: [n]}}\n")
    targets, rejects = Transform(profile.load("own.yml"), "pets").apply(batch_of(records))
    batch = targets["pets"]
    assert batch.ids == ["0", "2"]
    assert batch.embeddings[:, 0].tolist() == [0, 2]
    assert rejects == [Reject("1", "n", "invalid_n", "'two'")]


def test_everything_that_is_wrong_with_a_record_is_said() -> None:
    rules = {name: {"type": "int", "from": [name]} for name in "ab"}
    _, rejects = put_through(rules, record({"a": "x", "b": "y"}))
    assert [reject.field for reject in rejects] == ["a", "b"]


# Types


@pytest.mark.parametrize(
    ("wanted", "value", "typed"),
    [
        ("str", "text", "text"),
        ("int", 5, 5),
        ("int", 5.0, 5),
        ("int", "5", 5),
        ("int", "-5", -5),
        ("int", 2**63 - 1, 2**63 - 1),
        ("float", 5.5, 5.5),
        ("float", 5, 5.0),
        ("float", "5.5", 5.5),
        ("float", 2**53, float(2**53)),
        ("bool", True, True),
        ("bool", "true", True),
        ("bool", "False", False),
        ("list", [1, 2], [1, 2]),
    ],
)
def test_a_type_changes_where_nothing_is_lost(wanted: str, value: Any, typed: Any) -> None:
    found = one({"a": {"type": wanted, "from": ["a"]}}, {"a": value})["a"]
    assert (type(found), found) == (type(typed), typed)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("str", 5),
        ("str", True),
        ("str", ["a"]),
        ("int", 5.5),
        ("int", "5.5"),
        ("int", "five"),
        ("int", ""),
        ("int", True),
        ("int", float("inf")),
        ("int", float("nan")),
        ("float", "x"),
        ("float", True),
        ("float", 2**53 + 1),
        ("float", "9007199254740993"),
        ("bool", 1),
        ("bool", 0.0),
        ("bool", "yes"),
        ("list", "a"),
        ("int", [5]),
    ],
)
def test_a_type_that_would_lose_something_is_a_reject(wanted: str, value: Any) -> None:
    reject = refused({"a": {"type": wanted, "from": ["a"]}}, {"a": value})
    assert (reject.id, reject.field, reject.reason) == ("r", "a", "invalid_a")


# Checks


def test_only_allowed_values_pass() -> None:
    rule = {"a": {"from": ["a"], "allowed": ["x", "y"]}}
    assert one(rule, {"a": "x"}) == {"a": "x"}
    assert refused(rule, {"a": "z"}).value == "'z'"


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_limits_include_their_ends(value: float) -> None:
    assert one({"a": {"type": "float", "from": ["a"], "minimum": 0, "maximum": 1}}, {"a": value}) == {"a": value}


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, float("nan"), float("inf")])
def test_what_is_beyond_the_limits_is_a_reject(value: float) -> None:
    refused({"a": {"type": "float", "from": ["a"], "minimum": 0, "maximum": 1}}, {"a": value})


def test_a_long_value_is_cut_in_the_reject() -> None:
    assert len(refused({"a": {"type": "int", "from": ["a"]}}, {"a": "x" * 10_000}).value) <= 200


@pytest.mark.parametrize(
    "text",
    [
        "",
        "if://citation/abc",
        "if://citation/a-b-1",
        "if://citation/abc-2024-02-29",
        "if://citation/abc-2025-12-31",
        "if://citation/2025-1-1",
    ],
)
def test_citations(text: str) -> None:
    assert is_citation(text)


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "if://citation/",
        "if://citation",
        "http://citation/abc",
        "if://citation/a b",
        "if://citation/a_b",
        "if://citation/é",
        "if://citation/abc\n",
        "if://citation/abc-2025-02-29",
        "if://citation/abc-2025-13-01",
        "if://citation/abc-2025-00-10",
        "if://citation/abc-2025-04-31",
        "if://citation/abc-0000-01-01",
        " if://citation/abc",
    ],
)
def test_no_citations(text: str) -> None:
    assert not is_citation(text)
