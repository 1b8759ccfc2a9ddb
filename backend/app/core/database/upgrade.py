"""Bring the schema to what this version of the service needs, one process at a time; or see whether it is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from app.core.database.database import CONNECT_SECONDS
from app.core.database.refusals import is_unavailable, reason, sqlstate
from app.core.errors import DatabaseUnavailable, StartupError

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
# pg_advisory_lock takes a number of our own choosing; this one spells "chst".
LOCK = 0x63687374
# How long to wait for another upgrade, and for a table that somebody uses: meanwhile others wait behind us.
WAIT_SECONDS = 300
LOCK_SECONDS = 10

_LOCK_NOT_AVAILABLE = "55P03"
_DIMENSION = text(
    "SELECT atttypmod FROM pg_attribute "
    "WHERE attrelid = to_regclass('memory_logs') AND attname = 'embedding' AND NOT attisdropped"
)


def upgrade(url: URL, dimension: int) -> list[str]:
    """Run the versions that are missing and return their names, oldest first; none when it is up to date.

    Whoever comes second waits for the first. `dimension` is that of the embeddings, used when the tables are made.
    Raises DatabaseUnavailable; StartupError where PostgreSQL does not let us.
    """
    with _connection(url) as connection:
        _refuse_unsuitable(connection)
        _wait_for_others(connection)
        todo = _missing(connection)
        connection.rollback()
        if todo:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes.update(connection=connection, dimension=dimension)
            command.upgrade(config, "head")
        return todo


def missing(url: URL) -> list[str]:
    """The names of the versions that `upgrade` would run now, oldest first. Raises DatabaseUnavailable."""
    with _connection(url) as connection:
        return _missing(connection)


def check(url: URL, dimension: int | None) -> str:
    """The schema's version. StartupError unless it has what we need, and embeddings of this dimension if one is given.

    Raises DatabaseUnavailable.
    """
    with _connection(url) as connection:
        _refuse_unsuitable(connection)
        applied = _applied(connection)
        known = _known()
        if applied is None or (applied in known and applied != known[-1]):
            raise StartupError(
                f"The database's schema is {applied or 'empty'}, this version needs {known[-1]}.",
                hint="Run: app database upgrade",
            )
        stored = _dimension(connection)
        if stored is None:
            raise StartupError("The database's schema has lost the table memory_logs.", hint="Restore a backup.")
        if dimension is not None and stored != dimension:
            raise StartupError(
                f"The database keeps embeddings of dimension {stored}, EMBEDDING_DIMENSION is {dimension}.",
                hint=f"Set EMBEDDING_DIMENSION={stored} and a provider that makes such; or, for another model, run: "
                f"app database set-dimension {dimension}",
            )
        return applied


def _refuse_unsuitable(connection: Connection) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise StartupError(
            f"The database's encoding is {encoding}; only UTF8 holds every text.",
            hint="Make one: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    connection.rollback()


def _wait_for_others(connection: Connection) -> None:
    """Take the lock of upgrades, which goes with the connection."""
    lock = {"lock": LOCK}
    if not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), lock).scalar_one():
        log.info("another upgrade is running; waiting for it, at most %d s", WAIT_SECONDS)
        connection.execute(text(f"SET lock_timeout = '{WAIT_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), lock)
    connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
    connection.commit()


def _missing(connection: Connection) -> list[str]:
    before = _applied(connection)
    known = _known()
    if before is not None and before not in known:
        return []  # a newer version of the service has been here; the schema is only ever added to
    return known[known.index(before) + 1 if before else 0 :]


def set_dimension(url: URL, dimension: int) -> bool:
    """Have the database keep embeddings of this dimension. Those of another one go; False when there was nothing to do.

    Nobody can read or write the table meanwhile: it is written anew, without embeddings. Raises DatabaseUnavailable.
    """
    with _connection(url) as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        if _dimension(connection) == dimension:
            return False
        # as a change of types, because an UPDATE would be as many events and dead rows as there are records
        connection.execute(
            text(
                f"ALTER TABLE memory_logs ALTER COLUMN embedding TYPE vector({dimension:d}) USING NULL, "
                "ALTER COLUMN embedding_model TYPE text USING NULL"
            )
        )
        return True


def _dimension(connection: Connection) -> int | None:
    """Of the embeddings; None where the table is gone."""
    return connection.execute(_DIMENSION).scalar_one_or_none()


def _known() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def _applied(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _connection(url: URL) -> Iterator[Connection]:
    """A connection of its own; what PostgreSQL says no to becomes a line."""
    engine = create_engine(url, connect_args={"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8"})
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        if is_unavailable(error):
            raise DatabaseUnavailable(
                f"PostgreSQL cannot be reached: {reason(error)}.", hint="Check DATABASE_URL and whether it runs."
            ) from None
        raise StartupError(f"PostgreSQL says: {reason(error)}.", hint=_hint(error)) from None
    finally:
        engine.dispose()


def _hint(error: DBAPIError) -> str:
    if sqlstate(error) == _LOCK_NOT_AVAILABLE:
        return "Somebody keeps the table, or another upgrade is not getting on; nothing was changed. Try again."
    if "vector" in str(error.orig):
        return "Install pgvector for this server, and have a superuser run: CREATE EXTENSION vector"
    return "Its log may say more; each step of an upgrade is done wholly or not at all."
