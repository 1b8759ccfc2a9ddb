"""A real PostgreSQL for the service, with a new database for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.postgres import Postgres


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """PostgreSQL 18 with pgvector, that no test stops: for that, a test runs one of its own."""
    with Postgres(tmp_path_factory.mktemp("postgres") / "data").running() as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """A new database without tables, as DATABASE_URL takes it."""
    return postgres.new_database()
