from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from chromadb.types import Collection

from app.core.chroma.hits import metric_of, score_of
from app.core.chroma.resolver import by_name, is_work_collection, may_be_searched, replaced_name

RUN = "20261120T101500-0a1b2c"


def collection(name: str, id_: UUID | None = None, **fields: Any) -> Collection:
    return Collection.model_validate(
        {
            "id": id_ or uuid4(),
            "name": name,
            "configuration_json": {},
            "serialized_schema": None,
            "metadata": None,
            "dimension": None,
            "tenant": "t",
            "database": "d",
            **fields,
        }
    )


def test_leaves_out_work_collections() -> None:
    live = [collection("x"), collection(f"x--m{RUN}"), collection(f"y--before-{RUN}"), collection("z--memo")]
    assert set(by_name(live)) == {"x", "z--memo"}


def test_keeps_the_old_collection_between_the_two_renames_of_a_swap() -> None:
    old, new = uuid4(), uuid4()
    kept = by_name([collection(f"x--before-{RUN}", old), collection(f"x--m{RUN}", new)])["x"]
    assert (kept.id, kept.name) == (old, "x")
    assert by_name([collection(f"x--before-{RUN}", old), collection("x", new)])["x"].id == new


def test_what_a_run_kept_is_not_served_without_the_run_being_at_it() -> None:
    other = "20261119T101500-0a1b2c"
    assert by_name([collection(f"x--before-{RUN}"), collection(f"x--m{other}")]) == {}


def test_what_a_rebuild_replaces_is_served_until_another_has_the_name() -> None:
    old, new = uuid4(), uuid4()
    half = [collection(replaced_name("x"), old), collection(f"x--m{RUN}", new)]
    kept = by_name(half)
    assert {name: (found.id, found.name) for name, found in kept.items()} == {"x": (old, "x")}
    assert by_name(half[:1])["x"].id == old
    assert by_name([collection(replaced_name("x"), old), collection("x", new)])["x"].id == new
    assert is_work_collection(replaced_name("x"))


@pytest.mark.parametrize("name", ["", "ab", "../..", "a/b", "a%2Fb", "a?b", "x\x00y", "-ab", "ab.", "ünter", "a" * 513])
def test_what_no_collection_can_be_called_is_never_asked_for(name: str) -> None:
    assert not may_be_searched(name)


def test_names_of_collections_may_be_asked_for() -> None:
    names = ["notes", "sergio_corpus", "a.b-c_d", "a" * 512, f"x--m{RUN}", replaced_name("x")]
    assert [may_be_searched(name) for name in names] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("fields", "metric"),
    [
        ({}, "l2"),
        ({"configuration_json": {"hnsw": {"space": "ip"}, "spann": None}}, "ip"),
        ({"configuration_json": {"spann": {"space": "cosine"}, "hnsw": None}}, "cosine"),
        (
            {"configuration_json": {"hnsw_configuration": {"space": "l2"}}, "metadata": {"hnsw:space": "cosine"}},
            "cosine",
        ),
        ({"configuration_json": {"hnsw_configuration": {"space": "ip"}}}, "ip"),
    ],
)
def test_knows_the_metric_of_old_and_new_collections(fields: dict[str, Any], metric: str) -> None:
    assert metric_of(collection("x", **fields)) == metric


def test_scores_grow_with_similarity() -> None:
    assert score_of("cosine", 0.0) == 1.0
    assert score_of("ip", 0.25) == 0.75
    assert score_of("l2", 0.0) == 1.0
    assert score_of("l2", 3.0) == 0.25
