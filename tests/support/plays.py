"""An operator who runs the playbooks of a migration, with an inventory of two databases."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from support.databases import Database

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent


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
    """Somebody with an inventory of two databases. `source_url` is how the source is reached, if not directly."""

    def __init__(self, pair: tuple[Database, Database], folder: Path, source_url: str | None = None) -> None:
        self.source, self.target = pair
        self.source_url = source_url or self.source.url
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
            "migration_source": {"name": "old", "url": self.source_url, "token_file": ""},
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

    def keeps_the_promise(self, name: str) -> bool:
        """Whether this one test of molecule/testinfra passes here."""
        place = f"{self.target.url}/api/v2/tenants/default_tenant/databases/{self.target.name}"
        records = f"{self.prefix}/var/lib/chroma-stack/migration/old-to-new-????????"
        here = {"phase": "rolled-back", "migration": {"records": records, "target_database": place}}
        suite = ROOT / "molecule"
        words = [f"--config-file={suite}/pytest.ini", "--quiet", "--hosts=local://", f"{suite}/testinfra/{name}"]
        done = subprocess.run(  # noqa: S603 (a test of ours)
            [sys.executable, "-m", "pytest", *words],
            env=os.environ | {"TESTINFRA_EXPECTED": orjson.dumps({"local": here}).decode()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.returncode == 0

    def on_record(self, ending: str) -> dict[str, Any]:
        """The role's record with this ending, empty if there is none."""
        found = list((self.prefix / "var/lib/chroma-stack/migration").glob(f"old-to-new-????????{ending}"))
        return {} if not found else dict(orjson.loads(found[0].read_bytes()))

    @property
    def audit_log(self) -> Path:
        """Where everybody writes what they do."""
        return self.prefix / "var/log/chroma-stack/migration/audit.jsonl"

    def deeds(self) -> list[tuple[str, str]]:
        """Command and outcome of everything that the audit log has ended."""
        lines = [orjson.loads(line) for line in self.audit_log.read_bytes().splitlines()]
        return [(line["command"], line["outcome"]) for line in lines if line["outcome"] != "begun"]
