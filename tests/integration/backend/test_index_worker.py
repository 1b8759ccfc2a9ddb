"""Index workers beside each other: who has which batch, and what becomes of one whose worker stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from app.core.chroma.writer import IndexWriter
from app.core.embedding.hashing import HashingEmbedder
from app.core.errors import DatabaseUnavailable
from app.core.index import vectors
from app.core.index import worker as worker_module
from app.core.index.progress import Progress
from app.core.index.tombstones import Tombstones
from app.core.index.wakeup import Wakeup
from app.core.index.worker import Worker
from support.indexing import Gate, Rig, drain, scenario, until
from support.service import DIMENSION


@pytest.fixture
def rig(index_rig: Rig) -> Rig:
    return index_rig


@scenario
async def test_a_worker_that_lost_its_session_does_not_leave_what_it_wrote_too_late(rig: Rig) -> None:
    database, second = rig.database(), rig.database()
    gate = Gate(rig.session)
    stalled = rig.indexer(database, writer=gate)
    other = rig.indexer(second)
    changed, gone = rig.remember("old"), rig.remember("gone")
    gate.close()
    batch = asyncio.create_task(stalled.step())
    await until(gate.reached)
    assert rig.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'chroma-stack'"
    ) != [(0,)]
    rig.change(changed, "new")
    rig.forget(gone)
    await drain(other)
    assert rig.contents() == [changed]
    gate.opened.set()
    with pytest.raises(DatabaseUnavailable):
        await batch
    assert rig.contents() == [changed, gone]  # the late write: what is to be made up for
    assert stalled.owes == 2
    while stalled.owes:
        try:
            await stalled.make_up()
        except DatabaseUnavailable:
            await asyncio.sleep(0.2)
    await drain(other)
    assert rig.contents() == [changed]
    assert rig.found()[f"memory_log_{changed}"][0] == '{"content":"new","metadata":{}}'


@scenario
async def test_what_an_abandoned_worker_has_in_hand_is_taken_by_another(rig: Rig) -> None:
    stalled, second = rig.database(abandoned_seconds=0.5), rig.database()
    gate = Gate(rig.session)
    waiting = rig.remember("waiting")
    gate.close()
    batch = asyncio.create_task(rig.indexer(stalled, writer=gate).step())
    await until(gate.reached)
    other = rig.indexer(second)
    while not (await other.step()).taken:
        await asyncio.sleep(0.05)
    assert rig.contents() == [waiting]
    gate.opened.set()
    with pytest.raises(DatabaseUnavailable):
        await batch


@scenario
async def test_a_writer_does_not_wait_for_a_worker_that_stands_still_where_it_keeps_embeddings(rig: Rig) -> None:
    database = rig.database()
    kept = rig.remember("old")
    vector = HashingEmbedder(DIMENSION).embed(["old"])[0]
    async with database.autocommit() as connection:
        assert await vectors.keep(connection, {(kept, 1): vector}, "a model") == []
        with psycopg.connect(rig.url, options="-c lock_timeout=1s") as writer:
            writer.execute("UPDATE memory_logs SET embedding_model = 'another'")
    assert rig.sql("SELECT embedding_model FROM memory_logs") == [("another",)]


@asynccontextmanager
async def working(rig: Rig, writer: IndexWriter) -> AsyncIterator[list[int]]:
    """A worker of two batches at once, until the block ends; how many records each of its batches had."""
    database = rig.database()
    sizes: list[int] = []
    worker = Worker(
        rig.indexer(database, writer=writer),
        Wakeup(database.url),
        Progress(database),
        Tombstones(database, 90),
        concurrency=2,
        poll_seconds=0.05,
        observe=lambda outcome, _: sizes.append(outcome.taken),
    )
    running = asyncio.create_task(worker.run())
    try:
        yield sizes
    finally:
        worker.stop()
        await running


@scenario
async def test_what_comes_while_a_batch_is_in_hand_goes_into_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PATIENCE_SECONDS", 60)
    gate = Gate(rig.session)
    gate.close()
    async with working(rig, gate) as sizes:
        rig.remember("the first")
        await until(gate.reached)
        for number in range(9):
            rig.remember(f"meanwhile {number}")
            await asyncio.sleep(0.05)
        gate.opened.set()
        while rig.events():
            await asyncio.sleep(0.05)
    assert sizes == [1, 9]


@scenario
async def test_nobody_waits_long_for_a_batch_that_is_slow(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PATIENCE_SECONDS", 0.1)
    gate = Gate(rig.session)
    gate.close()
    async with working(rig, gate) as sizes:
        slow = rig.remember("slow")
        await until(gate.reached)
        gate.reached.clear()
        rig.remember("another")
        await until(gate.reached)
        assert rig.events() != []
        gate.opened.set()
        while rig.events():
            await asyncio.sleep(0.05)
    assert slow in rig.contents()
    assert sizes == [1, 1]
