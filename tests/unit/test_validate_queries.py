"""The file of test queries, and what is asked of which collections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromactl.embedding import hashing_embeddings
from chromactl.errors import PreconditionError, UsageError
from chromactl.migrate.plan import Plan, PlannedCollection, PlannedTarget
from chromactl.stores.base import CollectionSpec
from chromactl.validate.queries import TestQuery, check_asked, file_questions, groups, read_queries


def spec(name: str, space: str = "l2", dimension: int = 8) -> CollectionSpec:
    return CollectionSpec(name, space, dimension=dimension)


def plan(targets: dict[str, list[str]], **specs: CollectionSpec) -> Plan:
    names = dict.fromkeys(name for sources in targets.values() for name in sources)
    collections = [PlannedCollection(name, specs.get(name, spec(name)), [["a"]]) for name in names]
    made = [PlannedTarget(name, specs.get(name, spec(name)), sources) for name, sources in targets.items()]
    return Plan(collections, made, ["skipped"])


def written(*entries: dict[str, Any]) -> list[TestQuery]:
    path = Path("queries.json")
    path.write_text(json.dumps(entries))
    return read_queries(path)


def test_texts_and_vectors() -> None:
    (group,) = groups(plan({"pets": ["pets"]}))
    queries = written(
        {"text": "a cat", "collection": "pets", "category": "x"},
        {"vector": [1] * 8, "text": "given"},
        {"text": "elsewhere", "collection": "skipped"},
    )
    first, second = file_questions(group, queries)
    assert (first.kind, first.text, first.category) == ("test", "a cat", "x")
    assert np.array_equal(first.vector, hashing_embeddings(["a cat"], 8)[0])
    assert second.vector.tolist() == [1.0] * 8


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "not JSON"),
        ("[]", "no queries"),
        ('[{"collection": "pets"}]', "neither a text nor a vector"),
        ('[{"text": "a", "colection": "pets"}]', "entry 0.colection"),
        ('[{"vector": []}]', "entry 0.vector"),
        ('[{"vector": [1, "x"]}]', "entry 0.vector.1"),
    ],
)
def test_a_file_that_is_something_else(content: str, words: str) -> None:
    Path("queries.json").write_text(content)
    with pytest.raises(UsageError, match=r"^queries\.json") as error:
        read_queries(Path("queries.json"))
    assert words in str(error.value)


def test_collections_that_records_do_not_leave_are_asked_together() -> None:
    found = groups(plan({"one": ["a"], "two": ["b", "c"], "three": ["c", "d"], "four": ["e"], "five": ["e"]}))
    assert [({one.name for one in group.sources}, {one.name for one in group.targets}) for group in found] == [
        ({"a"}, {"one"}),
        ({"b", "c", "d"}, {"two", "three"}),
        ({"e"}, {"four", "five"}),
    ]


def test_several_metrics_are_no_metric() -> None:
    (group,) = groups(plan({"all": ["a", "b"]}, a=spec("a", "ip")))
    assert group.space is None


def test_a_collection_that_is_not_there_is_refused_unless_collections_were_chosen() -> None:
    made = plan({"pets": ["pets"]})
    queries = written({"text": "a", "collection": "unicorns"})
    with pytest.raises(PreconditionError, match=r"unicorns.*pets"):
        check_asked(queries, made, groups(made), limited=False)
    check_asked(queries, made, groups(made), limited=True)
    check_asked(written({"text": "a", "collection": "skipped"}), made, groups(made), limited=False)


def test_a_vector_of_no_collections_dimension_is_refused() -> None:
    made = plan({"pets": ["pets"]})
    with pytest.raises(UsageError, match="dimension 3"):
        check_asked(written({"vector": [1, 2, 3]}), made, groups(made), limited=False)
