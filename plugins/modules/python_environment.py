#!/usr/bin/python
"""Make a virtual environment hold exactly what a hash-pinned lock names."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: python_environment
short_description: Make a virtual environment hold exactly what a hash-pinned lock names
description:
  - Packages that are missing are installed, others removed, none without a matching hash.
  - With O(uv) every run compares what is installed with the lock. Without it C(python -m venv) and pip do the work;
    that is how uv itself gets onto a host, and then a copy of the lock in the environment says that it is done.
options:
  path: {description: The folder of the environment, type: path, required: true}
  python: {description: The interpreter it is made with, type: path, required: true}
  locks: {description: The texts of the lock files, type: list, elements: str, required: true}
  wheels: {description: Wheels on this host that belong in it too, type: list, elements: path, default: []}
  uv: {description: The uv program, type: path}
attributes:
  check_mode: {support: full}
"""

EXAMPLES = r"""
- name: "install | Make the environment"
  python_environment:
    path: /opt/chroma-stack/api
    python: /usr/bin/python3
    uv: /opt/chroma-stack/uv/bin/uv
    locks: ["{{ lookup('ansible.builtin.file', 'requirements/backend.txt') }}"]
"""

RETURN = r"""
changes: {description: What was installed and removed, one line a package, type: list}
digest: {description: SHA-256 of all that decides the content of the environment, type: str}
site_packages: {description: The folder that its packages lie in, type: path}
"""

# How uv reports a package that it added, removed or replaced.
CHANGE_LINE = re.compile(r"^ [+~-] \S.*$", re.MULTILINE)
LOCK_NAME = "requirements.lock"


class UnusableEnvironmentError(Exception):
    """The environment could not be made; the message says why and what helps."""


def sha256_of(path: str) -> str:
    """Return the SHA-256 of the file at PATH in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def requirements_text(locks: list[str], wheels: list[str]) -> str:
    """Return one lock: the given ones, then each wheel with the hash of the file that lies there."""
    lines = [lock.rstrip("\n") for lock in locks]
    lines += [f"{wheel} --hash=sha256:{sha256_of(wheel)}" for wheel in wheels]
    return "\n".join(lines) + "\n"


class Environment:
    """One virtual environment and the tools that work on it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.python: str = module.params["python"]
        self.uv: str | None = module.params["uv"]
        self.lock_path = os.path.join(self.path, LOCK_NAME)

    def run(self, argv: list[str], hint: str) -> str:
        """Run ARGV and return what it wrote; raise UnusableEnvironmentError with HINT where it fails."""
        code, out, err = self.module.run_command(argv, environ_update={"NO_COLOR": "1", "UV_NO_PROGRESS": "1"})
        if code != 0:
            raise UnusableEnvironmentError(f"{hint} {' '.join(argv[:4])} … said: {(err or out).strip()}")
        return f"{out}\n{err}"

    def python_version(self, python: str) -> str | None:
        """Return "3.11" for that interpreter, or None where it does not run."""
        try:
            code, out, _ = self.module.run_command(
                [python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], handle_exceptions=False
            )
        except OSError:
            return None
        return out.strip() if code == 0 else None

    def is_made(self, version: str) -> bool:
        """Say whether a working environment of that Python version is there."""
        own = os.path.join(self.path, "bin", "python")
        return os.path.isdir(os.path.join(self.path, "lib", f"python{version}")) and os.access(own, os.X_OK)

    def make(self) -> None:
        """Make the environment anew, empty."""
        hint = f"The Python environment {self.path} could not be made with {self.python}."
        if self.uv:
            self.run([self.uv, "venv", "--quiet", "--clear", "--python", self.python, self.path], hint)
            return
        hint += " On Debian and Ubuntu the package python3-venv is needed."
        shutil.rmtree(self.path, ignore_errors=True)
        self.run([self.python, "-m", "venv", self.path], hint)

    def installed_lock(self) -> str | None:
        """Return the lock that the last complete run installed."""
        try:
            with open(self.lock_path, encoding="utf-8") as handle:
                return handle.read()
        except OSError:
            return None

    def remember_lock(self, text: str) -> None:
        """Keep a copy of the lock in the environment, for people and for the next run."""
        with open(f"{self.lock_path}.new", "w", encoding="utf-8") as handle:
            handle.write(text)
        os.replace(f"{self.lock_path}.new", self.lock_path)

    def sync(self, text: str, *, dry: bool) -> list[str]:
        """Install and remove until the lock's packages are there; return what was done, or would be."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as lock:
            lock.write(text)
            lock.flush()
            python = os.path.join(self.path, "bin", "python")
            hint = f"The packages of {self.path} could not be installed; is the package index reachable?"
            if self.uv:
                argv = [self.uv, "pip", "sync", "--python", python, "--require-hashes", lock.name]
                output = self.run([*argv, "--dry-run"] if dry else argv, hint)
                return [line.strip() for line in CHANGE_LINE.findall(output)]
            if self.installed_lock() == text:
                return []
            if not dry:
                pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                self.run([*pip, "--require-hashes", "--requirement", lock.name], hint)
            return ["+ all packages of the lock"]


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Make the environment what it should be and return the module's result."""
    params, dry = module.params, module.check_mode
    environment = Environment(module)
    missing = [wheel for wheel in params["wheels"] if not os.path.exists(wheel)]
    version = environment.python_version(params["python"])
    if version is None:
        raise UnusableEnvironmentError(f"{params['python']} is not a Python that runs; name another.")
    site = os.path.join(params["path"], "lib", f"python{version}", "site-packages")
    if dry and (missing or (params["uv"] and not os.access(params["uv"], os.X_OK))):
        # A first run in check mode: an earlier task would have brought these.
        return {"changed": True, "changes": ["+ all packages of the lock"], "digest": "", "site_packages": site}
    if missing:
        raise UnusableEnvironmentError(f"{missing[0]} is not there; bring the wheel to the host first.")

    text = requirements_text(params["locks"], params["wheels"])
    made = environment.is_made(version)
    changes = [] if made else [f"+ environment of Python {version}"]
    if not made and not dry:
        environment.make()
    if made or not dry:
        # A wheel of our own may change without its version changing: then only the kept lock shows it.
        if params["uv"] and params["wheels"] and made and environment.installed_lock() != text and not dry:
            environment.make()
        changes += environment.sync(text, dry=dry)
        if environment.installed_lock() != text:
            changes = changes or ["~ lock"]
            if not dry:
                environment.remember_lock(text)
    digest = hashlib.sha256(f"{version}\n{text}".encode()).hexdigest()
    return {"changed": bool(changes), "changes": changes, "digest": digest, "site_packages": site}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "python": {"type": "path", "required": True},
            "locks": {"type": "list", "elements": "str", "required": True},
            "wheels": {"type": "list", "elements": "path", "default": []},
            "uv": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        result = ensure(module)
    except UnusableEnvironmentError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The Python environment {module.params['path']} could not be written: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
