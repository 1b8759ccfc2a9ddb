"""What PostgreSQL says no with, in a line."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

# SQLSTATE classes and codes that say "not now": connection, resources, operator intervention, start-up and shutdown.
_NOT_NOW = ("08", "53", "57P")


def reason(error: DBAPIError) -> str:
    """Its message; without the details after it, which may quote a row."""
    lines = str(_cause(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()[:300].rstrip(".")


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's code for it; empty where the driver alone complains."""
    cause = _cause(error)
    return (cause.sqlstate if isinstance(cause, psycopg.Error) else None) or ""


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the server is not to be had, whatever it is asked."""
    state = sqlstate(error)
    lost = error.connection_invalidated or (not state and isinstance(_cause(error), psycopg.OperationalError))
    return lost or state.startswith(_NOT_NOW)


def _cause(error: DBAPIError) -> BaseException:
    return error.orig if error.orig is not None else error
