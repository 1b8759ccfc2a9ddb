#!/usr/bin/python
"""Wait until one very process listens on a port, and not another that happened to be there."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Ansible writes the call's arguments here; file_set.py says why.
ARGUMENTS = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""

DOCUMENTATION = r"""
module: process_listening
short_description: Wait until one very process listens on a port
description:
  - An answer on a port does not say whose it is. Where another program held the port, or an old process of the same
    name, everything after would talk to that one, and write to it.
  - The process is known by a variable in its environment, which its children have too.
options:
  port: {description: The TCP port, type: int, required: true}
  mark: {description: What stands in its environment, as NAME=value, type: str, required: true}
  log: {description: The file whose last lines say why it does not start, type: path, required: true}
  seconds: {description: How long it may take, type: int, default: 60}
attributes:
  check_mode: {support: full, details: In check mode nothing is asked; what would be started is not there.}
"""

EXAMPLES = r"""
- name: "service | Wait until the process listens, at most 60 s"
  process_listening:
    port: 8001
    mark: "CHROMA_STACK_PROCESS=api 5d41402a"
    log: /var/log/chroma-stack/api.log
"""

LISTEN = "0A"  # proc(5), /proc/net/tcp
PAUSE_SECONDS = 0.2
LOG_LINES = 5

REQUIRED: Any = object()
# Kind and default of each option.
OPTIONS: dict[str, tuple[type, Any]] = {
    "port": (int, REQUIRED),
    "mark": (str, REQUIRED),
    "log": (str, REQUIRED),
    "seconds": (int, 60),
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
    if not 0 < full["port"] < 65536:
        raise ArgumentError("The option port is a number from 1 to 65535.")
    # The environment of every process ends in an empty entry: an empty mark would be that of all.
    if not re.fullmatch(r"[^=\0]+=[^\0]+", full["mark"], re.DOTALL):
        raise ArgumentError("The option mark is like NAME=value.")
    return full


def listening_sockets(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on PORT, on any address."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue  # a kernel without IPv6
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def open_sockets(process: Path) -> Iterator[str]:
    """Yield the inodes of the sockets that PROCESS (a folder of /proc) has open, as far as they may be seen."""
    try:
        handles = os.listdir(process / "fd")
    except OSError:
        return  # it ended, or belongs to somebody else
    for handle in handles:
        try:
            target = os.readlink(process / "fd" / handle)
        except OSError:
            continue  # closed since; the next may be the one that is looked for
        if target.startswith("socket:["):
            yield target[8:-1]


def is_marked(process: Path, mark: bytes) -> bool:
    """Say whether MARK stands in the environment of PROCESS."""
    try:
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def name_of(process: Path) -> str:
    """Return the name of PROCESS, as far as there is one left."""
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "ended"


def strangers(port: int, mark: str) -> list[str] | None:
    """Return who else listens on PORT, or None where nobody does."""
    wanted = listening_sockets(port)
    if not wanted:
        return None
    seen: set[str] = set()
    others = []
    for process in Path("/proc").glob("[0-9]*"):
        held = wanted.intersection(open_sockets(process))
        if held and is_marked(process, os.fsencode(mark)):
            seen |= held
        elif held:
            others.append(f"process {process.name} ({name_of(process)})")
    return [] if seen == wanted else others or ["a process of another user"]


def last_lines(log: str) -> str:
    """Return the end of the file LOG."""
    try:
        with open(log, encoding="utf-8", errors="replace") as lines:
            return "".join(deque(lines, LOG_LINES)).strip()
    except OSError as error:
        return str(error)


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result for these arguments."""
    try:
        options = checked(arguments)
    except ArgumentError as error:
        return {"failed": True, "msg": str(error)}
    if arguments.get("_ansible_check_mode"):
        return {"changed": False}
    port, seconds = options["port"], options["seconds"]
    deadline = time.monotonic() + seconds
    while (others := strangers(port, options["mark"])) != []:
        if time.monotonic() > deadline:
            said = f"{options['log']} ends with: {last_lines(options['log'])}"
            if others is None:
                return {"failed": True, "msg": f"Nothing listens on port {port} after {seconds} s; {said}"}
            who = ", ".join(others)
            return {
                "failed": True,
                "msg": f"Port {port} is held by {who}, which is not this stack's. End it (another stack: make stop), "
                f"or set another port in the inventory. {said}",
            }
        time.sleep(PAUSE_SECONDS)
    return {"changed": False}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(ARGUMENTS))))
