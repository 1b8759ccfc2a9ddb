#!/usr/bin/python
"""Wait until one very process listens on a port, and not another that happened to be there."""

from __future__ import annotations

import json
import os
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
        for handle in (process / "fd").iterdir():
            target = os.readlink(handle)
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return  # it ended, or belongs to somebody else


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
        if held and is_marked(process, mark.encode()):
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
    if arguments["_ansible_check_mode"]:
        return {"changed": False}
    port, seconds = int(arguments["port"]), arguments.get("seconds", 60)
    deadline = time.monotonic() + seconds
    while (others := strangers(port, arguments["mark"])) != []:
        if time.monotonic() > deadline:
            said = f"{arguments['log']} ends with: {last_lines(arguments['log'])}"
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
