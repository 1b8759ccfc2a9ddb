"""What the role `postgres` makes of a server: the service's role may do its work, and nothing beyond it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from app.core.database.database import database_url
from app.core.database.programs import programs
from app.core.database.schema import metadata
from app.core.database.upgrade import upgrade
from support.postgres import USER, Postgres
from support.service import DIMENSION
from support.templating import render

PASSWORD = "test-only-password-of-app"
OWN = {"UPDATE", "DELETE", "INSERT", "SELECT"}
_number = itertools.count(1)


@dataclass(frozen=True)
class Made:
    """A database that the role's SQL made, and what psql said."""

    owner: str
    app: str
    said: list[str]
    again: list[str]


@pytest.fixture(scope="module")
def made(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Made:
    name = f"stack_{next(_number)}"
    script = tmp_path_factory.mktemp("sql") / "database.sql"
    script.write_text(sql(name))
    said, again = (_psql(postgres, script) for _ in range(2))
    where = f"@{postgres.host_and_port}/{name}"
    return Made(f"postgresql://{name}_owner{where}", f"postgresql://{name}_app{where}", said, again)


def sql(name: str, app_password: str = PASSWORD) -> str:
    """What the role runs for a database of this name."""
    return render(
        "postgres",
        "etc/chroma-stack/postgres/database.sql.j2",
        postgres_database=name,
        postgres_owner=f"{name}_owner",
        postgres_owner_password="test-only-password-of-owner",
        postgres_app=f"{name}_app",
        postgres_app_password=app_password,
    )


def _psql(postgres: Postgres, script: Path) -> list[str]:
    """Run the script as the playbook does; the lines that it said."""
    program = [str(programs() / "psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={script}"]
    ended = subprocess.run(  # noqa: S603 (our own program)
        [*program, f"--dbname={postgres.url()}", f"--username={USER}"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if line != "SET" and not line.startswith("You are now")]


@pytest.fixture(scope="module")
def app(made: Made) -> Iterator[psycopg.Connection]:
    """A session of the application, in a database whose schema the owner has made."""
    upgrade(database_url(SecretStr(made.owner)), DIMENSION)
    with psycopg.connect(made.app, autocommit=True) as connection:
        yield connection


def test_a_second_run_says_nothing(made: Made) -> None:
    assert {line.split()[0] for line in made.said} == {"CREATE", "REVOKE", "GRANT", "ALTER"}
    assert made.again == []


def test_only_the_hash_of_a_password_is_kept_and_a_new_password_is_taken(
    made: Made, postgres: Postgres, tmp_path: Path
) -> None:
    name = made.app.rpartition("/")[2]

    def fits(password: str) -> bool:
        with psycopg.connect(postgres.url()) as superuser:
            row = superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [f"{name}_app"]).fetchone()
        assert row is not None
        return is_scram_of(row[0], password)

    assert fits(PASSWORD)
    script = tmp_path / "database.sql"
    script.write_text(sql(name, "another-test-only-password"))
    assert _psql(postgres, script) == []
    assert fits("another-test-only-password")
    assert not fits(PASSWORD)


def is_scram_of(kept: str, password: str) -> bool:
    """Whether SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> (RFC 5802) is that of the password."""
    mechanism, iterations_and_salt, keys = kept.split("$")
    iterations, salt = iterations_and_salt.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return mechanism == "SCRAM-SHA-256" and base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client_key).digest()


def test_what_is_missing_is_granted_again(
    made: Made, app: psycopg.Connection, postgres: Postgres, tmp_path: Path
) -> None:
    name = made.app.rpartition("/")[2]
    with psycopg.connect(postgres.url(name), autocommit=True) as superuser:
        superuser.execute(f"REVOKE UPDATE ON memory_logs FROM {name}_app".encode())
    script = tmp_path / "database.sql"
    script.write_text(sql(name))
    assert _psql(postgres, script) == ["GRANT"]
    app.execute("UPDATE memory_logs SET raw_data = '{}' WHERE false")


def test_the_service_can_do_its_work(app: psycopg.Connection) -> None:
    app.execute("LISTEN outbox")
    app.execute("CREATE TEMPORARY TABLE loaded (id bigint)")  # as a rebuild does
    app.execute("DROP TABLE loaded")
    made = app.execute(
        "INSERT INTO memory_logs (user_id, project_id, raw_data) VALUES ('ann', 'first', '{}') RETURNING id"
    ).fetchone()
    assert made is not None
    app.execute("UPDATE memory_logs SET raw_data = '{\"a\": 1}' WHERE id = %s", made)
    app.execute("DELETE FROM memory_logs WHERE id = %s", made)
    events = app.execute("SELECT operation FROM outbox WHERE memory_id = %s ORDER BY id", made).fetchall()
    assert events == [("upsert",), ("upsert",), ("delete",)]
    assert app.execute("SELECT count(*) FROM tombstones WHERE memory_id = %s", made).fetchone() == (1,)
    assert next(app.notifies(timeout=10, stop_after=1)).channel == "outbox"
    app.execute("UNLISTEN outbox")


def test_it_has_these_rights_on_every_table_also_of_later_migrations(app: psycopg.Connection, made: Made) -> None:
    with psycopg.connect(made.owner, autocommit=True) as owner:
        owner.execute("CREATE TABLE of_a_later_version (id bigint GENERATED BY DEFAULT AS IDENTITY, name text)")
    app.execute("INSERT INTO of_a_later_version (name) VALUES ('x')")
    rights = app.execute(
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = current_user"
    ).fetchall()
    held: dict[str, set[str]] = {}
    for table, right in rights:
        held.setdefault(table, set()).add(right)
    assert held == dict.fromkeys([*metadata.tables, "alembic_version", "of_a_later_version"], OWN)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP EXTENSION vector",
        "CREATE DATABASE mine",
        "CREATE ROLE mine",
        "DROP TABLE outbox",
        "TRUNCATE memory_logs",
        "ALTER TABLE memory_logs DISABLE TRIGGER emit",
        "ALTER TABLE memory_logs ADD COLUMN mine int",
        "CREATE INDEX mine ON memory_logs (kind)",
        "COPY memory_logs TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
        "SET session_replication_role = 'replica'",
    ],
)
def test_it_can_do_nothing_else(app: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement.encode())
