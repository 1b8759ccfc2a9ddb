#!/usr/bin/python
"""Make a virtual environment hold exactly what a hash-pinned lock names."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

# Ansible writes the call's arguments here; file_set.py says why.
ARGUMENTS = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""

DOCUMENTATION = r"""
module: python_environment
short_description: Make a virtual environment hold exactly what a hash-pinned lock names
description:
  - Packages that are missing are installed, others removed, none without a matching hash.
  - Without uv an environment whose lock changed is made anew: pip alone would leave what the lock no longer names.
  - A folder at that path which holds something else than an environment is refused, not emptied.
  - The environment keeps the lock and the list of what lay in it afterwards. Where both still fit nothing is run;
    a package that somebody added, removed or replaced by hand is put right.
options:
  path: {description: The folder of the environment, type: path, required: true}
  python: {description: The interpreter it is made with, type: path, required: true}
  versions: {description: The Python versions that will do; none for any, type: list, elements: str, default: []}
  locks: {description: The texts of the lock files, type: list, elements: str, required: true}
  wheel: {description: File name of a wheel that belongs in it too, type: str}
  wheel_content: {description: The wheel itself, in base64, type: str}
  wheel_folder: {description: Where the wheel is kept on the host, type: path}
  uv: {description: The uv program; without it python -m venv and pip do the work, type: path}
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
ALL_PACKAGES = "+ all packages of the lock"
# What a run that was broken off may have left; a folder that holds anything else is somebody's.
OWN_NAMES = {
    *("bin", "include", "lib", "lib64", "share", "pyvenv.cfg", "CACHEDIR.TAG", ".gitignore", ".lock"),
    *("requirements.txt", "installed.json", "installed.json.new"),
}

REQUIRED: Any = object()
# Kind and default of each option.
OPTIONS: dict[str, tuple[type, Any]] = {
    "path": (str, REQUIRED),
    "python": (str, REQUIRED),
    "versions": (list, []),
    "locks": (list, REQUIRED),
    "wheel": (str, ""),
    "wheel_content": (str, ""),
    "wheel_folder": (str, ""),
    "uv": (str, ""),
}


class ArgumentError(Exception):
    """The call's arguments are not what the module takes; the message says which. It repeats no value."""


