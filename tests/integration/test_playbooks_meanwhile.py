"""What happens to source or target between the migration and its validation, with real servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.forwarder import Forwarder, forwarder
from support.plays import Operator
from support.records import Made, plain

NAME = "sergio_humor"
HUMOR = Made(NAME, "cosine", [replace(one, metadata={"humor": "dry"}) for one in plain(60, 16)])
LATE = [replace(one, metadata={"humor": "dry"}) for one in plain(9, 16, prefix="late", seed=3)]


class Busy(Operator):
    """An operator of databases that others use: `meanwhile` is called at a validation's first look at the source.

    It is given the validation's number, from 0.
    """

    def __init__(self, pair: tuple[Database, Database], folder: Path, way: Forwarder) -> None:
        super().__init__(pair, folder, way.url)
        self.meanwhile: Callable[[int], None] = lambda number: None
        self._begun = 0
        self._lock = threading.Lock()
        way.guard = self._look

    def _look(self, path: str, body: dict[str, Any]) -> None:
        with self._lock:
            lines = map(orjson.loads, self.audit_log.read_bytes().splitlines() if self.audit_log.exists() else [])
            begun = sum((line["command"], line["outcome"]) == ("validate", "begun") for line in lines)
            if begun > self._begun:
                self._begun = begun
                self.meanwhile(begun - 1)


@pytest.fixture
def operator(pair: tuple[Database, Database], tmp_path: Path) -> Iterator[Busy]:
    pair[0].put(HUMOR)
    with forwarder(pair[0].url) as way:
        yield Busy(pair, tmp_path, way)


def test_what_the_source_gains_meanwhile_is_carried_over_and_passes(operator: Busy) -> None:
    operator.meanwhile = lambda number: operator.source.upsert(NAME, LATE[0])
    passed = operator.play("migrate")
    assert passed.code == 0, passed.out
    assert "PASSED: new is ready for cutover" in passed.out
    assert operator.deeds() == [
        ("migrate", "complete"),
        ("validate", "FAILED"),
        ("migrate", "complete"),
        ("validate", "PASSED"),
    ]
    assert set(operator.target.records(NAME)) == {record.id for record in (*HUMOR.records, LATE[0])}
    report = operator.on_record(".json")
    (first,) = report["carries_on"]
    assert operator.on_record(".verdict.json")["run"] == report["run"] != first
    # Both runs are one migration, so that both are undone.
    looked = operator.play("rollback", "--check")
    assert (looked.code, operator.target.counts()) == (0, {NAME: 61})
    assert f"new would be as it was before run {report['run']}" in looked.out
    assert f"After that {first} would be undone too" in looked.out
    undone = operator.play("rollback")
    assert (undone.code, operator.target.names()) == (0, []), undone.out
    assert f"new is as it was before run {first}" in undone.out
    assert operator.on_record(".undone.json") == {"run": first, "collections": {NAME: None}}
    again = operator.play("rollback")
    assert (again.code, again.changed) == (0, 0)


def test_a_source_that_never_rests_is_carried_over_once_and_all_of_it_is_undone(operator: Busy) -> None:
    assert operator.play("migrate").code == 0
    before = operator.target.records(NAME)
    operator.source.upsert(NAME, LATE[0])
    operator.meanwhile = lambda number: operator.source.upsert(NAME, LATE[number])
    failed = operator.play("migrate")
    assert failed.code == 2
    assert "Validation FAILED: Chunk Count Mismatch." in failed.out
    assert [outcome for command, outcome in operator.deeds()] == [
        *("complete", "PASSED"),
        *("complete", "FAILED", "complete", "FAILED"),
        *("restored", "restored"),
    ]
    # As it was before the first of the two.
    assert_holds(operator.target.records(NAME), before.values(), "cosine")
    assert (operator.on_record(".json"), operator.on_record(".verdict.json")) == ({}, {})
    assert operator.on_record(".undone.json")["collections"] == {NAME: 60}
    promise = "test_migration.py::test_target_holds_what_the_rollback_left"
    assert operator.keeps_the_promise(promise)
    operator.target.delete(NAME, HUMOR.records[0].id)
    assert not operator.keeps_the_promise(promise)


def test_a_target_that_was_damaged_meanwhile_is_rolled_back_and_it_says_why(operator: Busy) -> None:
    operator.meanwhile = lambda number: operator.target.delete(NAME, HUMOR.records[3].id)
    failed = operator.play("migrate")
    assert failed.code == 2
    assert "Validation FAILED: Chunk Count Mismatch. " in failed.out
    assert "Carrying over what has changed since was tried, and did not work:" in failed.out
    assert f"already holds a collection {NAME} with other content" in failed.out
    assert "new is as it was before run" in failed.out
    assert operator.target.names() == []
    assert [command for command, _ in operator.deeds()] == ["migrate", "validate", "migrate", "rollback"]


def test_a_play_that_was_cut_off_behind_its_run_leaves_no_older_verdict(
    operator: Busy, chromactl: Chromactl, tmp_path: Path
) -> None:
    assert operator.play("migrate").code == 0
    first = operator.on_record(".json")["run"]
    operator.source.upsert(NAME, LATE[0])
    kept = operator.prefix / "var/lib/chroma-stack/migration/checkpoints"
    ended = chromactl(
        "migrate", "--source-url", operator.source_url, "--target-url", operator.target.url,
        "--database", operator.source.name, "--checkpoint-dir", kept, "--log-dir", tmp_path, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    passed = operator.play("migrate")
    assert passed.code == 0, passed.out
    runs = {operator.on_record(ending)["run"] for ending in (".json", ".verdict.json")}
    assert runs == {ended.json["run"]} != {first}
    assert operator.deeds()[-2:] == [("migrate", "unchanged"), ("validate", "PASSED")]
