"""Bring the schema to what this version of the service needs, one process at a time; or see whether it is there."""

from __future__ import annotations

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
from app.core.errors import DatabaseUnavailable, StartupError

MIGRATIONS = Path(__file__).parent / "migrations"
# pg_advisory_lock takes a number of our own choosing; this one spells "chst".
LOCK = 0x63687374


def upgrade(url: URL, dimension: int) -> list[str]:
    """Run the versions that are missing and return their names, oldest first; none when it is up to date.

    Whoever comes second waits for the first. `dimension` is that of the embeddings, used when the tables are made.
    Raises DatabaseUnavailable.
    """
    with _connection(url) as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        connection.commit()
        before = _applied(connection)
        connection.rollback()
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes.update(connection=connection, dimension=dimension)
        known = _known()
        if before is not None and before not in known:
            return []  # a newer version of the service has been here; the schema is only ever added to
        command.upgrade(config, "head")
        return known[known.index(before) + 1 if before else 0 :]


def check(url: URL, dimension: int) -> None:
    """StartupError unless the schema has what this version needs and embeddings of this dimension.

    Raises DatabaseUnavailable.
    """
    with _connection(url) as connection:
        applied = _applied(connection)
        known = _known()
        if applied is None or (applied in known and applied != known[-1]):
            raise StartupError(
                f"The database's schema is {applied or 'empty'}, this version needs {known[-1]}.",
                hint="Run: app database upgrade",
            )
        stored = _dimension(connection)
        if stored != dimension:
            raise StartupError(
                f"The database keeps embeddings of dimension {stored}, EMBEDDING_DIMENSION is {dimension}.",
                hint=f"Set EMBEDDING_DIMENSION={stored} and a provider that makes such; or, for another model, run: "
                f"app database set-dimension {dimension}",
            )


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


def _dimension(connection: Connection) -> int:
    statement = (
        "SELECT atttypmod FROM pg_attribute "
        "WHERE attrelid = 'memory_logs'::regclass AND attname = 'embedding' AND NOT attisdropped"
    )
    return int(connection.execute(text(statement)).scalar_one())


def _known() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def _applied(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _connection(url: URL) -> Iterator[Connection]:
    engine = create_engine(url, connect_args={"connect_timeout": CONNECT_SECONDS})
    try:
        connection = engine.connect()
    except DBAPIError as error:
        engine.dispose()
        raise DatabaseUnavailable(
            f"PostgreSQL cannot be reached: {str(error.orig).strip().splitlines()[-1][:300]}",
            hint="Check DATABASE_URL and whether it runs.",
        ) from None
    try:
        with connection:
            yield connection
    finally:
        engine.dispose()
