"""A connection to PostgreSQL for a command that works through everything: no pool, no deadline, no event loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL

from app.core.database.database import CONNECT_SECONDS
from app.core.errors import DatabaseUnavailable, StartupError

Connection = psycopg.Connection[tuple[Any, ...]]


@contextmanager
def connected(url: URL, name: str) -> Iterator[Connection]:
    """A connection that commits by itself, in UTC. Raises DatabaseUnavailable."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with explained():
        connection = psycopg.connect(
            dsn,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name=f"chroma-stack {name}",
            options="-c timezone=UTC",
            # a host that vanished is noticed: 5 s idle, then 3 probes, one a second
            keepalives_idle=5,
            keepalives_interval=1,
            keepalives_count=3,
        )
    with connection:
        yield connection


@contextmanager
def explained() -> Iterator[None]:
    """Turn psycopg's errors into the service's."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise StartupError(
            f"PostgreSQL does not allow it: {_short(error)}.",
            hint="The user of DATABASE_URL needs TEMPORARY on the database, and SELECT and UPDATE on its tables.",
        ) from error
    except psycopg.Error as error:
        raise DatabaseUnavailable(
            f"PostgreSQL cannot be used: {_short(error)}.", hint="See whether it runs."
        ) from error


def _short(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200].rstrip(".")
