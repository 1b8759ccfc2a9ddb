"""A real PostgreSQL for the service, with a new database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import psycopg
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.core.chroma.client import persistent_client
from app.core.chroma.failures import Target
from app.core.chroma.session import Session
from app.core.database.database import database_url as parsed
from app.core.database.upgrade import upgrade
from support.indexing import Rig, new_tenant
from support.postgres import Postgres
from support.service import DIMENSION

pytest.register_assert_rewrite("support.killable")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """PostgreSQL 18 with pgvector, that no test stops: for that, a test runs one of its own."""
    with Postgres(tmp_path_factory.mktemp("postgres") / "data").running() as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """A new database without tables, as DATABASE_URL takes it."""
    return postgres.new_database()


@pytest.fixture(scope="session")
def _template(postgres: Postgres) -> str:
    """The name of a database with the tables, that nobody is connected to."""
    url = postgres.new_database()
    upgrade(parsed(SecretStr(url)), DIMENSION)
    return url.rpartition("/")[2]


@pytest.fixture
def ready_url(postgres: Postgres, _template: str) -> str:
    """A new database with the tables, for embeddings of dimension DIMENSION."""
    return _ready(postgres, _template)


@pytest.fixture(scope="module")
def module_ready_url(postgres: Postgres, _template: str) -> str:
    """The same for a whole module."""
    return _ready(postgres, _template)


def _ready(postgres: Postgres, template: str) -> str:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}".encode())
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return url


@pytest.fixture(scope="module")
def index_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A Chroma directory of a module's own."""
    path = tmp_path_factory.mktemp("index")
    target = Target(f"The Chroma directory {path}", remote=False)
    session = Session(partial(persistent_client, Settings(), path), target)
    yield session
    session.close()


@pytest.fixture
def index_rig(ready_url: str, index_directory: Session) -> Rig:
    """An index worker's parts on that directory and a database of the test's own."""
    return Rig(ready_url, index_directory, new_tenant())
