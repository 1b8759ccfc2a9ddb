"""What PostgreSQL says no with, in a line."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

# SQLSTATE classes and codes that say "not now": connection, resources, operator intervention, start-up and shutdown;
# and of a server that only reads, as the old one does after a failover.
_NOT_NOW = ("08", "53", "57P", "25006")
# What psycopg puts before libpq's words, which say it all.
_PREFIXES = ("connection failed: ", "connection is bad: ")


def reason(error: BaseException) -> str:
    """Its message; without the details after it, which may quote a row."""
    lines = str(_cause(error)).strip().splitlines() or [type(error).__name__]
    said = lines[0].strip()
    for words in _PREFIXES:
        said = said.removeprefix(words)
    return said[:300].rstrip(".")


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's code for it; empty where the driver alone complains."""
    cause = _cause(error)
    return (cause.sqlstate if isinstance(cause, psycopg.Error) else None) or ""


def is_unavailable(error: BaseException) -> bool:
    """Whether the server is not to be had, whatever it is asked."""
    state = sqlstate(error)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    lost = lost or (not state and isinstance(_cause(error), psycopg.OperationalError))
    return lost or state.startswith(_NOT_NOW)


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