def checked(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the options among ARGUMENTS, complete; raise ArgumentError where they are not what DOCUMENTATION says."""
    given = {name: value for name, value in arguments.items() if not name.startswith("_ansible_")}
    if unknown := sorted(given.keys() - OPTIONS.keys()):
        raise ArgumentError(f"There is no option {', '.join(unknown)}; the options are {', '.join(OPTIONS)}.")
    full: dict[str, Any] = {}
    for name, (kind, default) in OPTIONS.items():
        value = given.get(name)
        if kind is int and isinstance(value, str) and value.isdecimal():
            value = int(value)  # as name=value on a command line gives it
        if value is None and default is REQUIRED:
            raise ArgumentError(f"The option {name} is needed.")
        if value is not None and type(value) is not kind:
            raise ArgumentError(f"The option {name} is of type {kind.__name__}, not {type(value).__name__}.")
        full[name] = default if value is None else value
    if not os.path.isabs(full["path"]):
        raise ArgumentError("The option path is an absolute path.")
    for name in ("versions", "locks"):
        if not all(isinstance(item, str) for item in full[name]):
            raise ArgumentError(f"The option {name} is a list of texts; put a version in quotes.")
    if full["wheel"] and not (full["wheel_content"] and full["wheel_folder"]):
        raise ArgumentError("The option wheel needs wheel_content and wheel_folder too.")
    if os.path.basename(full["wheel"]) != full["wheel"]:
        raise ArgumentError("The option wheel is a file name without a folder.")
    return full


class UnusableEnvironmentError(Exception):
    """The environment could not be made; the message says why and what helps."""


def run_program(argv: list[str], hint: str) -> str:
    """Run ARGV and return what it wrote; raise UnusableEnvironmentError with HINT where it fails."""
    quiet = os.environ | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(  # noqa: S603  (programs that the role names; there is no shell)
            argv,
            env=quiet,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise UnusableEnvironmentError(f"{hint} {error}") from error
    if done.returncode != 0:
        raise UnusableEnvironmentError(f"{hint} {' '.join(argv[:4])} … said: {(done.stderr or done.stdout).strip()}")
    return f"{done.stdout}\n{done.stderr}"


@dataclass(frozen=True)
class Environment:
    """One virtual environment: where it is and what made it."""

    path: str
    python: str
    version: str
    uv: str | None

    @property
    def own_python(self) -> str:
        """The interpreter in the environment."""
        return os.path.join(self.path, "bin", "python")

    @property
    def site_packages(self) -> str:
        """The folder that its packages lie in."""
        return os.path.join(self.path, "lib", f"python{self.version}", "site-packages")

    @property
    def record_path(self) -> str:
        """The file that says which lock was installed and what lay there afterwards."""
        return os.path.join(self.path, "installed.json")

    def is_made(self) -> bool:
        """Say whether a working environment of this Python version is there."""
        return os.path.isdir(self.site_packages) and os.access(self.own_python, os.X_OK)

    def foreign(self) -> list[str]:
        """Return what lies in the folder and is no environment's; making one would delete it."""
        if not os.path.lexists(self.path) or os.path.isfile(os.path.join(self.path, "pyvenv.cfg")):
            return []
        return sorted(set(os.listdir(self.path)) - OWN_NAMES)

    def packages(self) -> list[str]:
        """Return name and version of each package that lies in it."""
        return sorted(name for name in os.listdir(self.site_packages) if name.endswith(".dist-info"))

    def record(self) -> dict[str, Any]:
        """Return what the last complete run left, or nothing."""
        try:
            with open(self.record_path, encoding="utf-8") as handle:
                content = json.load(handle)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def remember(self, digest: str) -> None:
        """Keep what this run installed, for people and for the next run."""
        with open(f"{self.record_path}.new", "w", encoding="utf-8") as handle:
            json.dump({"digest": digest, "packages": self.packages()}, handle, indent=1)
        os.replace(f"{self.record_path}.new", self.record_path)

    def make(self) -> None:
        """Make the environment anew, empty."""
        hint = f"The Python environment {self.path} could not be made with {self.python}."
        shutil.rmtree(self.path, ignore_errors=True)  # uv clears no half of an environment
        if self.uv:
            run_program([self.uv, "venv", "--quiet", "--clear", "--python", self.python, self.path], hint)
            return
        hint += " On Debian and Ubuntu the package python3-venv is needed."
        run_program([self.python, "-m", "venv", self.path], hint)

    def sync(self, lock_path: str) -> list[str]:
        """Install and remove until the lock's packages are there; return what was done."""
        hint = f"The packages of {self.path} could not be installed; is the package index reachable?"
        if self.uv:
            argv = [self.uv, "pip", "sync", "--python", self.own_python, "--require-hashes", lock_path]
            return [line.strip() for line in CHANGE_LINE.findall(run_program(argv, hint))]
        pip = [self.own_python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run_program([*pip, "--require-hashes", "--requirement", lock_path], hint)
        return [ALL_PACKAGES]


@dataclass(frozen=True)
class Wanted:
    """What an environment should hold."""

    locks: list[str]
    wheel_path: str = ""
    wheel: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """One lock: the given ones, then the wheel with its hash."""
        lines = [lock.rstrip("\n") for lock in self.locks]
        if self.wheel_path:
            lines.append(f"{self.wheel_path} --hash=sha256:{hashlib.sha256(self.wheel).hexdigest()}")
        return "\n".join(lines) + "\n"

    def bring(self, environment: Environment) -> str:
        """Write wheel and lock to the host; return the lock's path."""
        if self.wheel_path:
            os.makedirs(os.path.dirname(self.wheel_path), mode=0o755, exist_ok=True)
            with open(f"{self.wheel_path}.new", "wb") as handle:
                handle.write(self.wheel)
            os.replace(f"{self.wheel_path}.new", self.wheel_path)
        lock_path = os.path.join(environment.path, "requirements.txt")
        with open(lock_path, "w", encoding="utf-8") as handle:
            handle.write(self.text)
        return lock_path


def python_version(python: str, versions: list[str]) -> str:
    """Return "3.11" for that interpreter; raise UnusableEnvironmentError where it is none or not in VERSIONS."""
    named = re.search(r"/python(3\.\d+)$", os.path.realpath(python))
    if named and os.access(python, os.X_OK):
        version = named.group(1)
    else:
        # Also a name such as python3.12 may be a shim that leads nowhere: only running it tells.
        argv = [python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        version = run_program(argv, f"{python} is not a Python that runs; name another.").strip()
    if versions and version not in versions:
        raise UnusableEnvironmentError(
            f"{python} is Python {version}; needed is {' or '.join(versions)}. Name another."
        )
    return version


def ensure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Make the environment what it should be and return the module's result."""
    options = checked(arguments)
    wanted = Wanted(options["locks"])
    if options["wheel"]:
        try:
            # base64(1) breaks its lines.
            wheel = base64.b64decode("".join(options["wheel_content"].split()), validate=True)
        except ValueError as error:
            raise ArgumentError("The option wheel_content is not base64.") from error
        wanted = Wanted(options["locks"], os.path.join(options["wheel_folder"], options["wheel"]), wheel)
    version = python_version(options["python"], options["versions"])
    environment = Environment(options["path"], options["python"], version, options["uv"] or None)
    digest = hashlib.sha256(f"{version}\n{wanted.text}".encode()).hexdigest()
    result = {"changed": False, "changes": [], "digest": digest, "site_packages": environment.site_packages}

    record = environment.record()
    made = environment.is_made()
    if made and record == {"digest": digest, "packages": environment.packages()}:
        return result
    if foreign := environment.foreign():
        raise UnusableEnvironmentError(
            f"{environment.path} is no Python environment and holds {', '.join(foreign[:5])}; "
            "move it away, or name another folder."
        )
    if arguments.get("_ansible_check_mode"):
        return result | {"changed": True, "changes": [ALL_PACKAGES]}
    # A wheel of our own changes without its version changing: uv would take the one that lies there for the same.
    # Pip alone takes nothing away, and a package of the right name may have been changed inside.
    if not made or not environment.uv or (wanted.wheel_path and record.get("digest") != digest):
        environment.make()
    changes = environment.sync(wanted.bring(environment))
    environment.remember(digest)
    return result | {"changed": True, "changes": changes or ["~ record of what is installed"]}


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result for these arguments."""
    try:
        return ensure(arguments)
    except (ArgumentError, UnusableEnvironmentError) as error:
        return {"failed": True, "msg": str(error)}
    except (OSError, ValueError) as error:
        return {"failed": True, "msg": f"The Python environment {arguments['path']} could not be written: {error}"}


if __name__ == "__main__":
    os.umask(0o022)  # the users of the services read what a hardened root's umask would hide
    sys.stdout.write(json.dumps(run(json.loads(ARGUMENTS))))
