"""The file of test queries, and what is asked of which collections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chromactl.embedding import hashing_embeddings
from chromactl.embedding.provider import HashEmbedder
from chromactl.errors import EmbeddingError, PreconditionError, UsageError
from chromactl.migrate.plan import Plan, PlannedCollection, PlannedTarget
from chromactl.stores.base import CollectionSpec
from chromactl.validate.queries import TestQuery, check_names, file_questions, groups, pose, read_queries


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


class Model(HashEmbedder):
    """A model of dimension 8, whatever is asked for; it remembers what it was asked."""

    name = "a model"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
        self.asked += texts
        return hashing_embeddings(texts, 8)


def test_texts_and_vectors() -> None:
    found = groups(plan({"pets": ["pets"]}))
    queries = written(
        {"text": "a cat", "collection": "pets", "category": "x"},
        {"vector": [1] * 8, "text": "given"},
        {"text": "elsewhere", "collection": "skipped"},
    )
    model = Model()
    first, second = file_questions(found[0], pose(queries, found, model))
    assert (first.kind, first.text, first.category) == ("test", "a cat", "x")
    assert np.array_equal(first.vector, hashing_embeddings(["a cat"], 8)[0])
    assert second.vector.tolist() == [1.0] * 8
    assert model.asked == ["a cat"]


def test_a_text_is_asked_where_its_vector_fits() -> None:
    found = groups(plan({"small": ["small"], "pets": ["pets"]}, small=spec("small", dimension=3)))
    anywhere = written({"text": "a cat"})
    asked = [file_questions(group, pose(anywhere, found, Model())) for group in found]
    assert [len(questions) for questions in asked] == [0, 1]
    hashed = [file_questions(group, pose(anywhere, found, HashEmbedder())) for group in found]
    assert [len(question.vector) for (question,) in hashed] == [3, 8]
    with pytest.raises(EmbeddingError, match=r"a model: .*'a cat' has dimension 8.*small of 3.*--embedding-model"):
        pose(written({"text": "a cat", "collection": "small"}), found, Model())


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
        check_names(queries, made, groups(made), limited=False)
    check_names(queries, made, groups(made), limited=True)
    check_names(written({"text": "a", "collection": "skipped"}), made, groups(made), limited=False)


def test_a_vector_of_no_collections_dimension_is_refused() -> None:
    made = plan({"pets": ["pets"]})
    with pytest.raises(UsageError, match="dimension 3"):
        pose(written({"vector": [1, 2, 3]}), groups(made), HashEmbedder())
