"""The gate between the outbox and one collection of the index, on a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import make_url

from app.core.database.direct import Connection, connected
from app.core.index.gate import Gate, passes
from app.core.memory.tenant import Kind, Tenant
from support.databases import new_database
from support.indexes import ANN, DEADLINE_SECONDS, Place, raw_data
from support.servers import Server
from support.service import index_worker

PASSES = f"SELECT {passes('o')} FROM outbox o".encode()  # noqa: S608 (our own text)


@pytest.fixture
def place(tmp_path: Path, database_url: str, receiving: Server) -> Place:
    made = Place(tmp_path, database_url, new_database(receiving))
    assert made.app("database", "upgrade").returncode == 0
    return made


@contextmanager
def closed(place: Place, tenant: Tenant, kind: Kind = "memory") -> Iterator[Gate]:
    with connected(make_url(place.url), "test") as connection:
        gate = Gate(connection, tenant, kind)
        assert gate.close()
        yield gate


def behind_another_gate(place: Place) -> Tenant:
    """A tenant who does not share the closed one."""
    with connected(make_url(place.url), "test") as connection:
        candidates = (Tenant("bob", f"p{number}") for number in range(20))
        return next(tenant for tenant in candidates if Gate(connection, tenant, "memory").close())


def behind_gates_of_their_own(place: Place) -> Tenant:
    """A tenant whose gate is not ANN's."""
    with closed(place, ANN):
        return behind_another_gate(place)


def passed(connection: Connection) -> set[bool]:
    return {row[0] for row in connection.execute(PASSES).fetchall()}


def test_workers_leave_what_is_behind_a_closed_gate_and_go_on_with_the_rest(place: Place) -> None:
    with closed(place, ANN) as gate:
        bob = behind_another_gate(place)
        # the closed tenant's come first, and are more than a batch
        place.remember(ANN, range(30))
        place.remember(bob, range(5))
        with index_worker(place.folder, {**place.variables, "INDEX_BATCH_SIZE": "10"}):
            deadline = time.monotonic() + DEADLINE_SECONDS
            while (waiting := place.sql("SELECT user_id, count(*) FROM outbox GROUP BY 1")) != [("ann", 30)]:
                assert time.monotonic() < deadline, waiting
                time.sleep(0.1)
            assert place.chroma.counts() == {bob.collection("memory"): 5}
            gate.open()
            place.wait_for_workers()
    place.assert_indexed()


def test_a_record_waits_for_every_gate_that_it_has_to_do_with(place: Place) -> None:
    """An id that was one tenant's is another's now: the one's event comes first, and the other's gate is closed."""
    bob = behind_gates_of_their_own(place)
    place.remember(ANN, range(1))
    ((id_,),) = place.sql("DELETE FROM memory_logs RETURNING id")
    place.sql(
        "INSERT INTO memory_logs (id, user_id, project_id, raw_data) VALUES (%s, %s, %s, %s)",
        *(id_, bob.user_id, bob.project_id, Jsonb(raw_data(1))),
    )
    place.remember(ANN, range(5))
    with closed(place, bob) as gate, index_worker(place.folder, place.variables):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (waiting := place.sql("SELECT DISTINCT memory_id FROM outbox")) != [(id_,)]:
            assert time.monotonic() < deadline, waiting
            time.sleep(0.1)
        assert place.chroma.counts() == {ANN.collection("memory"): 5}
        gate.open()
        place.wait_for_workers()
    place.assert_indexed()


def test_closing_waits_for_what_has_passed_and_nothing_passes_while_it_waits(place: Place) -> None:
    place.remember(ANN, range(1))
    with connected(make_url(place.url), "test") as connection, psycopg.connect(place.url) as worker:
        gate = Gate(connection, ANN, "memory")
        assert passed(worker) == {True}
        assert not gate.close()
        worker.commit()
        assert gate.close()
        assert passed(worker) == {False}
        worker.commit()
        gate.open()
        assert passed(worker) == {True}


def test_a_gate_is_open_again_when_its_session_ends(place: Place) -> None:
    place.remember(ANN, range(1))
    with psycopg.connect(place.url, autocommit=True) as worker:
        with closed(place, ANN):
            assert passed(worker) == {False}
        assert passed(worker) == {True}


def test_a_batch_of_many_tenants_holds_few_locks(place: Place) -> None:
    place.sql(
        "INSERT INTO outbox (memory_id, user_id, project_id, kind, operation) "
        "SELECT g, 'user ' || g, 'project', 'memory', 'upsert' FROM generate_series(1, 2000) g"
    )
    with psycopg.connect(place.url) as worker:
        assert passed(worker) == {True}
        held = worker.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchall()
    assert 50 < held[0][0] <= 64
