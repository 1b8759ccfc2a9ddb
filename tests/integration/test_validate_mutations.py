"""A good migration, spoiled in one way: validation finds it, names the record and the test, and accuses no other."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from support.command import Chromactl
from support.databases import Database
from support.records import Made, Record

Pair = tuple[Database, Database]
CORPUS, HUMOR = "sergio_corpus", "sergio_humor"
ONE, OTHER, EMPTY = "corpus_000003", "corpus_000004", "corpus_empty"
JOKE = "humor_000002"
OPTIONS = ("--chunks", "200", "--dim", "32", "--seed", "3")


@pytest.fixture
def migrated(pair: Pair, chromactl: Chromactl) -> Pair:
    """The sample, with one empty document, migrated well."""
    source, target = pair
    place = ["--database", source.name, "--json"]
    assert chromactl("sample", "--url", source.url, *OPTIONS, *place).code == 0
    source.upsert(CORPUS, Record(EMPTY, np.linspace(0.1, 1, 32, dtype=np.float32), "", None, {"kind": "interview"}))
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, *place)
    assert ended.code == 0, ended.err
    return pair


def validated(chromactl: Chromactl, old: str, new: str, database: str) -> tuple[int, dict[str, Any]]:
    place = ["--old-db-url", old, "--new-db-url", new, "--database", database]
    # Latency is not what is tested here, and the machine may be busy.
    ended = chromactl("validate", *place, "--limit-ms", "60000", "--json")
    return ended.code, ended.json


def offenders(report: dict[str, Any]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for line in Path(report["files"]["offenders"]).read_text().splitlines():
        one = orjson.loads(line)
        found.setdefault(one["test"], set()).add(one["id"])
    return found


def not_passed(report: dict[str, Any]) -> dict[int, str]:
    return {test["number"]: test["status"] for test in report["tests"] if test["status"] != "PASSED"}


@dataclass(frozen=True, slots=True)
class Mutation:
    """What is done, the tests that have to say so, and the records that each of them names."""

    name: str
    spoil: Callable[[Database], None]
    tests: dict[int, str]
    named: dict[int, set[str]]


def rewrite(target: Database, collection: str, record: str, **changes: Any) -> None:
    """Write a record anew with these changes; an upsert would keep what is not said."""
    was = target.records(collection)[record]
    target.delete(collection, record)
    target.upsert(collection, replace(was, **changes))


def with_field(name: str, value: Any, collection: str = CORPUS, record: str = ONE) -> Callable[[Database], None]:
    def spoil(target: Database) -> None:
        was = target.records(collection)[record].metadata or {}
        assert name in was
        assert was[name] != value or type(was[name]) is not type(value)
        rewrite(target, collection, record, metadata={**was, name: value})

    return spoil


def without_field(target: Database) -> None:
    was = target.records(CORPUS)[ONE].metadata or {}
    rewrite(target, CORPUS, ONE, metadata={key: value for key, value in was.items() if key != "author"})


def null_field(target: Database) -> None:
    with target.client() as client:
        client.get_collection(CORPUS, embedding_function=None).update(ids=[ONE], metadatas=[{"author": None}])


def stale_field(target: Database) -> None:
    with target.client() as client:
        client.get_collection(CORPUS, embedding_function=None).update(ids=[ONE], metadatas=[{"lang": "english"}])


def line_as_float(target: Database) -> None:
    was = target.records(CORPUS)[ONE].metadata or {}
    rewrite(target, CORPUS, ONE, metadata={**was, "source_line": float(was["source_line"])})


def extra(target: Database) -> None:
    was = target.records(CORPUS)[ONE]
    target.upsert(CORPUS, replace(was, id="newcomer", document="something else altogether"))


def broken_extra(value: float) -> Callable[[Database], None]:
    def spoil(target: Database) -> None:
        target.upsert(CORPUS, Record("newcomer", np.full(32, value, np.float32), "something else altogether"))

    return spoil


def same_content(target: Database) -> None:
    target.upsert(CORPUS, replace(target.records(CORPUS)[ONE], id="newcomer"))


def swapped(target: Database) -> None:
    records = target.records(CORPUS)
    rewrite(target, CORPUS, ONE, embedding=records[OTHER].embedding)
    rewrite(target, CORPUS, OTHER, embedding=records[ONE].embedding)


def nudged(target: Database) -> None:
    vector = target.records(CORPUS)[ONE].embedding.copy()
    vector[5] += 1e-4
    rewrite(target, CORPUS, ONE, embedding=vector)


def embedded(value: float) -> Callable[[Database], None]:
    def spoil(target: Database) -> None:
        rewrite(target, CORPUS, ONE, embedding=np.full(32, value, np.float32))

    return spoil


def made_anew(
    space: str = "cosine", settings: dict[str, int | float] | None = None, dimension: int = 32
) -> Callable[[Database], None]:
    def spoil(target: Database) -> None:
        records = [
            replace(record, embedding=record.embedding[:dimension]) for record in target.records(CORPUS).values()
        ]
        was = target.description(CORPUS)
        metadata = {key: value for key, value in was["metadata"].items() if not key.startswith("hnsw:")}
        kept = {key: was["configuration_json"]["hnsw"][key] for key in ("ef_construction", "ef_search")}
        target.drop(CORPUS)
        target.put(Made(CORPUS, space, records, metadata, {**kept, **(settings or {})}))

    return spoil


OTHER_FUNCTION = {"type": "known", "name": "openai", "config": {"model_name": "x", "api_key_env_var": "NONE"}}


def other_function(target: Database) -> None:
    was = target.description(CORPUS)
    hnsw = {key: value for key, value in was["configuration_json"]["hnsw"].items() if value is not None}
    put_anew(target, was, {"configuration": {"hnsw": hnsw, "embedding_function": OTHER_FUNCTION}})


def other_switch(target: Database) -> None:
    was = target.description(CORPUS)
    schema = was["schema"]
    schema["keys"]["author"] = {"string": {"string_inverted_index": {"enabled": False, "config": {}}}}
    put_anew(target, was, {"schema": schema})


def put_anew(target: Database, was: dict[str, Any], settings: dict[str, Any]) -> None:
    records = target.records(CORPUS)
    target.drop(CORPUS)
    metadata = {key: value for key, value in was["metadata"].items() if not key.startswith("hnsw:")}
    target.request("POST", "/collections", {"name": CORPUS, "metadata": metadata, **settings})
    target.upsert(CORPUS, *records.values())


def elsewhere(target: Database) -> None:
    joke = target.records(HUMOR)[JOKE]
    target.delete(HUMOR, JOKE)
    target.upsert(CORPUS, joke)


def copied(target: Database) -> None:
    target.upsert(CORPUS, target.records(HUMOR)[JOKE])


FAILED, WARNING = "FAILED", "WARNING"
BROKEN_EXTRA = {1: FAILED, 2: FAILED}
MUTATIONS = [
    Mutation("a missing record", lambda target: target.delete(CORPUS, ONE), {1: FAILED}, {1: {ONE}}),
    Mutation("an extra record", extra, {1: FAILED}, {1: {"newcomer"}}),
    Mutation("an extra zero vector", broken_extra(0.0), BROKEN_EXTRA, {1: {"newcomer"}, 2: {"newcomer"}}),
    Mutation("an extra vector of NaN", broken_extra(3e38), BROKEN_EXTRA, {1: {"newcomer"}, 2: {"newcomer"}}),
    Mutation("duplicate content", same_content, {1: FAILED, 6: WARNING}, {1: {"newcomer"}, 6: {"newcomer"}}),
    Mutation("a copy in another collection", copied, {1: FAILED, 6: FAILED}, {1: {JOKE}, 6: {JOKE}}),
    Mutation("two embeddings swapped", swapped, {2: FAILED}, {2: {ONE, OTHER}}),
    Mutation("one float off by 1e-4", nudged, {2: FAILED}, {2: {ONE}}),
    Mutation("a zero vector", embedded(0.0), {2: FAILED}, {2: {ONE}}),
    Mutation("a vector that becomes NaN", embedded(3e38), {2: FAILED}, {2: {ONE}}),
    Mutation("another metric", made_anew(space="l2"), {2: FAILED}, {2: {""}}),
    Mutation("other index settings", made_anew(settings={"ef_search": 37}), {2: WARNING}, {2: {""}}),
    Mutation("another embedding function", other_function, {2: WARNING}, {2: {""}}),
    Mutation("another index switch", other_switch, {2: WARNING}, {2: {""}}),
    Mutation("a missing field", without_field, {3: FAILED}, {3: {ONE}}),
    Mutation("a field that is null", null_field, {3: FAILED}, {3: {ONE}}),
    Mutation("a field of the old schema", stale_field, {3: FAILED}, {3: {ONE}}),
    Mutation("another value", with_field("category", "nonsense"), {3: FAILED}, {3: {ONE}}),
    Mutation(
        "an empty document that is none",
        lambda target: rewrite(target, CORPUS, EMPTY, document=None),
        {3: FAILED},
        {3: {EMPTY}},
    ),
    Mutation("a record in the wrong collection", elsewhere, {5: FAILED}, {5: {JOKE}}),
    Mutation("an int that is a float", line_as_float, {7: FAILED}, {7: {ONE}}),
    Mutation("a bool that is a string", with_field("disputed", "false"), {7: FAILED}, {7: {ONE}}),
    Mutation("a value that is not allowed", with_field("language", "fr"), {7: FAILED}, {7: {ONE}}),
    Mutation("a value out of range", with_field("authenticity_score", 1.5), {7: FAILED}, {7: {ONE}}),
    Mutation("a malformed citation", with_field("if_citation_uri", "if:/citation/x"), {8: FAILED}, {8: {ONE}}),
    Mutation(
        "a citation of no date",
        with_field("if_citation_uri", "if://citation/a-2025-02-30"),
        {8: FAILED},
        {8: {ONE}},
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_found_by_its_test_only(migrated: Pair, chromactl: Chromactl, mutation: Mutation) -> None:
    source, target = migrated
    mutation.spoil(target)
    code, report = validated(chromactl, source.url, target.url, target.name)
    assert not_passed(report) == mutation.tests
    assert offenders(report) == mutation.named
    failed = FAILED in mutation.tests.values()
    assert (code, report["overall_status"]) == ((4, FAILED) if failed else (0, WARNING))
    assert report["rollback_triggered"] is failed
    assert bool(report["rollback_reason"]) is failed
    if mutation.tests != {1: FAILED}:
        assert report["data_loss_percentage"] == 0.0


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (other_function, ("another embedding function", "embedding_function", "None")),
        (other_switch, ("another switch of string_inverted_index of author", "schema", "on")),
    ],
)
def test_the_setting_is_named(
    migrated: Pair, chromactl: Chromactl, spoil: Callable[[Database], None], named: tuple[str, str, str]
) -> None:
    spoil(migrated[1])
    _, report = validated(chromactl, migrated[0].url, migrated[1].url, migrated[1].name)
    (one,) = report["tests"][1]["offenders"]["first"]
    assert (one["what"], one["field"], one["expected"]) == named
    assert named[0].split()[-1] in report["tests"][1]["summary"]


def test_exchanged_vectors_are_called_so(migrated: Pair, chromactl: Chromactl) -> None:
    swapped(migrated[1])
    _, report = validated(chromactl, migrated[0].url, migrated[1].url, migrated[1].name)
    first = report["tests"][1]["offenders"]["first"]
    assert {(one["id"], one["actual"]) for one in first} == {
        (ONE, f"the vector of {OTHER}"),
        (OTHER, f"the vector of {ONE}"),
    }


def test_a_changed_dimension(migrated: Pair, chromactl: Chromactl) -> None:
    source, target = migrated
    made_anew(dimension=16)(target)
    code, report = validated(chromactl, source.url, target.url, target.name)
    assert (code, not_passed(report)) == (4, {2: FAILED})
    assert offenders(report) == {2: set(target.records(CORPUS))}
    assert report["tests"][1]["offenders"]["first"][0]["what"] == "another dimension"


def test_a_collection_that_is_gone(migrated: Pair, chromactl: Chromactl) -> None:
    source, target = migrated
    ids = set(target.records(CORPUS))
    target.drop(CORPUS)
    code, report = validated(chromactl, source.url, target.url, target.name)
    assert (code, not_passed(report)) == (4, {1: FAILED, 5: FAILED})
    assert offenders(report) == {1: ids, 5: {""}}
    assert report["rollback_reason"] == "Data Loss Detected"


@pytest.fixture
def directories(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> tuple[str, str, str]:
    """The sample as a snapshot, as a directory of its own, and migrated into another directory."""
    place = ["--database", pair[0].name]
    assert chromactl("sample", "--url", pair[0].url, *OPTIONS, *place).code == 0
    snapshot, old, new = f"snapshot:{tmp_path}/snapshot", f"path:{tmp_path}/old", f"path:{tmp_path}/new"
    for way in (
        ["--source-url", pair[0].url, *place, "--target-url", snapshot, "--profile", "identity"],
        ["--source-url", snapshot, "--target-url", old, "--profile", "identity"],
        ["--source-url", snapshot, "--target-url", new],
    ):
        ended = chromactl("migrate", *way)
        assert ended.code == 0, ended.err
    return snapshot, old, new


def lose(directory: str, statement: str) -> int:
    """Take vectors out of an index, and leave the counts as they are; how many."""
    with contextlib.closing(sqlite3.connect(f"{directory.removeprefix('path:')}/chroma.sqlite3")) as connection:
        with connection:
            gone = connection.execute(f"DELETE FROM embeddings_queue WHERE {statement}").rowcount  # noqa: S608
    assert gone
    return gone


def test_an_index_that_lost_a_vector_though_the_counts_are_right(
    directories: tuple[str, str, str], chromactl: Chromactl
) -> None:
    old, _, new = directories
    lose(new, f"id = '{ONE}'")
    code, report = validated(chromactl, old, new, "default_database")
    assert (code, not_passed(report)) == (4, {2: FAILED})
    assert offenders(report) == {2: {ONE}}
    numbers = report["tests"][0]["numbers"]
    assert (numbers["missing"], numbers["new"]) == (0, 200)
    assert report["rollback_reason"] == "Embedding Corruption"


def test_an_index_that_lost_the_vector_of_an_extra_record(
    directories: tuple[str, str, str], chromactl: Chromactl, tmp_path: Path
) -> None:
    snapshot, _, new = directories
    fewer = tmp_path / "fewer.json"
    assert chromactl("migrate", "--source-url", snapshot, "--target-url", fewer, "--profile", "identity").code == 0
    body = orjson.loads(fewer.read_bytes())
    for collection in body["collections"]:
        collection["records"] = [record for record in collection["records"] if record["id"] != ONE]
    fewer.write_bytes(orjson.dumps(body))
    lose(new, f"id = '{ONE}'")
    code, report = validated(chromactl, str(fewer), new, "default_database")
    assert (code, not_passed(report)) == (4, {1: FAILED, 2: FAILED})
    assert offenders(report) == {1: {ONE}, 2: {ONE}}


def test_an_index_that_lost_all_is_not_asked_for_each(directories: tuple[str, str, str], chromactl: Chromactl) -> None:
    old, _, new = directories
    count = lose(new, "id LIKE 'corpus%'")
    code, report = validated(chromactl, old, new, "default_database")
    assert (code, not_passed(report)[2], report["rollback_reason"]) == (4, FAILED, "Embedding Corruption")
    assert offenders(report)[2] == {""}
    assert report["tests"][1]["numbers"]["not_read"] == count
    assert report["tests"][2]["numbers"]["compared"] == 200


def test_what_the_old_side_lost_since_is_not_held_against_the_new(
    directories: tuple[str, str, str], chromactl: Chromactl
) -> None:
    _, old, new = directories
    lose(old, f"id = '{ONE}'")
    code, report = validated(chromactl, old, new, "default_database")
    assert (code, not_passed(report)) == (0, {1: WARNING})
    assert offenders(report) == {1: {ONE}}
    assert report["tests"][0]["numbers"]["unverified"] == 1
    assert report["data_loss_percentage"] == 0.0
