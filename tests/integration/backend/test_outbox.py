"""The outbox on a real PostgreSQL: who gets which record, and what the plans cost with a backlog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database.database import Database
from app.core.embedding.hashing import HashingEmbedder
from app.core.index import dead_letters, outbox, vectors
from app.core.index.dead_letters import DeadLetters, Selection
from app.core.index.outbox import Place, Task
from app.core.memory.tenant import Tenant
from support.indexing import Rig, new_tenant, scenario
from support.service import DIMENSION

MODEL = f"hashing-{DIMENSION}"


@pytest.fixture
def rig(ready_url: str) -> Rig:
    """No index: these tests take, and write nothing."""
    return Rig(ready_url, None, new_tenant())  # type: ignore[arg-type]


@asynccontextmanager
async def taking(rig: Rig, limit: int = 100) -> AsyncIterator[tuple[AsyncConnection, list[Task]]]:
    """What one worker takes, and holds until the block ends."""
    database = rig.database(30)
    async with database.begin(bounded=False) as connection:
        yield connection, await outbox.take(connection, limit, MODEL)


async def ids(rig: Rig, limit: int = 100) -> list[int]:
    async with taking(rig, limit) as (_, tasks):
        return [task.memory_id for task in tasks]


@scenario
async def test_a_record_is_taken_as_it_is_now_with_all_its_events(rig: Rig) -> None:
    first, second = rig.remember("one"), rig.remember("two")
    rig.change(first, "uno", n=1)
    rig.change(first, "eins", n=2)
    rig.forget(second)
    async with taking(rig) as (connection, tasks):
        assert [task.memory_id for task in tasks] == [first, second]
        assert [len(task.events) for task in tasks] == [3, 2]
        assert tasks[0].present is not None
        assert tasks[0].present.raw_data == {"content": "eins", "metadata": {"n": 2}}
        assert tasks[0].present.revision == 3
        assert tasks[0].former == []
        assert (tasks[1].present, tasks[1].operation) == (None, "delete")
        assert tasks[1].former == [Place(rig.tenant, "memory")]
        await outbox.done(connection, tasks)
    assert rig.events() == []


@scenario
async def test_no_record_is_in_two_hands(rig: Rig) -> None:
    wanted = {rig.remember(f"text {n}") for n in range(60)}
    async with AsyncExitStack() as stack:
        taken = [await stack.enter_async_context(taking(rig, 20)) for _ in range(4)]
        sets = [{task.memory_id for task in tasks} for _, tasks in taken]
        assert [len(each) for each in sets] == [20, 20, 20, 0]
        assert set().union(*sets) == wanted
        rig.change(min(wanted), "changed while it is in hand")
        assert await ids(rig) == []
    assert len(await ids(rig)) == 60


@scenario
async def test_an_event_that_is_committed_late_does_not_put_its_record_into_a_second_hand(rig: Rig) -> None:
    """Its number is smaller than that of the event which is in hand."""
    record = rig.remember()
    async with taking(rig) as (connection, tasks):
        await outbox.done(connection, tasks)
    with psycopg.connect(rig.url) as late:
        late.execute(
            "INSERT INTO outbox (memory_id, user_id, project_id, kind, operation) "
            "VALUES (%s, %s, %s, 'memory', 'replay')",
            (record, rig.tenant.user_id, rig.tenant.project_id),
        )
        rig.change(record, "changed")
        async with taking(rig) as (connection, tasks):
            assert len(tasks[0].events) == 1
            late.commit()
            assert len(rig.events()) == 2
            assert await ids(rig) == []
            await outbox.done(connection, tasks)
    assert await ids(rig) == [record]


@scenario
async def test_what_waits_for_later_holds_up_nobody(rig: Rig) -> None:
    poison, *others = (rig.remember(f"text {n}") for n in range(4))
    async with taking(rig, 1) as (connection, tasks):
        assert [task.memory_id for task in tasks] == [poison]
        await outbox.try_later(connection, tasks[0], "refused", 3600)
    assert await ids(rig) == others
    rig.change(poison, "perhaps better now")
    async with taking(rig) as (_, tasks):
        again = {task.memory_id: task for task in tasks}[poison]
        assert (again.attempts, len(again.events)) == (1, 2)


@scenario
async def test_a_replay_that_is_put_off_outlives_what_is_done_before(rig: Rig) -> None:
    record = rig.remember()
    for _ in range(2):
        async with taking(rig) as (connection, tasks):
            await outbox.replay_after(connection, tasks, 3600)
    assert rig.events() == [(record, "upsert", 0), (record, "replay", 0)]
    rig.change(record, "changed")
    async with taking(rig) as (connection, tasks):
        assert len(tasks[0].events) == 2
        await outbox.done(connection, tasks)
    assert rig.events() == [(record, "replay", 0)]
    assert await ids(rig) == []
    rig.due_now()
    assert await ids(rig) == [record]


@scenario
async def test_an_id_that_is_used_anew_names_every_place_that_it_had(rig: Rig) -> None:
    record = rig.remember()
    other = Tenant(rig.tenant.user_id, "second")
    rig.forget(record)
    rig.give(record, other, "theirs")
    async with taking(rig) as (connection, tasks):
        (task,) = tasks
        assert task.present is not None
        assert task.present.place == Place(other, "memory")
        assert task.former == [Place(rig.tenant, "memory")]
        await outbox.bury(connection, task, "no")
    assert len(rig.letters()) == 2
    rig.change(record, "changed")
    async with taking(rig) as (connection, tasks):
        assert tasks[0].former == [Place(rig.tenant, "memory")]  # known from the dead letters alone
        await outbox.done(connection, tasks)
    assert (rig.letters(), rig.events()) == ([], [])


@scenario
async def test_dead_letters_of_one_record_are_one(rig: Rig) -> None:
    record = rig.remember()
    for error in ("first", "second"):
        async with taking(rig) as (connection, tasks):
            await outbox.bury(connection, tasks[0], error)
        assert rig.letters() == [(record, 1, error)]
        rig.change(record, f"after the {error}")


@pytest.mark.parametrize("again", [True, False], ids=["replay", "drop"])
@scenario
async def test_more_dead_letters_than_are_taken_at_once_are_all_taken(rig: Rig, again: bool) -> None:
    number = dead_letters.AT_ONCE + 1
    rig.sql(
        "INSERT INTO dead_letters (memory_id, user_id, project_id, kind, operation, attempts, last_error, created_at) "
        "SELECT n, 'ann', 'first', 'memory', 'upsert', 3, 'refused', now() FROM generate_series(1, %s) n",
        number,
    )
    letters = DeadLetters(rig.database(30))
    everything = Selection(tenant="ann/first")
    assert await (letters.replay(everything) if again else letters.drop(everything)) == number
    assert rig.letters() == []
    assert rig.sql("SELECT count(DISTINCT memory_id) FROM outbox") == [(number if again else 0,)]


@scenario
async def test_embeddings_come_back_to_the_bit(rig: Rig) -> None:
    rng = np.random.default_rng(5)
    made = (rng.standard_normal((50, DIMENSION)) * 10.0 ** rng.integers(-30, 30, (50, 1))).astype(np.float32)
    records = [rig.remember(f"text {n}") for n in range(50)]
    database = rig.database()
    async with database.begin() as connection:
        keyed = {(record, 1): vector for record, vector in zip(records, made, strict=True)}
        assert await vectors.keep(connection, keyed, MODEL) == []
    async with taking(rig) as (_, tasks):
        got = [task.present.embedding for task in tasks if task.present and task.present.embedding is not None]
        assert np.array_equal(np.stack(got), made)
    rig.sql("UPDATE memory_logs SET embedding_model = 'another'")
    async with taking(rig) as (_, tasks):
        assert all(task.present and task.present.embedding is None for task in tasks)


@scenario
async def test_an_embedding_is_stored_for_what_it_was_made_of_and_waits_for_no_lock(rig: Rig) -> None:
    changed, locked, gone, well = (rig.remember(f"text {n}") for n in range(4))
    vector = HashingEmbedder(DIMENSION).embed(["text"])[0]
    rig.change(changed, "changed")
    rig.forget(gone)
    database = rig.database(2)
    with psycopg.connect(rig.url) as open_session:
        open_session.execute("SELECT FROM memory_logs WHERE id = %s FOR UPDATE", (locked,))
        async with database.begin() as connection:
            keyed = {(record, 1): vector for record in (changed, locked, gone, well)}
            assert await vectors.keep(connection, keyed, MODEL) == [locked]
    assert rig.sql("SELECT id FROM memory_logs WHERE embedding IS NOT NULL") == [(well,)]


def test_what_equal_numbers_hide_is_a_change(rig: Rig) -> None:
    """To PostgreSQL 1 and 1.0 are equal; in the index they are an integer and a float."""
    record = rig.insert({"content": "x", "metadata": {"n": 1}})
    rig.sql("UPDATE memory_logs SET raw_data = raw_data")
    assert len(rig.events()) == 1
    rig.sql("""UPDATE memory_logs SET raw_data = '{"content": "x", "metadata": {"n": 1.0}}'""")
    assert [event[0] for event in rig.events()] == [record, record]


def test_truncate_is_refused_for_it_would_bypass_the_outbox(rig: Rig) -> None:
    rig.remember()
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="use DELETE"):
        rig.sql("TRUNCATE memory_logs")


# Plans ------------------------------------------------------------------------------------------------------

BACKLOG = 100_000
BATCH = 500


@pytest.fixture
def crowded(rig: Rig) -> Rig:
    """As many memories with an event each, in a table whose statistics say that it is empty."""
    rig.sql("ANALYZE")
    rig.sql(
        "INSERT INTO memory_logs (user_id, project_id, raw_data) "
        "SELECT 'user' || i %% 50, 'p', jsonb_build_object('content', 'text ' || i, 'metadata', '{}'::jsonb) "
        "FROM generate_series(1, %s) i",
        BACKLOG,
    )
    return rig


async def takes(database: Database, records: int, at_most: int) -> bool:
    """Whether a batch is of so many records, found and read by touching so many blocks, and none but by an index."""
    async with database.begin(bounded=False) as connection:
        await connection.execute(outbox._BY_INDEX)
        heads, blocks = [], 0
        take = outbox._TAKE.format(limit=BATCH)
        blocks += await _explained(connection, take, {})
        heads = list((await connection.execute(text(take))).scalars())
        if heads:
            blocks += await _explained(connection, outbox._READ.text, {"memory_ids": heads, "model": MODEL})
        return len(heads) == records and 0 < blocks <= at_most


async def _explained(connection: AsyncConnection, query: str, values: dict[str, Any]) -> int:
    explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
    plan = (await connection.execute(explain, values)).scalar_one()[0]["Plan"]
    scans = [node["Node Type"] for node in _nodes(plan) if "Scan" in node["Node Type"] and "Relation Name" in node]
    assert set(scans) <= {"Index Scan", "Index Only Scan"}, scans
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from _nodes(inner)


@scenario
async def test_taking_a_batch_costs_the_batch_whatever_waits_and_whatever_the_planner_believes(crowded: Rig) -> None:
    database = crowded.database(120)
    limit = 25 * BATCH  # some index and table blocks a record; without an index there would be hundreds
    assert await takes(database, BATCH, at_most=limit)  # analysed while it was empty
    crowded.sql("ANALYZE outbox")
    assert await takes(database, BATCH, at_most=limit)
    crowded.sql("UPDATE outbox SET next_attempt_at = now() + interval '1 hour', attempts = 1")
    crowded.sql("VACUUM outbox")
    assert await takes(database, 0, at_most=100)  # nothing but what is to wait
    crowded.sql("UPDATE outbox SET next_attempt_at = now() WHERE id IN (SELECT max(id) FROM outbox)")
    assert await takes(database, 1, at_most=200)
    crowded.sql("ANALYZE outbox")  # as after an hour's outage
    crowded.sql("UPDATE outbox SET next_attempt_at = now(), attempts = 0")
    crowded.sql("VACUUM outbox")
    assert await takes(database, BATCH, at_most=limit)


@scenario
async def test_many_workers_pass_over_what_the_others_hold(crowded: Rig) -> None:
    databases = [crowded.database(120) for _ in range(8)]
    holding = asyncio.Event()
    taken: list[set[int]] = []

    async def hold(database: Database) -> None:
        async with database.begin(bounded=False) as connection:
            tasks = await outbox.take(connection, BATCH, MODEL)
            taken.append({task.memory_id for task in tasks})
            if len(taken) == len(databases):
                holding.set()
            await holding.wait()

    await asyncio.gather(*(hold(database) for database in databases))
    assert sum(map(len, taken)) == len(set().union(*taken)) > 0
    assert {len(each) for each in taken} == {BATCH}


@scenario
async def test_a_record_with_many_events_is_one_record(crowded: Rig) -> None:
    crowded.sql(
        "INSERT INTO outbox (memory_id, user_id, project_id, kind, operation, next_attempt_at) "
        "SELECT 1, 'user1', 'p', 'memory', 'replay', now() - interval '1 day' FROM generate_series(1, 5000)"
    )
    database = crowded.database(120)
    async with database.begin(bounded=False) as connection:
        tasks = await outbox.take(connection, BATCH, MODEL)
        assert len(tasks) == BATCH
        assert max(len(task.events) for task in tasks) == 5001
        await outbox.done(connection, tasks)
    assert len(crowded.events()) == BACKLOG - BATCH
