"""Run one of our Ansible modules as Ansible does, without a play around it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "plugins/modules"


class Module:
    """A module by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = FOLDER / f"{name}.py"

    def run(self, *, check: bool = False, umask: int = 0o022, **arguments: Any) -> dict[str, Any]:
        """Its result: its arguments are put into the source, which a Python of its own gets on stdin.

        That Python has no site-packages: a module needs nothing beyond the standard library.
        """
        given = json.dumps(arguments | {"_ansible_check_mode": check, "_ansible_module_name": self.name})
        source = self.path.read_text().replace("<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>", given)
        done = subprocess.run(
            [sys.executable, "-S"], input=source, capture_output=True, text=True, check=False, timeout=60, umask=umask
        )
        assert (done.returncode, done.stderr) == (0, "")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def complaint(self, *, check: bool = False, **arguments: Any) -> str:
        """The one line it fails with."""
        result = self.run(check=check, **arguments)
        assert result.keys() == {"failed", "msg"}
        assert result["failed"] is True
        assert len(result["msg"].splitlines()) == 1
        return str(result["msg"])

    def refusal(self, **arguments: Any) -> str:
        """What it says of malformed arguments; in this process, since one for each of the many would take seconds."""
        given = json.loads(json.dumps(arguments | {"_ansible_check_mode": True}))
        result = runpy.run_path(str(self.path))["run"](given)
        assert result.keys() == {"failed", "msg"}
        assert result["failed"] is True
        return str(result["msg"])
