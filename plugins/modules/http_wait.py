#!/usr/bin/python
"""Wait until every one of some addresses answers with 200."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time
from typing import Any
from urllib.parse import SplitResult, urlsplit

# Ansible writes the call's arguments here; file_set.py says why.
ARGUMENTS = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""

DOCUMENTATION = r"""
module: http_wait
short_description: Wait until every one of some addresses answers with 200
description:
  - Asks again five times a second, so that a service that is up costs nothing and one that starts costs no more than
    its start. Fails with what the address said last.
  - No single answer may take longer than 5 s, nor than what is left of the time.
options:
  urls: {description: "The addresses, with http and without a password", type: list, elements: str, required: true}
  seconds: {description: How long all of them may take together, type: int, default: 60}
attributes:
  check_mode: {support: full, details: In check mode nothing is asked; what would be started is not there.}
"""

EXAMPLES = r"""
- name: "service | Wait for the health of the workers, at most 60 s"
  http_wait:
    urls: ["http://127.0.0.1:8001/health"]
"""

PAUSE_SECONDS = 0.2
ANSWER_SECONDS = 5

REQUIRED: Any = object()
# Kind and default of each option.
OPTIONS: dict[str, tuple[type, Any]] = {
    "urls": (list, REQUIRED),
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
    return full


def address(url: object) -> SplitResult:
    """Return the parts of URL; raise ArgumentError where it is none that can be asked."""
    parts = None
    try:
        split = urlsplit(url) if isinstance(url, str) else None
        if split and split.scheme == "http" and split.hostname and split.port != 0:
            parts = split
    except ValueError:
        pass  # no brackets around IPv6, a port that is no number
    if parts is None:
        raise ArgumentError("Each of the urls is like http://host:port/path, without https.")
    if "@" in parts.netloc:
        raise ArgumentError("An address in urls holds a user or a password; they do not belong in it.")
    return parts


def give_up(*_: object) -> None:
    """Break off what is being asked: the handler of SIGALRM."""
    raise TimeoutError("no complete answer in time")


def get(parts: SplitResult) -> str:
    """Return nothing where the address answers with 200, else what it said."""
    connection = http.client.HTTPConnection(parts.netloc)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        text = response.read(500).decode(errors="replace")
    finally:
        connection.close()
    return "" if response.status == http.client.OK else f"{response.status} {text}"


def ask(parts: SplitResult, seconds: float) -> str:
    """Return nothing where the address answers with 200 within SECONDS, else what it did instead."""
    try:
        # A socket's own timeout starts anew with every byte: who sends one a second would never be given up.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return get(parts)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result for these arguments."""
    try:
        options = checked(arguments)
        addresses = [(url, address(url)) for url in options["urls"]]
    except ArgumentError as error:
        return {"failed": True, "msg": str(error)}
    if arguments.get("_ansible_check_mode"):
        return {"changed": False}
    seconds = options["seconds"]
    deadline = time.monotonic() + seconds
    signal.signal(signal.SIGALRM, give_up)
    for url, parts in addresses:
        while said := ask(parts, max(PAUSE_SECONDS, min(ANSWER_SECONDS, deadline - time.monotonic()))):
            if time.monotonic() + PAUSE_SECONDS > deadline:
                return {"failed": True, "msg": f"{url} does not answer with 200 after {seconds} s; it said: {said}"}
            time.sleep(PAUSE_SECONDS)
    return {"changed": False}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(ARGUMENTS))))
