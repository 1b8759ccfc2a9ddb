"""Which record lands where, and under which id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chromactl.schema.profile import Profile
from chromactl.schema.transform import Transform
from support.records import Record, batch_of


def own(collections: dict[str, Any], **settings: Any) -> Profile:
    return Profile.model_validate({"name": "own", "collections": collections, **settings})


def records(*metadatas: dict[str, Any] | None) -> list[Record]:
    return [
        Record(f"r{number}", np.full(8, number, np.float32), f"text {number}", None, metadata)
        for number, metadata in enumerate(metadatas)
    ]


def routed(
    collections: dict[str, Any], *metadatas: dict[str, Any] | None, source: str = "pets"
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    targets, rejects = Transform(own(collections), source).apply(batch_of(records(*metadatas)))
    return {name: batch.ids for name, batch in targets.items()}, [(one.id, one.reason) for one in rejects]


def takes(where: Any, metadata: dict[str, Any]) -> bool:
    targets, _ = routed({"x": {"from": ["pets"], "where": where}}, metadata)
    return targets == {"x": ["r0"]}


def test_one_into_several_in_the_order_of_the_profile() -> None:
    collections = {
        "cats": {"from": ["pets"], "where": {"field": "kind", "in": ["cat"]}},
        "old": {"from": ["pets"], "where": {"field": "age", "in": [9, 10]}},
        "pets": {},
    }
    found = routed(collections, {"kind": "cat", "age": 9}, {"kind": "dog", "age": 9}, {"kind": "dog"}, None)
    assert found == ({"cats": ["r0"], "old": ["r1"], "pets": ["r2", "r3"]}, [])


def test_several_into_one_with_ids_that_tell_them_apart() -> None:
    profile = own({"animals": {"from": ["cats", "dogs"], "ids": "{collection}:{id}"}})
    ids = []
    for source in ("cats", "dogs"):
        targets, rejects = Transform(profile, source).apply(batch_of(records({"a": 1}, None)))
        assert rejects == []
        assert [profile.target_id(source, "animals", name) for name in ("r0", "r1")] == targets["animals"].ids
        ids += targets["animals"].ids
    assert ids == ["cats:r0", "cats:r1", "dogs:r0", "dogs:r1"]


def test_a_record_that_no_collection_takes_is_a_reject_that_says_why() -> None:
    where = [{"field": "kind", "in": ["cat"]}, {"field": "age", "in": [1]}]
    targets, (reject,) = Transform(own({"x": {"from": ["pets"], "where": where}}), "pets").apply(
        batch_of(records({"kind": "cat", "age": 1}, {"kind": "dog"}))
    )
    assert targets["x"].ids == ["r0"]
    assert (reject.id, reject.field, reject.reason) == ("r1", "collection", "no_collection")
    assert reject.value == "kind='dog', age=None"


def test_a_source_that_the_profile_does_not_name_has_no_place() -> None:
    assert routed({"x": {}}, {"a": 1}) == ({}, [("r0", "no_collection")])


def test_rules_are_those_of_the_target_and_names_those_of_the_source() -> None:
    rules = {"origin": {"default": "{collection}"}, "kind": {"from": [{"collection": "^old_(.+)s$"}]}}
    profile = own({"animals": {"from": ["old_cats", "dogs"], "fields": {"wild": {"type": "bool", "default": False}}}},
                  fields=rules)  # fmt: skip
    found = [Transform(profile, source).apply(batch_of(records(None)))[0]["animals"].metadatas[0]
             for source in ("old_cats", "dogs")]  # fmt: skip
    assert found == [{"origin": "old_cats", "kind": "cat", "wild": False}, {"origin": "dogs", "wild": False}]


def test_parts_keep_every_column_together() -> None:
    collections = {"odd": {"from": ["pets"], "where": {"field": "n", "in": [1, 3]}}, "pets": {}}
    given = records(*({"n": number} for number in range(5)))
    targets, _ = Transform(own(collections), "pets").apply(batch_of(given))
    assert targets["odd"].embeddings[:, 0].tolist() == [1, 3]
    assert targets["pets"].documents == ["text 0", "text 2", "text 4"]
    assert targets["pets"].metadatas == [{"n": 0}, {"n": 2}, {"n": 4}]


def test_without_rules_nothing_is_copied_when_one_target_takes_all() -> None:
    batch = batch_of(records({"n": 1}, {"n": 1}))
    whole: dict[str, Any] = {"pets": {}}
    narrowed = {"x": {"from": ["pets"], "where": {"field": "n", "in": [1]}}, "pets": {}}
    for collections in (whole, narrowed):
        targets, _ = Transform(own(collections), "pets").apply(batch)
        assert [part is batch for part in targets.values()] == [True]


def test_new_ids_alone_leave_the_other_columns_as_they_are() -> None:
    batch = batch_of(records({"n": 1}))
    targets, _ = Transform(own({"pets": {"ids": "x-{id}"}}), "pets").apply(batch)
    assert targets["pets"].ids == ["x-r0"]
    assert targets["pets"].embeddings is batch.embeddings
    assert targets["pets"].metadatas is batch.metadatas


def test_an_empty_batch_lands_nowhere() -> None:
    assert routed({"pets": {}}) == ({}, [])


@pytest.mark.parametrize(
    ("where", "metadata"),
    [
        ({"field": "a", "in": ["x", "y"]}, {"a": "y"}),
        ({"field": "a", "in": [1]}, {"a": 1}),
        ({"field": "a", "in": [True]}, {"a": True}),
        ({"field": "a", "in": [0.5]}, {"a": 0.5}),
        ({"field": "a", "in": ["x"]}, {"a": ["w", "x"]}),
        ({"field": "a", "matches": "b.d"}, {"a": "abcde"}),
        ({"field": "a", "matches": "^x"}, {"a": ["w", "xy"]}),
        ([{"field": "a", "in": [1]}, {"field": "b", "matches": "x"}], {"a": 1, "b": "x"}),
    ],
)
def test_conditions_that_hold(where: Any, metadata: dict[str, Any]) -> None:
    assert takes(where, metadata)


@pytest.mark.parametrize(
    ("where", "metadata"),
    [
        ({"field": "a", "in": ["x"]}, {}),
        ({"field": "a", "in": ["x"]}, {"a": "X"}),
        ({"field": "a", "in": [1]}, {"a": True}),
        ({"field": "a", "in": [1]}, {"a": 1.0}),
        ({"field": "a", "in": ["1"]}, {"a": 1}),
        ({"field": "a", "in": ["x"]}, {"a": {"x": 1}}),
        ({"field": "a", "in": ["x"]}, {"a": []}),
        ({"field": "a", "matches": "1"}, {"a": 1}),
        ({"field": "a", "matches": ""}, {}),
        ([{"field": "a", "in": [1]}, {"field": "b", "matches": "x"}], {"a": 1}),
    ],
)
def test_conditions_that_do_not_hold(where: Any, metadata: dict[str, Any]) -> None:
    assert not takes(where, metadata)
