"""The schema: made once however many want it, never taken back, and what the code thinks that it is."""

from __future__ import annotations

import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Column, create_engine, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from app.core.database.database import database_url as parsed
from app.core.database.schema import metadata
from app.core.database.upgrade import LOCK, MIGRATIONS, check, upgrade
from app.core.errors import DatabaseUnavailable, StartupError
from support.app_command import App, app_in
from support.postgres import Postgres
from support.service import DIMENSION, run_app

ALL = sorted(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


@pytest.fixture
def app(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    """The command line on a new database without tables."""
    variables = {"DATABASE_URL": database_url, "EMBEDDING_DIMENSION": str(DIMENSION)}
    return app_in(tmp_path, variables, monkeypatch, capfd)


def make(url: str, dimension: int = DIMENSION) -> list[str]:
    return upgrade(parsed(SecretStr(url)), dimension)


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        return {name for (name,) in rows}


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_the_first_run_makes_it_and_the_second_changes_nothing(app: App) -> None:
    before = app("database", "check")
    assert before.code == 3
    assert "schema is empty" in before.complaint
    assert "app database upgrade" in before.complaint
    made = app("database", "upgrade", "--json")
    assert (made.code, made.json) == (0, {"changed": True, "upgraded": ALL, "version": ALL[-1]})
    again = app("database", "upgrade", "--json")
    assert (again.code, again.json) == (0, {"changed": False, "upgraded": [], "version": ALL[-1]})
    assert app("database", "upgrade").out == f"up to date ({ALL[-1]})\n"
    looked = app("database", "check", "--json")
    assert (looked.code, looked.json) == (0, {"changed": False, "version": ALL[-1]})


def test_of_four_at_once_one_makes_it(database_url: str, tmp_path: Path) -> None:
    variables = {"DATABASE_URL": database_url}
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: run_app(tmp_path, variables, "database", "upgrade", "--json"), range(4)))
    assert [one.returncode for one in ended] == [0] * 4, [one.stderr for one in ended]
    assert sorted(json.loads(one.stdout)["changed"] for one in ended) == [False, False, False, True]
    assert tables(database_url) == {*metadata.tables, "alembic_version"}


def test_who_comes_second_waits_and_says_so(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    waits = threading.Event()

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "another upgrade is running" in record.getMessage():
                waits.set()

    caplog.set_level(logging.INFO, "app")
    logger, tell = logging.getLogger("app"), Tell()
    logger.addHandler(tell)
    try:
        with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
            other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            second = pool.submit(make, database_url)
            assert waits.wait(30)
            assert tables(database_url) == set()
            other.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
            other.commit()
            assert second.result(30) == ALL
    finally:
        logger.removeHandler(tell)


def test_it_does_not_wait_for_ever(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.database.upgrade.WAIT_SECONDS", 1)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        with pytest.raises(StartupError, match="another upgrade is not getting on"):
            make(database_url)


def test_a_newer_schema_is_taken_as_it_is(database_url: str, app: App) -> None:
    make(database_url)
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    execute(database_url, "ALTER TABLE memory_logs ADD COLUMN of_the_future text")
    assert app("database", "upgrade", "--json").json == {"changed": False, "upgraded": [], "version": "9999"}
    assert app("database", "check").code == 0


def test_another_dimension_is_told(database_url: str, app: App) -> None:
    make(database_url, DIMENSION + 1)
    for command in ("check", "upgrade"):
        ended = app("database", command)
        assert ended.code == 3
        assert f"dimension {DIMENSION + 1}, EMBEDDING_DIMENSION is {DIMENSION}" in ended.complaint


def test_tables_that_are_gone_are_told(database_url: str, app: App) -> None:
    make(database_url)
    execute(database_url, "DROP TABLE memory_logs CASCADE")
    ended = app("database", "check")
    assert ended.code == 3
    assert "has lost the table memory_logs" in ended.complaint


def test_nobody_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql://ann:s3cret@127.0.0.1:{port}/x"
    app = app_in(tmp_path, {"DATABASE_URL": url}, monkeypatch, capfd)
    for command in (("database", "upgrade"), ("database", "check"), ("keys", "list")):
        ended = app(*command)
        assert ended.code == 1
        assert "Connection refused" in ended.complaint
        assert "Check DATABASE_URL" in ended.complaint
        assert "s3cret" not in ended.complaint


def test_a_database_that_cannot_hold_every_text_is_refused(postgres: Postgres, database_url: str) -> None:
    name = f"{database_url.rpartition('/')[2]}_ascii"
    locale = "LOCALE_PROVIDER 'libc' LC_COLLATE 'C' LC_CTYPE 'C'"
    execute(postgres.url(), f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' {locale} TEMPLATE template0")
    for attempt in (lambda url: make(url), lambda url: check(parsed(SecretStr(url)), DIMENSION)):
        with pytest.raises(StartupError, match="SQL_ASCII; only UTF8"):
            attempt(postgres.url(name))
    assert tables(postgres.url(name)) == set()


def test_what_postgresql_does_not_allow_is_told_and_leaves_nothing_half_done(database_url: str) -> None:
    name = database_url.rpartition("/")[2]
    execute(database_url, "CREATE EXTENSION vector")
    execute(database_url, f"CREATE ROLE weak_{name} LOGIN")
    weak = database_url.replace("postgres@", f"weak_{name}@")
    with pytest.raises(StartupError, match="permission denied for schema public") as caught:
        make(weak)
    assert "\n" not in str(caught.value)
    # as the owner of the schema it needs no more than that, once the extension is there
    execute(database_url, f"ALTER SCHEMA public OWNER TO weak_{name}")
    assert make(weak) == ALL


def test_without_pgvector_it_says_what_to_install(database_url: str) -> None:
    name = database_url.rpartition("/")[2]
    execute(database_url, f"CREATE ROLE weak_{name} LOGIN")
    execute(database_url, f"ALTER SCHEMA public OWNER TO weak_{name}")
    with pytest.raises(StartupError, match="CREATE EXTENSION vector"):
        make(database_url.replace("postgres@", f"weak_{name}@"))
    assert tables(database_url) <= {"alembic_version"}


def test_a_wrong_password_is_told_without_it(postgres: Postgres) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist") as caught:
        make(f"postgresql://nobody:s3cret@{postgres.host_and_port}/postgres")
    assert "s3cret" not in str(caught.value)


def test_the_code_and_the_migrations_agree(database_url: str) -> None:
    make(database_url)
    engine = create_engine(parsed(SecretStr(database_url)))
    try:
        found = inspect(engine)
        assert set(found.get_table_names()) - {"alembic_version"} == set(metadata.tables)
        for name, table in metadata.tables.items():
            reflected = found.get_columns(name)
            assert [one["name"] for one in reflected] == [column.name for column in table.columns], name
            for column, one in zip(table.columns, reflected, strict=True):
                assert _type(one["type"]) == _wanted(column), f"{name}.{column.name}"
                assert one["nullable"] == column.nullable, f"{name}.{column.name}"
                if column.identity is not None:
                    assert one["identity"]["always"] == column.identity.always, f"{name}.{column.name}"
            key = [column.name for column in table.primary_key.columns]
            assert found.get_pk_constraint(name)["constrained_columns"] == key, name
    finally:
        engine.dispose()


def _type(kind: TypeEngine[object]) -> str:
    return kind.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]


def _wanted(column: Column[object]) -> str:
    made = _type(column.type)
    return f"VECTOR({DIMENSION})" if made == "VECTOR" else made
