"""Batches in this process: a real PostgreSQL, a real Chroma directory, and everything that can go wrong between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from app.core.chroma.client import ChromaClient
from app.core.chroma.writer import IndexWriter
from app.core.errors import (
    ChromaTimeout,
    ChromaUncertain,
    EmbeddingUnavailable,
    TextRefused,
)
from app.core.index.indexer import Unexpected
from app.core.index.tombstones import Tombstones
from app.core.memory.tenant import Kind, Tenant
from support.indexing import Gate, PickyEmbedder, Rig, drain, scenario, until
from support.service import DIMENSION


@pytest.fixture
def rig(index_rig: Rig) -> Rig:
    return index_rig


@contextmanager
def suppress_into(said: list[str], kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        said.append(str(error))


@scenario
async def test_the_index_follows(rig: Rig) -> None:
    database = rig.database()
    indexer = rig.indexer(database)
    first = rig.remember("rain", task="weather", old=1)
    second = rig.remember("snow")
    passage = rig.remember("a piece of text", kind="passage", source="book")
    (outcome,) = await drain(indexer)
    assert (outcome.indexed, outcome.removed, outcome.taken) == (3, 0, 3)
    assert list(rig.found("passage")) == [f"memory_log_{passage}"]
    rig.change(first, "drizzle", task="weather")
    rig.forget(second)
    (outcome,) = await drain(indexer)
    assert (outcome.indexed, outcome.removed) == (1, 1)
    ((document, metadata),) = rig.found().values()
    assert document == '{"content":"drizzle","metadata":{"task":"weather"}}'
    assert metadata.keys() == {"task", "created_at"}
    assert rig.events() == []
    stored = rig.sql("SELECT embedding_model, revision FROM memory_logs WHERE embedding IS NOT NULL ORDER BY id")
    assert stored == [(f"hashing-{DIMENSION}", 2), (f"hashing-{DIMENSION}", 1)]


@scenario
async def test_what_has_an_embedding_is_not_embedded_again(rig: Rig) -> None:
    database = rig.database()
    embedder = PickyEmbedder({})
    indexer = rig.indexer(database, embedder=embedder)
    record = rig.remember()
    await drain(indexer)
    rig.replay(record)
    await drain(indexer)
    assert embedder.calls == [1]


@scenario
async def test_an_id_that_is_used_anew_moves_to_its_new_tenant(rig: Rig) -> None:
    database = rig.database()
    indexer = rig.indexer(database)
    record = rig.remember("mine", secret="yes")
    await drain(indexer)
    other = Tenant(rig.tenant.user_id, "second")
    rig.forget(record)
    rig.give(record, other, "theirs")
    await drain(indexer)
    assert rig.contents() == []
    ((document, metadata),) = rig.found(tenant=other).values()
    assert document == '{"content":"theirs","metadata":{}}'
    assert metadata.keys() == {"created_at"}


# Records that are to blame -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poison",
    [
        {"content": "text", "metadata": {"nested": {"a": 1}}},
        {"content": "text", "metadata": {"": "no name"}},
        {"content": "text", "metadata": [1, 2]},
        {"metadata": {}},
        {"content": None, "metadata": {}},
        {},
    ],
    ids=["nested", "nameless", "a list", "no content", "null content", "nothing"],
)
@scenario
async def test_a_poison_record_becomes_a_dead_letter_and_holds_up_nobody(rig: Rig, poison: object) -> None:
    """Only other writers than the service can bring one about."""
    database = rig.database()
    indexer = rig.indexer(database)
    well = [rig.remember(f"text {n}") for n in range(20)]
    record = rig.insert(poison)
    well += [rig.remember(f"more {n}") for n in range(20)]
    outcome = await indexer.step()
    assert (outcome.indexed, outcome.postponed) == (40, 1)
    assert rig.contents() == well
    for _ in range(2):
        rig.due_now()
        await indexer.step()
    ((memory_id, attempts, error),) = rig.letters()
    assert (memory_id, attempts) == (record, 3)
    assert error
    assert rig.events() == []
    rig.change(record, "cured")
    await drain(indexer)
    assert (rig.letters(), rig.contents()) == ([], sorted([*well, record]))


@scenario
async def test_a_text_that_the_provider_refuses_is_found_by_halves(rig: Rig) -> None:
    database = rig.database()
    embedder = PickyEmbedder({"plague": TextRefused("not this one")})
    indexer = rig.indexer(database, embedder=embedder, max_attempts=1)
    well = [rig.remember(f"text {n}") for n in range(63)]
    record = rig.remember("a text about the plague")
    outcome = await indexer.step()
    assert (outcome.indexed, outcome.buried) == (63, 1)
    assert len(embedder.calls) <= 2 * 6 + 1
    assert rig.contents() == well
    assert rig.letters() == [(record, 1, "not this one")]


@scenario
async def test_an_error_that_nobody_expected_ends_nothing_and_is_pinned_to_its_record(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    database = rig.database()
    embedder = PickyEmbedder({"zero": ZeroDivisionError("it quotes the text: zero")})
    indexer = rig.indexer(database, embedder=embedder, batch_size=64)
    well = [rig.remember(f"text {n}") for n in range(30)]
    record = rig.remember("divided by zero")
    well += [rig.remember(f"more {n}") for n in range(30)]
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        while len(rig.contents()) < 60 or not rig.letters():
            rig.due_now()
            with suppress_into(said, Unexpected):
                await indexer.step()
            assert len(said) < 40
    assert said
    assert all("ZeroDivisionError" in error and "indexer.py" in error for error in said)
    assert not any("quotes" in error for error in [*said, caplog.text])
    assert rig.contents() == well
    ((memory_id, attempts, _),) = rig.letters()
    assert (memory_id, attempts) == (record, 3)


# What is nobody's fault --------------------------------------------------------------------------------------


@scenario
async def test_a_collection_that_cannot_be_written_holds_up_only_its_own(rig: Rig) -> None:
    database = rig.database()
    indexer = rig.indexer(database, max_attempts=1)
    name = rig.tenant.collection("memory")

    def spoil(client: ChromaClient) -> None:
        vectors = np.ones((1, 2), dtype=np.float32)
        client.upsert(client.get_or_create(name).id, ["x"], vectors, ["of another dimension"], [{"a": 1}])

    rig.session.answer(spoil)
    record = rig.remember()
    passage = rig.remember(kind="passage")
    outcome = await indexer.step()
    assert (outcome.indexed, outcome.held) == (1, 1)
    assert list(rig.found("passage")) == [f"memory_log_{passage}"]
    assert rig.events() == [(record, "upsert", 0)]
    assert (await indexer.step()).taken == 0
    rig.session.answer(lambda client: client.api.delete_collection(name))
    rig.due_now()
    await drain(indexer)
    assert rig.contents() == [record]


@scenario
async def test_a_provider_that_is_away_holds_up_no_delete_and_nothing_that_has_its_embedding(rig: Rig) -> None:
    database = rig.database()
    embedder = PickyEmbedder({})
    indexer = rig.indexer(database, embedder=embedder, max_attempts=1)
    kept, gone = rig.remember("kept"), rig.remember("gone")
    await drain(indexer)
    embedder.errors["new"] = EmbeddingUnavailable("away")
    new = rig.remember("new")
    rig.forget(gone)
    rig.replay(kept)
    with pytest.raises(EmbeddingUnavailable):
        await indexer.step()
    assert rig.contents() == [kept]
    assert rig.events() == [(new, "upsert", 0)]
    embedder.errors.clear()
    await drain(indexer)
    assert rig.contents() == [kept, new]


@scenario
async def test_a_chroma_that_is_away_costs_no_attempt_and_no_embedding(rig: Rig) -> None:
    database = rig.database()
    embedder, gate = PickyEmbedder({}), Gate(rig.session)
    indexer = rig.indexer(database, embedder=embedder, writer=gate, max_attempts=1)
    gate.error = ChromaTimeout("not now")
    records = [rig.remember(f"text {n}") for n in range(10)]
    for _ in range(3):
        with pytest.raises(ChromaTimeout):
            await indexer.step()
    assert rig.events() == [(record, "upsert", 0) for record in records]
    gate.error = None
    await drain(indexer)
    assert rig.contents() == records
    assert sum(embedder.calls) == 10


@scenario
async def test_a_batch_that_fails_is_tried_smaller(rig: Rig) -> None:
    database = rig.database()
    gate = Gate(rig.session)
    indexer = rig.indexer(database, writer=gate, batch_size=64)
    for n in range(100):
        rig.remember(f"text {n}")
    gate.error = ChromaTimeout("too much at once")
    for _ in range(9):
        with pytest.raises(ChromaTimeout):
            await indexer.step()
    gate.error = None
    assert [outcome.taken for outcome in await drain(indexer)] == [1, 2, 4, 8, 16, 32, 37]


@scenario
async def test_a_write_of_unknown_outcome_is_made_again_later_however_soon_it_succeeds(rig: Rig) -> None:
    database = rig.database()
    gate = Gate(rig.session)
    indexer = rig.indexer(database, writer=gate)
    record = rig.remember()
    gate.error = ChromaUncertain("perhaps")
    for _ in range(3):
        with pytest.raises(ChromaUncertain):
            await indexer.step()
    gate.error = None
    assert len(await drain(indexer)) == 1
    assert rig.events() == [(record, "replay", 0)]
    # what was under way arrives after all, and is older
    late = IndexWriter(rig.session)
    (entry,) = rig.found()
    late.remove(rig.tenant.collection("memory"), [entry])
    rig.due_now()
    await drain(indexer)
    assert (rig.contents(), rig.events()) == ([record], [])


# Locks and lost sessions -------------------------------------------------------------------------------------


@scenario
async def test_a_batch_in_hand_holds_up_no_writer(rig: Rig) -> None:
    """Changes and deletes go through while Chroma keeps the worker waiting, and are indexed after it."""
    database = rig.database()
    gate = Gate(rig.session)
    indexer = rig.indexer(database, writer=gate)
    changed, gone, kept = (rig.remember(f"text {n}") for n in range(3))
    gate.close()
    batch = asyncio.create_task(indexer.step())
    await until(gate.reached)
    with psycopg.connect(rig.url, options="-c statement_timeout=2000") as writer:
        raw_data = Jsonb({"content": "new", "metadata": {}})
        writer.execute("UPDATE memory_logs SET raw_data = %s WHERE id = %s", (raw_data, changed))
        writer.execute("DELETE FROM memory_logs WHERE id = %s", (gone,))
    gate.opened.set()
    assert (await batch).indexed == 3
    await drain(indexer)
    assert rig.contents() == [changed, kept]
    assert rig.found()[f"memory_log_{changed}"][0] == '{"content":"new","metadata":{}}'


@scenario
async def test_a_row_that_somebody_has_locked_holds_up_nobody_and_gets_its_embedding_later(rig: Rig) -> None:
    database = rig.database(2)
    indexer = rig.indexer(database)
    locked, well = rig.remember("locked"), rig.remember("well")
    with psycopg.connect(rig.url) as open_session:
        open_session.execute("SELECT FROM memory_logs WHERE id = %s FOR UPDATE", (locked,))
        outcome = await indexer.step()
        assert (outcome.indexed, outcome.held) == (1, 1)
        assert rig.contents() == [locked, well]
        assert rig.events() == [(locked, "upsert", 0)]
    rig.due_now()
    await drain(indexer)
    assert rig.sql("SELECT count(*) FROM memory_logs WHERE embedding IS NULL") == [(0,)]
    assert rig.events() == []


@scenario
async def test_tombstones_are_forgotten_after_their_time(rig: Rig) -> None:
    database = rig.database()
    old, new = rig.remember(), rig.remember()
    rig.sql("DELETE FROM memory_logs")
    rig.sql("UPDATE tombstones SET deleted_at = now() - interval '31 days' WHERE memory_id = %s", old)
    rig.sql(
        "INSERT INTO tombstones "
        "SELECT i, 'u', 'p', 'memory', now() - interval '1 year' FROM generate_series(1000, 13000) i"
    )
    assert await Tombstones(database, 30).prune_once() == 12_002
    assert rig.sql("SELECT memory_id FROM tombstones") == [(new,)]


@pytest.mark.parametrize("kind", ["memory", "passage"])
@scenario
async def test_two_workers_may_make_the_same_collection_at_once(rig: Rig, kind: Kind) -> None:
    databases = [rig.database() for _ in range(4)]
    indexers = [rig.indexer(database, batch_size=5) for database in databases]
    records = [rig.remember(f"text {n}", kind=kind) for n in range(60)]
    await asyncio.gather(*(drain(indexer) for indexer in indexers))
    assert sorted(rig.found(kind)) == sorted(f"memory_log_{record}" for record in records)
