"""The audit log: who did what to which database, and how it ended. A JSON object a line, only ever appended."""

from __future__ import annotations

import logging
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from chromactl import files, interrupt
from chromactl.errors import ChromactlError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Deed:
    """What the command knows when it is over: its run, what it came to, and whether anything was changed."""

    run: str | None = None
    outcome: str = ""
    changed: bool = False


@contextmanager
def audited(path: Path | None, command: str, target: str) -> Iterator[Deed]:
    """Write that the command begins, and, whatever ends it but a kill, how it ended. None: nothing is written.

    Raises:
        PreconditionError: the log cannot be written; nothing was begun.
    """
    deed = Deed()
    if path is None:
        yield deed
        return
    about = _about(command, target)
    files.make_folder(path.parent)
    _append(path, {**about, "outcome": "begun"})
    try:
        yield deed
    except BaseException as error:
        ended = {
            "run": deed.run,
            "outcome": _outcome(error),
            "changed": deed.changed,
            "error": " ".join(str(error).split()),
        }
        with _only_logged():
            _append(path, {**about, **ended})
        raise
    with _only_logged():
        _append(path, {**about, "run": deed.run, "outcome": deed.outcome, "changed": deed.changed})


def note(path: Path, command: str, target: str, deed: Deed) -> None:
    """Write one line of what something other than chromactl did, a playbook say.

    Raises:
        PreconditionError: the log cannot be written.
    """
    files.make_folder(path.parent)
    _append(path, {**_about(command, target), "run": deed.run, "outcome": deed.outcome, "changed": deed.changed})


def _about(command: str, target: str) -> dict[str, Any]:
    return {"who": _who(), "host": socket.gethostname(), "pid": os.getpid(), "command": command, "target": target}


def _who() -> str:
    """The user, and who became that user by sudo."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    before = os.environ.get("SUDO_USER", name)
    return name if before == name else f"{before} as {name}"


def _outcome(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, interrupt.TerminatedError):
        return "terminated"
    code = error.exit_code if isinstance(error, ChromactlError) else 1
    return f"failed ({code})"


def _append(path: Path, entry: dict[str, Any]) -> None:
    line = orjson.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + b"\n"
    with files.explained(path):
        # One write to a file opened for appending: lines of several processes never mix.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _only_logged() -> Iterator[None]:
    """What was done is done: that it cannot be written down must not make it look undone."""
    try:
        yield
    except ChromactlError as error:
        log.warning("the audit log lacks the end of this command: %s", error)
