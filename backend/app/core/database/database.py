"""The way to PostgreSQL: a bounded pool, a deadline for everything, and a quick no while it is down."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, Token
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr
from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from app.core.database.refusals import is_unavailable, reason, sqlstate
from app.core.errors import (
    DatabaseTooSlow,
    DatabaseUnavailable,
    InvalidSettings,
    Overloaded,
    SchemaUnfit,
    ServiceError,
)
from app.core.silence import Silence

DRIVER = "postgresql+psycopg"
MAX_PASSWORD_FILE_BYTES = 4096
CONNECT_SECONDS = 3
# A server that lives says itself, by its statement_timeout, that the time is up. One that hangs is hung up on then.
GRACE_SECONDS = 1.0
# A process that was stopped, or whose machine was, holds on to what it had locked no longer than this. The longest rest
# between two statements is a batch of the index worker: all its embeddings, and Chroma's answer.
ABANDONED_SECONDS = 900
# After it could not be reached everybody is told at once for this long, instead of queueing up to find out as well.
SILENCE_SECONDS = 1.0
WAITING_PER_CONNECTION = 8
# SQLSTATE codes: cancelled by statement_timeout; no such table, column
_TOO_SLOW = ("57014",)
_UNFIT = ("42P01", "42703")

_finds_out: ContextVar[bool] = ContextVar("finds_out", default=False)


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
    """Connections to PostgreSQL. Nothing is connected before the first use.

    Where it is at fault and not the query, the error is one of DatabaseUnavailable, DatabaseTooSlow, SchemaUnfit and
    Overloaded, and comes after a bounded wait.
    """

    def __init__(
        self, url: URL, pool_size: int, timeout_seconds: float, abandoned_seconds: float = ABANDONED_SECONDS
    ) -> None:
        port = f":{url.port}" if url.port else ""
        self.target = f"PostgreSQL at {url.host}{port}" if url.host else "PostgreSQL at its socket"
        self.url = url
        self._timeout = timeout_seconds
        self._silence = Silence(SILENCE_SECONDS)
        self._most = pool_size * (1 + WAITING_PER_CONNECTION)
        self._inside = 0
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout_seconds,
            # an error that nobody foresaw ends in the log: without what was to be stored
            hide_parameters=True,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "application_name": "chroma-stack",
                "client_encoding": "utf8",  # whatever PGCLIENTENCODING says
                "options": f"-c statement_timeout={round(timeout_seconds * 1000)} -c timezone=UTC "
                f"-c idle_in_transaction_session_timeout={round(abandoned_seconds * 1000)}",
                # a host that vanished is noticed: 5 s idle, then 3 probes, one a second; 8 s where an answer is due
                "keepalives_idle": 5,
                "keepalives_interval": 1,
                "keepalives_count": 3,
                "tcp_user_timeout": 8000,
            },
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_the_dead)
        event.listen(self._engine.sync_engine, "do_connect", self._before_connecting)

    @asynccontextmanager
    async def begin(self, *, bounded: bool = True) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, rolled back when an exception leaves it.

        It is `bounded` to the configured seconds as a whole, or else each statement of it alone is.
        """
        async with (
            self._connected(self._timeout + GRACE_SECONDS if bounded else None) as connection,
            connection.begin(),
        ):
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """Each statement is a transaction: the server ends it, and its locks, whatever becomes of us in between."""
        async with self._connected(self._timeout + GRACE_SECONDS) as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def _connected(self, seconds: float | None) -> AsyncIterator[AsyncConnection]:
        token = self._admit()
        watch = _Watch(seconds)
        unavailable = False
        try:
            async with self._engine.connect() as connection:
                with watch.over(connection):
                    yield connection
        except PoolTimeout:
            unavailable = self._silence.on
            raise Overloaded("All connections to PostgreSQL are in use.", hint="If it lasts, add workers.") from None
        except DatabaseUnavailable:
            unavailable = True
            raise
        except (DBAPIError, psycopg.Error, OSError, TimeoutError) as error:
            translated = self._translate(error, watch.expired)
            if translated is None:
                raise
            unavailable = isinstance(translated, DatabaseUnavailable)
            raise translated from error
        finally:
            self._inside -= 1
            _finds_out.reset(token)
            if unavailable:
                self._silence.begin()
            else:
                self._silence.end()

    def deadline(self) -> asyncio.Timeout:
        """A bound on a part of an unbounded transaction, for a server that hangs: one that is alive is quicker."""
        return asyncio.timeout(2 * self._timeout)

    async def close(self) -> None:
        """End every connection."""
        await self._engine.dispose()

    def _admit(self) -> Token[bool]:
        if self._inside >= self._most:
            raise Overloaded("Too many requests are waiting for PostgreSQL.", hint="If it lasts, add workers.")
        silent = self._silence.on
        if not self._silence.admits():
            raise self._not_asked()
        self._inside += 1
        return _finds_out.set(silent)

    def _before_connecting(self, *_: object) -> None:
        """Who waited for a place while PostgreSQL went away does not wait for a connection as well."""
        if self._silence.on and not _finds_out.get():
            raise self._not_asked()

    def _not_asked(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"{self.target} could not be reached a moment ago.", hint="It is asked again in a second."
        )

    def _translate(self, error: Exception, expired: bool) -> ServiceError | None:
        """The service's error, or None for one that the query is to blame for."""
        if expired or isinstance(error, (OSError, TimeoutError)):
            said = "it did not answer in time" if expired or isinstance(error, TimeoutError) else str(error)
            return DatabaseUnavailable(f"{self.target} cannot be used: {said}.", hint="See whether it runs.")
        state = sqlstate(error)
        if state in _TOO_SLOW:
            return DatabaseTooSlow(
                f"{self.target} did not finish a query within {self._timeout:g} s.",
                hint="See what it is busy with; DATABASE_TIMEOUT_SECONDS is the limit.",
            )
        if state in _UNFIT:
            return SchemaUnfit(
                f"The database's schema is not the one of this version: {reason(error)}.",
                hint="Run: app database upgrade",
            )
        if is_unavailable(error):
            return DatabaseUnavailable(f"{self.target} cannot be used: {reason(error)}.", hint="See whether it runs.")
        return None


class _Watch:
    """Hangs up on a server that let the time go by, so that whoever waits for it is told at once.

    Cancelling the wait would not do: the driver would then ask the same server to cancel, and wait for that.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self.expired = False

    @contextmanager
    def over(self, connection: AsyncConnection) -> Iterator[None]:
        """Watch the connection during the block."""
        if self._seconds is None:
            yield
            return
        descriptor = _descriptor(connection.sync_connection.connection)  # type: ignore[union-attr]
        timer = asyncio.get_running_loop().call_later(self._seconds, self._hang_up, descriptor)
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self, descriptor: int) -> None:
        self.expired = True
        # a second descriptor: the driver closes its own when it has seen the end
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
            line.shutdown(socket.SHUT_RDWR)


def _descriptor(connection: PoolProxiedConnection) -> int:
    driver: Any = connection.driver_connection
    return int(driver.fileno())


def _refuse_the_dead(_connection: object, record: ConnectionPoolEntry, connection: PoolProxiedConnection) -> None:
    """Nobody gets a connection that a restart of the server has ended: then something is to be read from it.

    This takes no round trip, as asking the server would.
    """
    driver: Any = connection.driver_connection
    poll = select.poll()
    if not driver.closed:
        poll.register(driver.fileno(), select.POLLIN)
    if driver.closed or poll.poll(0):
        raise InvalidatePoolError
