"""What every role promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
EACH = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
_NO_DEFAULT = object()
_GROUPS = "chroma|postgres|api|worker|gateway|backup"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def options(role: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for spec in read(role / "meta/argument_specs.yml")["argument_specs"].values():
        found |= spec.get("options", {})
    return found


def task_files(role: Path) -> list[Path]:
    return sorted((role / "tasks").glob("*.yml")) + sorted((role / "handlers").glob("*.yml"))


def tasks(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def walk(entries: list[dict[str, Any]] | None) -> None:
        for entry in entries or []:
            found.append(entry)
            for part in ("block", "rescue", "always"):
                walk(entry.get(part))

    walk(read(path))
    return found


@EACH
def test_a_role_is_documented(role: Path) -> None:
    text = (role / "README.md").read_text(encoding="utf-8")
    for word in ("Outcome", "Rollback", "Idempotence"):
        assert word in text


@EACH
def test_the_defaults_are_those_of_the_specs(role: Path) -> None:
    specified = {
        name: option.get("default", _NO_DEFAULT) for name, option in options(role).items() if "default" in option
    }
    assert specified == (read(role / "defaults/main.yml") or {})


@EACH
def test_every_variable_begins_with_the_name_of_its_role(role: Path) -> None:
    public = set(options(role)) | set(read(role / "defaults/main.yml") or {})
    private = set(read(role / "vars/main.yml") or {})
    assert [name for name in public if not name.startswith(f"{role.name}_")] == []
    assert [name for name in private if not name.startswith(f"__{role.name}_")] == []


@EACH
def test_no_secret_has_a_default(role: Path) -> None:
    defaults = read(role / "defaults/main.yml") or {}
    secrets = [name for name, value in defaults.items() if value and re.search(r"(password|token|secret)$", name)]
    assert secrets == []


@EACH
def test_tasks_are_named_by_their_file(role: Path) -> None:
    wrong = [
        task.get("name", str(task))
        for path in task_files(role)
        for task in tasks(path)
        if path.parent.name == "tasks" and path.stem != "main"
        if not re.match(rf"{re.escape(path.stem)} \| [A-Z]", task.get("name", ""))
    ]
    assert wrong == []


@EACH
def test_main_is_a_table_of_contents(role: Path) -> None:
    main = role / "tasks/main.yml"
    if not main.exists():
        assert role.name == "migration"
        return
    modules = {key for task in tasks(main) for key in task} - {"name", "tags", "when", "vars", "loop", "loop_control"}
    assert modules <= {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks"}


@EACH
def test_a_refusal_says_what_to_do(role: Path) -> None:
    asserts = [task for path in task_files(role) for task in tasks(path) if "ansible.builtin.assert" in task]
    assert [task["name"] for task in asserts if not task["ansible.builtin.assert"].get("fail_msg")] == []


@EACH
def test_a_role_never_names_an_inventory_group(role: Path) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in role.rglob("*") if path.suffix in (".yml", ".j2"))
    assert re.findall(rf"groups\[['\"]({_GROUPS})|groups\.({_GROUPS})\b", text) == []


@EACH
def test_nothing_is_taken_as_latest_and_no_error_is_ignored(role: Path) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in role.rglob("*.yml"))
    assert not re.search(r":\s*[\"']?latest\b", text)
    assert "ignore_errors" not in text
    # Molecule and ansible-lint would leave tasks with this tag out; the name is here to forbid it, not to use it.
    assert "notest" not in text


@EACH
def test_templates_say_that_they_are_managed(role: Path) -> None:
    wrong = [
        path.relative_to(role)
        for path in (role / "templates").rglob("*.j2")
        if not path.read_text(encoding="utf-8").startswith(("{{ ansible_managed | comment", "{{ '", "#jinja2"))
    ]
    assert wrong == []


@EACH
def test_commands_are_argument_lists(role: Path) -> None:
    commands = [
        task["ansible.builtin.command"]
        for path in task_files(role)
        for task in tasks(path)
        if "ansible.builtin.command" in task
    ]
    assert [command for command in commands if "argv" not in command] == []
    assert not any("ansible.builtin.shell" in task for path in task_files(role) for task in tasks(path))
