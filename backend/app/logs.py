"""Log lines on stderr: JSON for machines, or text for people, one line each; and the request that a line is about.

No line quotes what was remembered, searched for, or is secret, and none names a tenant: it has the hash that is in the
names of the tenant's collections. Exceptions are therefore shown by their type and place
without their message, which may quote anything; what operators need to know is said in a message of our own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from app.core.memory.tenant import without_names

Format = Literal["auto", "json", "text"]

MAX_FRAMES = 30
MAX_MESSAGE = 4000
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.asgi")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# What would end a line, or turn a terminal's colours.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def request_id() -> str | None:
    """The id of the request that is being served, if one is."""
    return _request_id.get()


def in_request(id_: str) -> None:
    """From here on this task, and the threads it sends work to, serve the request of this id."""
    _request_id.set(id_)


def configure(level: str, form: Format) -> None:
    """Have log lines on stderr: our own from this level up, those of libraries from WARNING up, whatever the level is.

    Libraries would log queries, headers and documents. uvicorn's lines take our form; it logs no access lines: ours
    do that (`app.access`).
    """
    _handler.setFormatter(_formatter(form))
    root = logging.getLogger()
    if _handler not in root.handlers:
        root.addHandler(_handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("app").setLevel(level)
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


def lines() -> logging.Formatter:
    """The form that LOG_FORMAT of the environment names, for a process of which the settings are not read.

    That is the parent of uvicorn's workers, by `--log-config uvicorn-logs.json`.
    """
    return _formatter(os.environ.get("LOG_FORMAT", "auto"))


def _formatter(form: str) -> logging.Formatter:
    text = form == "text" or (form != "json" and sys.stderr.isatty())
    return TextLines() if text else JsonLines()


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever stderr is at that moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """It is always stderr."""


class JsonLines(logging.Formatter):
    """{"time", "level", "logger", "message", "request_id"?, fields of the line…, "exception"?}."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object, ASCII, without line breaks."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if (id_ := request_id()) is not None:
            line["request_id"] = id_
        line |= _fields(record)
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = list(shown(record.exc_info[1]))
        return json.dumps(line, default=str, separators=(",", ":"))


class TextLines(logging.Formatter):
    """Time, level, logger, [request], message, fields; exceptions as indented lines below."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more where there is an exception."""
        id_ = request_id()
        words = [_time(record), f"{record.levelname:<7}", f"{record.name}:", *([f"[{id_}]"] if id_ else [])]
        words.append(_CONTROL.sub(lambda found: repr(found[0])[1:-1], _message(record)))
        words += [f"{name}={value}" for name, value in _fields(record).items()]
        lines = [" ".join(words)]
        if record.exc_info and record.exc_info[1] is not None:
            lines += [f"    {line}" for line in shown(record.exc_info[1])]
        return "\n".join(lines)


def shown(error: BaseException) -> Iterator[str]:
    """What is told of an exception: its type, where it came from, and the same of its causes. Never what it says."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind = type(current)
        yield f"{kind.__module__}.{kind.__qualname__}"
        yield from list(_places(current.__traceback__))[-MAX_FRAMES:]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _places(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"at {_short(code.co_filename)}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next


def _short(path: str) -> str:
    for root in ("site-packages/", "backend/"):
        path = path.rpartition(root)[2]
    return path


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if record.name == "asyncio":  # its further lines show the exception of a task, with all that it says
        message = message.partition("\n")[0]
    return without_names(message[:MAX_MESSAGE])


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """What the line was given as extra={"fields": {…}}."""
    fields: Mapping[str, Any] = record.__dict__.get("fields", {})
    return fields


_handler = _Stderr()
