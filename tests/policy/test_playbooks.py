"""What every play promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def plays() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in PLAYBOOKS:
        for number, play in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")), 1):
            if "hosts" in play:
                found.append((f"{path.name}:{number}", play))
    return found


PLAYS = pytest.mark.parametrize("play", [play for _, play in plays()], ids=[name for name, _ in plays()])


def test_there_are_the_playbooks_that_operators_are_promised() -> None:
    promised = ("site", "migrate", "validate", "cutover", "rollback", "verify", "quickstart")
    assert {f"{name}.yml" for name in promised} <= {path.name for path in PLAYBOOKS}


@PLAYS
def test_a_play_ends_everywhere_when_one_host_fails(play: dict[str, Any]) -> None:
    assert play["any_errors_fatal"] is True
    assert play["max_fail_percentage"] == 0


@PLAYS
def test_a_play_says_which_step_it_is(play: dict[str, Any]) -> None:
    assert re.fullmatch(r"\(\d+/\d+\) [A-Z][A-Z -]*: .+", play["name"])


@PLAYS
def test_a_play_names_its_groups(play: dict[str, Any]) -> None:
    assert play["hosts"] != ""
    assert "serial" not in play or play["serial"]


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_the_steps_of_a_playbook_are_numbered_in_order(path: Path) -> None:
    names = [play["name"] for play in yaml.safe_load(path.read_text(encoding="utf-8")) if "hosts" in play]
    numbers = [tuple(map(int, re.findall(r"\d+", name)[:2])) for name in names]
    assert numbers == [(step, len(numbers)) for step in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_preflight_comes_first_and_always_where_data_changes(path: Path) -> None:
    first = yaml.safe_load(path.read_text(encoding="utf-8"))[0]
    if path.name == "verify.yml":
        return  # it only looks
    if "ansible.builtin.import_playbook" in first:
        assert first["ansible.builtin.import_playbook"] in {entry.name for entry in PLAYBOOKS}
        return
    assert "PREFLIGHT" in first["name"]
    assert first["tags"] == ["always"]


def test_the_configuration_is_the_fast_and_explicit_one() -> None:
    text = (ROOT / "ansible.cfg").read_text(encoding="utf-8")
    assert "pipelining = true" in text
    assert "inject_facts_as_vars = false" in text
