"""The way to PostgreSQL: a bounded pool, a deadline for everything, and a quick no while it is down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.errors import DatabaseUnavailable, InvalidSettings, Overloaded

DRIVER = "postgresql+psycopg"
MAX_PASSWORD_FILE_BYTES = 4096
CONNECT_SECONDS = 3
# After it could not be reached everybody is told at once for this long, instead of queueing up to find out as well.
SILENCE_SECONDS = 1.0
# SQLSTATE classes and codes that say "not now": connection, resources, operator intervention, start-up and shutdown.
_NOT_NOW = ("08", "53", "57P")


def database_url(url: SecretStr, password_file: Path | None = None) -> URL:
    """The URL as SQLAlchemy takes it, with the password of the file; InvalidSettings when it is none."""
    try:
        parsed = make_url(url.get_secret_value())
    except ArgumentError:
        raise InvalidSettings("DATABASE_URL is not a URL.", hint="Set postgresql://user@host:port/database.") from None
    if parsed.get_backend_name() != "postgresql":
        raise InvalidSettings(
            f"DATABASE_URL names {parsed.get_backend_name()}; the service keeps its data in PostgreSQL.",
            hint="Set postgresql://user@host:port/database.",
        )
    parsed = parsed.set(drivername=DRIVER)
    if password_file is None:
        return parsed
    try:
        password = password_file.read_text(encoding="utf-8")[:MAX_PASSWORD_FILE_BYTES].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise InvalidSettings(f"DATABASE_PASSWORD_FILE {password_file} cannot be read: {reason}.") from None
    return parsed.set(password=password)


class Database:
    """Connections to PostgreSQL: DatabaseUnavailable or Overloaded where the database is at fault, not the query.

    Nothing is connected before the first use.
    """

    def __init__(self, url: URL, pool_size: int, timeout_seconds: float) -> None:
        port = f":{url.port}" if url.port else ""
        self.target = f"PostgreSQL at {url.host}{port}" if url.host else "PostgreSQL at its socket"
        self.url = url
        self._timeout = timeout_seconds
        self._silent_until = float("-inf")
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout_seconds,
            # one round trip, so that nobody gets a connection that a restart of the server has ended
            pool_pre_ping=True,
            # an error that nobody foresaw ends in the log: without what was to be stored
            hide_parameters=True,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "application_name": "chroma-stack",
                "client_encoding": "utf8",  # whatever PGCLIENTENCODING says
                "options": f"-c statement_timeout={round(timeout_seconds * 1000)} -c timezone=UTC",
                # a host that vanished is noticed: 5 s idle, then 3 probes, one a second; 8 s where an answer is due
                "keepalives_idle": 5,
                "keepalives_interval": 1,
                "keepalives_count": 3,
                "tcp_user_timeout": 8000,
            },
        )

    @asynccontextmanager
    async def begin(self, *, bounded: bool = True) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, rolled back when an exception leaves it.

        It is `bounded` to the configured seconds as a whole, or else each statement of it alone is.
        """
        if time.monotonic() < self._silent_until:
            raise DatabaseUnavailable(
                f"{self.target} could not be reached a moment ago.", hint="It is asked again in a second."
            )
        try:
            async with asyncio.timeout(self._timeout if bounded else None), self._engine.begin() as connection:
                yield connection
        except PoolTimeout:
            raise Overloaded("All connections to PostgreSQL are in use.", hint="If it lasts, add workers.") from None
        except (DBAPIError, psycopg.Error, OSError, TimeoutError) as error:
            if not _is_unavailable(error):
                raise
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            raise DatabaseUnavailable(
                f"{self.target} cannot be used: {_reason(error)}.", hint="See whether it runs."
            ) from error

    def deadline(self) -> asyncio.Timeout:
        """A bound on a part of an unbounded transaction, for a server that hangs: one that is alive is quicker."""
        return asyncio.timeout(2 * self._timeout)

    async def close(self) -> None:
        """End every connection."""
        await self._engine.dispose()


def _is_unavailable(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        error = error.orig or error
    if not isinstance(error, psycopg.Error):
        return isinstance(error, (OSError, TimeoutError))
    state = error.sqlstate
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(_NOT_NOW))


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[-1].strip()[:200].rstrip(".")
