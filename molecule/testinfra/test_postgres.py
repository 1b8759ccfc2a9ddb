"""PostgreSQL: it answers its owner, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest


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
