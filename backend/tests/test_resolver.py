from __future__ import annotations

import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
from chromadb.types import Collection

from app.core.chroma.hits import metric_of, score_of
from app.core.chroma.resolver import Resolver, is_work_collection, replaced_name
from app.core.errors import ChromaUnavailable

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


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_asks_again_only_when_time_is_up() -> None:
    clock = Clock()
    resolver = Resolver(5.0, clock)
    first, second = collection("x"), collection("x")
    assert resolver.known(lambda: [first])["x"].id == first.id
    clock.now = 4.9
    assert resolver.known(lambda: [second])["x"].id == first.id
    clock.now = 5.0
    assert resolver.known(lambda: [second])["x"].id == second.id


def test_leaves_out_work_collections() -> None:
    live = [collection("x"), collection(f"x--m{RUN}"), collection(f"y--before-{RUN}"), collection("z--memo")]
    assert set(Resolver(5.0).known(lambda: live)) == {"x", "z--memo"}


def test_keeps_the_old_collection_between_the_two_renames_of_a_swap() -> None:
    resolver = Resolver(0.0)
    old, new = uuid4(), uuid4()
    half = [collection(f"x--before-{RUN}", old), collection(f"x--m{RUN}", new)]
    kept = resolver.known(lambda: half)["x"]  # so does a process that starts just now
    assert (kept.id, kept.name) == (old, "x")
    done = [collection(f"x--before-{RUN}", old), collection("x", new)]
    assert resolver.known(lambda: done)["x"].id == new


def test_what_a_run_kept_is_not_served_without_the_run_being_at_it() -> None:
    other = "20261119T101500-0a1b2c"
    live = [collection(f"x--before-{RUN}"), collection(f"x--m{other}")]
    assert Resolver(0.0).known(lambda: live) == {}


def test_what_a_rebuild_replaces_is_served_until_another_has_the_name() -> None:
    old, new = uuid4(), uuid4()
    half = [collection(replaced_name("x"), old), collection(f"x--m{RUN}", new)]
    kept = Resolver(0.0).known(lambda: half)
    assert {name: (found.id, found.name) for name, found in kept.items()} == {"x": (old, "x")}
    assert Resolver(0.0).known(lambda: half[:1])["x"].id == old
    done = [collection(replaced_name("x"), old), collection("x", new)]
    assert Resolver(0.0).known(lambda: done)["x"].id == new
    assert is_work_collection(replaced_name("x"))


def test_forgets_a_collection_that_was_deleted() -> None:
    resolver = Resolver(0.0)
    resolver.known(lambda: [collection("x")])
    assert resolver.known(list) == {}


def test_a_failure_is_told_and_not_remembered() -> None:
    resolver = Resolver(5.0)

    def fail() -> list[Collection]:
        raise ChromaUnavailable

    with pytest.raises(ChromaUnavailable):
        resolver.known(fail)
    assert "x" in resolver.known(lambda: [collection("x")])


def test_threads_that_ask_at_once_share_one_answer() -> None:
    resolver = Resolver(5.0)
    calls: list[int] = []
    inside, go = threading.Event(), threading.Event()

    def slow() -> list[Collection]:
        calls.append(1)
        inside.set()
        assert go.wait(10)
        return [collection("x")]

    threads = [threading.Thread(target=resolver.known, args=(slow,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    # those that came after the answer use it; those that waited for it share it
    assert len(calls) == 1


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
