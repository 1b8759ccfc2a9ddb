"""The playbooks of a migration, against real servers: what a verdict leads to, and the way back.

The inventory has no service: what moves the pointer is checked by the quickstart.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.databases import Database
from support.records import Made, plain

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
HUMOR = Made("sergio_humor", "cosine", [replace(one, metadata={"humor": "dry"}) for one in plain(60, 16)])
SPOILED = [replace(one, metadata={"humor": "dry", "citation": "none"}) for one in plain(1, 16, prefix="bad")]
NO_LOSS = "migration_validation_max_data_loss=0"


@dataclass(frozen=True, slots=True)
class Played:
    """How a playbook ended."""

    code: int
    out: str

    @property
    def changed(self) -> int:
        """What the recap counts."""
        counts = re.findall(r"changed=(\d+)", self.out)
        assert len(counts) == 1, self.out
        return int(counts[0])


class Operator:
    """Somebody with an inventory of two databases."""

    def __init__(self, pair: tuple[Database, Database], folder: Path) -> None:
        self.source, self.target = pair
        self.prefix = folder / "prefix"
        self._inventory = folder / "inventory.yml"
        programs = self.prefix / "opt/chroma-stack/bin"
        programs.mkdir(parents=True)
        (programs / "chromactl").symlink_to(PROGRAMS / "chromactl")
        queries = folder / "queries.json"
        queries.write_bytes(orjson.dumps([{"text": "a joke", "collection": "sergio_humor", "category": "humor"}]))
        # Ansible reads YAML, of which JSON is a part.
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "migration_source": {"name": "old", "url": self.source.url, "token_file": ""},
            "migration_target": {"name": "new", "url": self.target.url, "token_file": ""},
            "migration_prefix": str(self.prefix),
            "migration_user": pwd.getpwuid(os.getuid()).pw_name,
            "migration_group": "",
            "migration_run_as": [],
            "migration_test_queries": str(queries),
            # The answers of a loaded machine are slow.
            "migration_validation_limit_ms": 60000,
        }
        groups: dict[str, Any] = {"chroma": {"hosts": {"localhost": variables}}, "api": {"hosts": {}}}
        self._inventory.write_bytes(orjson.dumps(groups))

    def play(self, name: str, *more: str) -> Played:
        """Run the playbook."""
        program = [str(PROGRAMS / "ansible-playbook"), "--inventory", str(self._inventory)]
        settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "CHROMACTL_DATABASE": self.source.name}
        done = subprocess.run(  # noqa: S603 (a playbook of ours)
            [*program, str(ROOT / "playbooks" / f"{name}.yml"), *more],
            env=os.environ | settings | {"NO_COLOR": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        # Ansible folds long lines.
        return Played(done.returncode, " ".join((done.stdout + done.stderr).split()))

    def on_record(self, ending: str) -> dict[str, Any]:
        """The role's record with this ending, empty if there is none."""
        found = list((self.prefix / "var/lib/chroma-stack/migration").glob(f"old-to-new-????????{ending}"))
        return {} if not found else dict(orjson.loads(found[0].read_bytes()))

    def deeds(self) -> list[tuple[str, str]]:
        """Command and outcome of everything that the audit log has ended."""
        log = self.prefix / "var/log/chroma-stack/migration/audit.jsonl"
        lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
        return [(line["command"], line["outcome"]) for line in lines if line["outcome"] != "begun"]


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
