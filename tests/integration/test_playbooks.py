"""The playbooks of a migration, against real servers: what a verdict leads to, and the way back.

The inventory has no service: what moves the pointer is checked by the quickstart.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from support.databases import Database
from support.plays import Operator
from support.records import Made, plain

HUMOR = Made("sergio_humor", "cosine", [replace(one, metadata={"humor": "dry"}) for one in plain(60, 16)])
SPOILED = [replace(one, metadata={"humor": "dry", "citation": "none"}) for one in plain(1, 16, prefix="bad")]
NO_LOSS = "migration_validation_max_data_loss=0"


@pytest.fixture
def operator(pair: tuple[Database, Database], tmp_path: Path) -> Operator:
    pair[0].put(HUMOR)
    return Operator(pair, tmp_path)


def test_what_failed_is_rolled_back_and_a_warning_waits_for_a_person(operator: Operator) -> None:
    operator.source.upsert("sergio_humor", *SPOILED)
    failed = operator.play("migrate", "-e", NO_LOSS)
    assert failed.code == 2
    assert "Validation FAILED: Data Loss Detected." in failed.out
    assert "new is as it was before run" in failed.out
    (report,) = set(re.findall(r"Report: (\S+\.md)", failed.out))
    assert "Data Loss Detected" in Path(report).read_text(encoding="utf-8")
    assert operator.target.names() == []
    assert (operator.on_record(".json"), operator.on_record(".verdict.json")) == ({}, {})
    warned = operator.play("migrate")
    assert warned.code == 2
    assert "run this playbook again with -e migration_accept_warnings=true" in warned.out
    assert operator.target.counts() == {"sergio_humor": 60}
    accepted = operator.play("migrate", "-e", "migration_accept_warnings=true")
    assert (accepted.code, accepted.changed) == (0, 0)
    assert "WARNING: new is ready for cutover" in accepted.out


def test_what_passed_is_on_record_and_later_damage_is_found_and_undone(operator: Operator) -> None:
    looked = operator.play("migrate", "--check")
    assert (looked.code, looked.changed, operator.target.names()) == (0, 1, [])
    passed = operator.play("migrate")
    assert passed.code == 0, passed.out
    assert "PASSED: new is ready for cutover" in passed.out
    verdict = operator.on_record(".verdict.json")
    assert (verdict["overall_status"], verdict["run"]) == ("PASSED", operator.on_record(".json")["run"])
    assert Path(verdict["report"]).exists()
    assert operator.play("migrate").changed == 0
    assert operator.deeds() == [("migrate", "complete"), ("validate", "PASSED"), ("migrate", "unchanged")]
    operator.target.delete("sergio_humor", HUMOR.records[3].id)
    found = operator.play("validate")
    assert found.code == 2
    assert "Validation FAILED: Chunk Count Mismatch." in found.out
    assert "playbooks/rollback.yml" in found.out
    assert operator.target.counts() == {"sergio_humor": 59}
    looked = operator.play("rollback", "--check")
    assert (looked.code, operator.target.counts()) == (0, {"sergio_humor": 59})
    assert looked.changed > 0
    undone = operator.play("rollback")
    assert (undone.code, undone.changed, operator.target.names()) == (0, looked.changed, [])
    again = operator.play("rollback")
    assert (again.code, again.changed) == (0, 0)
    anew = operator.play("migrate")
    assert anew.code == 0
    assert anew.changed > 0
    assert operator.target.counts() == {"sergio_humor": 60}


def test_where_nothing_is_on_record_nothing_is_undone(operator: Operator) -> None:
    refused = operator.play("rollback")
    assert refused.code == 2
    assert "There is nothing to roll back" in refused.out
