"""What is on record of the migration: the verdict that the pointer relies on, and who did what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Count


def test_pointer_is_where_the_phase_wants_it(host: Any, expected: dict[str, Any]) -> None:
    """The target is live after a migration, the source after a rollback."""
    assert json.loads(host.file(expected["pointer"]).content_string)["instance"] == expected["live"]


def test_live_instance_was_told_everything(host: Any, expected: dict[str, Any]) -> None:
    """What the service keeps was written to the live instance too: no cutover was cut off before that."""
    assert json.loads(host.file(expected["whole"]).content_string)["instance"] == expected["live"]


@pytest.mark.phase("migrated")
def test_live_data_is_validated(host: Any, expected: dict[str, Any]) -> None:
    """The run that brought the live data has a verdict, of that run, and a good one."""
    migration = expected["migration"]
    report = json.loads(host.check_output(f"cat {migration['records']}.json"))
    verdict = json.loads(host.check_output(f"cat {migration['records']}.verdict.json"))
    assert report["target"] == migration["target_url"]
    assert verdict["run"] == report["run"]
    assert verdict["overall_status"] in migration["verdicts"]


@pytest.mark.phase("migrated")
def test_validation_report_is_there_for_the_operators(host: Any, expected: dict[str, Any]) -> None:
    """The verdict's report can be read, and not by everybody."""
    verdict = json.loads(host.check_output(f"cat {expected['migration']['records']}.verdict.json"))
    report = host.file(verdict["report"])
    assert verdict["overall_status"] in report.content_string
    assert report.mode & 0o007 == 0


@pytest.mark.phase("rolled-back")
def test_nothing_is_on_record_for_cutover(host: Any, expected: dict[str, Any]) -> None:
    """After a rollback neither report nor verdict is left to cut over with."""
    records = expected["migration"]["records"]
    assert host.run(f"ls {records}.json").rc != 0
    assert json.loads(host.check_output(f"cat {records}.verdict.json")) == {}


@pytest.mark.phase("rolled-back")
def test_target_holds_what_the_rollback_left(host: Any, count: Count, expected: dict[str, Any]) -> None:
    """What the last rollback says of the target is what stands there now: so many records, or no such collection."""
    migration = expected["migration"]
    undone = json.loads(host.check_output(f"cat {migration['records']}.undone.json"))
    assert undone["collections"]
    assert {name: count(migration["target_database"], name) for name in undone["collections"]} == undone["collections"]


def test_audit_log_is_closed(host: Any, expected: dict[str, Any]) -> None:
    """Who did what is nobody's business but the stack's own user's and group's."""
    log = host.file(expected["migration"]["audit_log"])
    assert log.mode & 0o007 == 0
    assert log.user == expected["user"]


def test_audit_log_can_be_read_by_programs(host: Any, expected: dict[str, Any]) -> None:
    """Every line is a JSON object that says when, who, what, to which database, and how it ended."""
    lines = host.file(expected["migration"]["audit_log"]).content_string.splitlines()
    wanted = {"time", "who", "host", "command", "target", "outcome"}
    assert [line for line in lines if not wanted <= json.loads(line).keys()] == []


@pytest.mark.parametrize("command", ["migrate", "validate", "cutover"])
def test_audit_log_has_the_command(host: Any, expected: dict[str, Any], command: str) -> None:
    """What led to this state is written down with its end."""
    lines = map(json.loads, host.file(expected["migration"]["audit_log"]).content_string.splitlines())
    assert any(line["command"] == command and line["outcome"] != "begun" for line in lines)
