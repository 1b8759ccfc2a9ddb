#!/usr/bin/python
"""Have supervisord run exactly the processes that its configuration names."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from typing import Any
from xml.parsers.expat import ExpatError

# Ansible writes the call's arguments here; file_set.py says why.
ARGUMENTS = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""

DOCUMENTATION = r"""
module: supervisor_processes
short_description: Have supervisord run exactly the processes that its configuration names
description:
  - Starts supervisord where it does not run, so that it outlives this call and has a clean environment.
  - Starts new processes, restarts those whose configuration changed, ends those that are no longer named, and starts
    those that stand still. All of it is a comparison of the running state with the files, so a run that was broken
    off before is made good by the next one.
options:
  program: {description: The supervisord program, type: path, required: true}
  config: {description: Its configuration file, type: path, required: true}
  socket: {description: The Unix socket that the configuration names, type: path, required: true}
  start_timeout: {description: Seconds that supervisord may take to start and to answer, type: int, default: 15}
attributes:
  check_mode: {support: partial, details: Says whether supervisord would be started; not which processes would.}
"""

EXAMPLES = r"""
- name: "service | Apply the configuration"
  supervisor_processes:
    program: /opt/chroma-stack/supervisor/bin/supervisord
    config: /etc/chroma-stack/supervisor/supervisord.conf
    socket: /run/chroma-stack.sock
"""

RETURN = r"""
changes: {description: What was started, restarted and removed, type: list}
"""

# States of supervisor (supervisord.org/subprocess.html) in which a process stands still.
STANDING = {"STOPPED", "EXITED", "FATAL"}
# What processes find in their environment: nothing of the session that happened to start supervisord.
CLEAN_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "TZ": "UTC"}
# Stopping a process waits for its end.
REQUEST_SECONDS = 120

REQUIRED: Any = object()
# Kind and default of each option.
OPTIONS: dict[str, tuple[type, Any]] = {
    "program": (str, REQUIRED),
    "config": (str, REQUIRED),
    "socket": (str, REQUIRED),
    "start_timeout": (int, 15),
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
    if full["start_timeout"] < 1:
        raise ArgumentError("The option start_timeout is at least 1.")
    return full


class SupervisorError(Exception):
    """Supervisord does not do what it should; the message says what and where to look."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which xmlrpc.client has no transport for."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__()
        self._path = path
        self._seconds = seconds

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """Return a connection to the Unix socket, whatever HOST says."""
        return _UnixConnection(self._path, self._seconds)


def interface(path: str, seconds: float) -> Any:
    """Return the interface at the socket, whoever is there; a request may take SECONDS."""
    return xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(path, seconds)).supervisor


def connect(path: str, seconds: float) -> Any | None:
    """Return supervisord's interface at the socket, or None where nobody is.

    Raises SupervisorError where somebody is there and does not answer within SECONDS, or is not supervisord.
    """
    try:
        interface(path, seconds).getState()
    except TimeoutError as error:
        raise SupervisorError(f"Who listens on {path} does not answer within {seconds:.0f} s; see its log") from error
    except (xmlrpc.client.Error, ExpatError) as error:
        raise SupervisorError(f"Who listens on {path} is not supervisord: {error}") from error
    except (OSError, http.client.HTTPException):
        return None
    return interface(path, REQUEST_SECONDS)


def start(program: str, config: str, path: str, seconds: int) -> Any:
    """Start supervisord, wait until it answers and return its interface."""
    deadline = time.monotonic() + seconds
    try:
        done = subprocess.run(  # noqa: S603  (both paths come from the role)
            [program, "--configuration", config],
            env=CLEAN_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise SupervisorError(f"supervisord did not go to the background within {seconds} s; see its log") from error
    if done.returncode != 0:
        raise SupervisorError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")
    while (left := deadline - time.monotonic()) > 0:
        api = connect(path, left)
        if api is not None:
            return api
        time.sleep(0.1)
    raise SupervisorError(f"supervisord started but does not answer on {path} after {seconds} s; see its log")


def apply(api: Any) -> list[str]:
    """Bring the running processes to what the configuration files say; return what was done."""
    try:
        ((added, changed, removed),) = api.reloadConfig()
    except xmlrpc.client.Fault as fault:
        raise SupervisorError(f"supervisord refuses its configuration: {fault.faultString}") from fault
    for name in [*removed, *changed]:
        api.stopProcessGroup(name)
        api.removeProcessGroup(name)
    for name in [*changed, *added]:
        api.addProcessGroup(name)
    done = [f"{word} {name}" for word, names in (("removed", removed), ("restarted", changed)) for name in names]
    done += [f"started {name}" for name in added]
    for process in api.getAllProcessInfo():
        name = process["name"]
        if process["statename"] in STANDING and name not in [*added, *changed]:
            # Whether it stays up is the health wait's question, asked by the role that owns the process.
            api.startProcess(f"{process['group']}:{name}", False)
            done.append(f"started {name}")
    return done


def ensure(arguments: dict[str, Any]) -> list[str]:
    """Have supervisord and its processes run; return what was done, or would be."""
    options = checked(arguments)
    api = connect(options["socket"], options["start_timeout"])
    if arguments.get("_ansible_check_mode"):
        return [] if api is not None else ["started supervisord"]
    if api is not None:
        return apply(api)
    if not os.path.exists(options["config"]):
        raise SupervisorError(f"{options['config']} is not there; run playbooks/site.yml")
    start(options["program"], options["config"], options["socket"], options["start_timeout"])
    return ["started supervisord"]


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result for these arguments."""
    try:
        changes = ensure(arguments)
    except (ArgumentError, SupervisorError) as error:
        return {"failed": True, "msg": str(error)}
    except (OSError, xmlrpc.client.Error) as error:
        return {"failed": True, "msg": f"supervisord did not do what it was asked: {error}"}
    return {"changed": bool(changes), "changes": changes}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(ARGUMENTS))))
