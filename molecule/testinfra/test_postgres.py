"""PostgreSQL: it answers its owner and the service, each with its rights, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import until


@pytest.fixture(scope="module")
def connect(expected: dict[str, Any]) -> str:
    """The psql command that asks as the database's owner; the password is not in it."""
    postgres = expected["postgres"]
    return (
        f"{postgres['psql']} --no-psqlrc --no-password --tuples-only --no-align --host={postgres['host']} "
        f"--port={postgres['port']} --username={postgres['owner']} --dbname={postgres['database']}"
    )


def test_owner_is_answered(host: Any, expected: dict[str, Any], connect: str) -> None:
    """The owner gets an answer to SQL."""
    password_file = expected["postgres"]["password_file"]
    answer = host.check_output(f"PGPASSFILE={password_file} {connect} --command='SELECT 6 * 7'")
    assert answer.strip() == "42"


def test_vectors_are_compared(host: Any, expected: dict[str, Any], connect: str) -> None:
    """Vectors can be compared: pgvector is in the database."""
    password_file = expected["postgres"]["password_file"]
    query = "SELECT '[1,0]'::vector <=> '[0,1]'::vector"
    assert host.check_output(f'PGPASSFILE={password_file} {connect} --command="{query}"').strip() == "1"


def test_wrong_password_is_refused(host: Any, connect: str) -> None:
    """Another password is refused, by scram."""
    answer = host.run(f"PGPASSFILE=/dev/null PGPASSWORD=not-the-password {connect} --command='SELECT 1'")
    assert answer.rc != 0
    assert "password authentication failed" in answer.stderr


def test_password_is_needed(host: Any, connect: str) -> None:
    """Without a password nobody is let in."""
    answer = host.run(f"PGPASSFILE=/dev/null {connect} --command='SELECT 1'")
    assert answer.rc != 0
    assert "no password supplied" in answer.stderr


def test_authentication_is_scram(host: Any, expected: dict[str, Any], connect: str) -> None:
    """The server stores and asks for scram only."""
    password_file = expected["postgres"]["password_file"]
    query = "SHOW password_encryption"
    assert host.check_output(f"PGPASSFILE={password_file} {connect} --command='{query}'").strip() == "scram-sha-256"


def test_service_reads_and_writes(host: Any, expected: dict[str, Any], as_service: str) -> None:
    """The service's role has the rights that it needs on every table of the schema."""
    query = (
        "SELECT count(*) FROM pg_tables, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed "
        "WHERE schemaname = 'public' AND NOT has_table_privilege(quote_ident(tablename), needed)"
    )
    answer = host.check_output(f'{as_service} --dbname={expected["postgres"]["database"]} --command="{query}"')
    assert answer.strip() == "0"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "DROP TABLE memory_logs",
        "TRUNCATE memory_logs",
        "ALTER TABLE memory_logs DISABLE TRIGGER ALL",
    ],
)
def test_service_changes_no_schema(host: Any, expected: dict[str, Any], as_service: str, statement: str) -> None:
    """The service's role can make, change and drop no table, whatever it is made to say."""
    database = expected["postgres"]["database"]
    answer = host.run(f"{as_service} --dbname={database} --command='BEGIN; {statement}; ROLLBACK'")
    assert answer.rc != 0
    assert "permission denied" in answer.stderr or "must be owner" in answer.stderr


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_service_has_its_database_only(host: Any, as_service: str, database: str) -> None:
    """No other database of the server lets the service's role in."""
    answer = host.run(f"{as_service} --dbname={database} --command='SELECT 1'")
    assert answer.rc != 0
    assert "no pg_hba.conf entry" in answer.stderr


def test_everything_written_reaches_the_index(host: Any, expected: dict[str, Any], as_service: str) -> None:
    """No event waits longer than a minute, and none was given up."""
    query = (
        "SELECT (SELECT count(*) FROM outbox WHERE created_at < now() - interval '1 minute') "
        "+ (SELECT count(*) FROM dead_letters)"
    )
    command = f'{as_service} --dbname={expected["postgres"]["database"]} --command="{query}"'
    until(lambda: host.check_output(command).strip() == "0")
