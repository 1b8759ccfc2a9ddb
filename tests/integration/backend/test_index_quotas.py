"""A Chroma with the quotas of Chroma Cloud: the index worker and `app rebuild` shrink what they ask, and go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from app.config import Settings
from app.core.chroma.client import http_client
from app.core.chroma.failures import Target
from app.core.chroma.session import Session
from app.core.chroma.writer import IndexWriter
from support.databases import new_database
from support.forwarder import Forwarder, Guard, forwarder
from support.indexes import ANN, Place
from support.indexing import Rig, drain, new_tenant, scenario
from support.quota_proxy import Limits, quotas
from support.servers import Server

LONG = "ü" * 8_200


def session_of(url: str, database: str) -> Session:
    port = int(url.rpartition(":")[2])
    settings = Settings(chroma_mode="http", chroma_host="127.0.0.1", chroma_port=port, chroma_database=database)
    return Session(partial(http_client, settings), Target("Chroma", remote=True))


@pytest.fixture
def rig(ready_url: str, receiving: Server) -> Iterator[Rig]:
    session = session_of(receiving.url, new_database(receiving).name)
    yield Rig(ready_url, session, new_tenant())
    session.close()


@contextmanager
def behind(rig: Rig, server: Server, guard: Guard) -> Iterator[tuple[IndexWriter, Forwarder]]:
    """A writer of the rig's index whose requests pass the guard, while the rig itself reads without quotas."""
    with forwarder(server.url, guard=guard) as way:
        session = session_of(way.url, rig.session.answer(lambda client: client.database))
        try:
            yield IndexWriter(session), way
        finally:
            session.close()


def remember(rig: Rig, number: int, **metadata: Any) -> list[int]:
    raw_data = Jsonb({"content": "rain", "metadata": metadata})
    rows = rig.sql(
        "INSERT INTO memory_logs (user_id, project_id, raw_data) "
        "SELECT %s, %s, %s FROM generate_series(1, %s) RETURNING id",
        *(rig.tenant.user_id, rig.tenant.project_id, raw_data, number),
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize("told", [True, False])
@scenario
async def test_the_worker_learns_how_much_it_may_write_and_read(rig: Rig, receiving: Server, told: bool) -> None:
    """Fewer results than records: what a record no longer has would stay where the old ones were cut off."""
    with behind(rig, receiving, quotas(Limits(results=100, told=told))) as (writer, way):
        indexer = rig.indexer(rig.database(), writer=writer, batch_size=1000)
        ids = remember(rig, 700, old=1, same=2)
        (outcome,) = await drain(indexer)
        assert (outcome.indexed, outcome.postponed) == (700, 0)
        assert rig.contents() == sorted(ids)
        rig.sql("UPDATE memory_logs SET raw_data = %s", Jsonb({"content": "snow", "metadata": {"same": 2}}))
        before = way.times("/upsert", "/get")
        assert [one.indexed for one in await drain(indexer)] == [700]
        assert {frozenset(metadata) for _, metadata in rig.found().values()} == {frozenset({"same", "created_at"})}
        # nothing is refused a second time: 300 a write and 100 a read, or 175 and 87 where no number is said
        assert way.times("/upsert", "/get") - before == (3 + 7 if told else 4 + 9)
        rig.sql("DELETE FROM memory_logs")
        assert [one.removed for one in await drain(indexer)] == [700]
        assert rig.contents() == []
    assert (rig.events(), rig.letters()) == ([], [])


@pytest.mark.parametrize("told", [True, False])
@scenario
async def test_a_record_over_a_quota_becomes_a_dead_letter_with_the_reason(
    rig: Rig, receiving: Server, told: bool
) -> None:
    with behind(rig, receiving, quotas(Limits(told=told))) as (writer, way):
        indexer = rig.indexer(rig.database(), writer=writer, batch_size=1000, max_attempts=1)
        well = remember(rig, 150)
        long = [rig.remember(f"{LONG}{n}") for n in range(8)]
        keys = rig.insert({"content": "keys", "metadata": {f"key{n}": n for n in range(40)}})
        well += remember(rig, 150)
        (outcome,) = await drain(indexer)
        assert (outcome.indexed, outcome.buried) == (300, 9)
        assert rig.contents() == sorted(well)
        letters = {memory_id: error for memory_id, _, error in rig.letters()}
        assert letters.keys() == {*long, keys}
        if told:
            assert all("exceeds limit of 16384" in letters[one] for one in long)
            assert "current usage of 41 exceeds limit of 32" in letters[keys]
            assert way.times("/upsert") < 25  # one refusal tells of all long documents
        else:
            assert all("Quota exceeded" in error for error in letters.values())


@scenario
async def test_keys_that_only_have_to_go_do_not_count(rig: Rig, receiving: Server) -> None:
    with behind(rig, receiving, quotas(Limits())) as (writer, _):
        indexer = rig.indexer(rig.database(), writer=writer, max_attempts=1)
        wide = {f"old{n}": n for n in range(25)}
        changed, other = (rig.insert({"content": "rain", "metadata": wide}) for _ in range(2))
        await drain(indexer)
        rig.change(changed, "snow", **{f"new{n}": n for n in range(25)})
        rig.change(other, "snow", **{f"new{n}": n for n in range(32)})
        (outcome,) = await drain(indexer)
        assert (outcome.indexed, outcome.buried) == (1, 1)
        found = rig.found()
        assert set(found[f"memory_log_{changed}"][1]) == {*(f"new{n}" for n in range(25)), "created_at"}
        assert [letter[0] for letter in rig.letters()] == [other]
        assert set(found[f"memory_log_{other}"][1]) == {*wide, "created_at"}  # too many by itself: as it was


@pytest.mark.parametrize("verb", ["upsert", "collections"])
@scenario
async def test_a_quota_of_the_whole_is_no_records_fault(rig: Rig, receiving: Server, verb: str) -> None:
    name = "Collection size (records)" if verb == "upsert" else "Number of collections"
    words = f"Quota exceeded: '{name}' exceeded quota limit for action 'Add': current usage of 9 exceeds limit of 8"
    full = True

    def guard(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        refused = full and path.endswith(f"/{verb}") and bool(body)
        return (422, {"error": "ChromaError", "message": words}) if refused else None

    with behind(rig, receiving, guard) as (writer, way):
        indexer = rig.indexer(rig.database(), writer=writer, max_attempts=1)
        ids = remember(rig, 50)
        outcome = await indexer.step()
        assert (outcome.held, outcome.buried, outcome.postponed) == (50, 0, 0)
        assert sum(method == "POST" and path.endswith(f"/{verb}") for method, path in way.passed) == 1
        full = False
        rig.due_now()
        await drain(indexer)
        assert rig.contents() == ids


@pytest.mark.parametrize("told", [True, False])
def test_a_rebuild_within_quotas_makes_the_same_index(
    tmp_path: Path, ready_url: str, receiving: Server, told: bool
) -> None:
    with forwarder(receiving.url, guard=quotas(Limits(told=told))) as way:
        place = Place(tmp_path, ready_url, new_database(receiving), more={"CHROMA_PORT": way.url.rpartition(":")[2]})
        place.remember(ANN, range(700))
        long = place.sql(
            "INSERT INTO memory_logs (user_id, project_id, raw_data) SELECT %s, %s, %s FROM generate_series(1, 3) "
            "RETURNING id",
            *(ANN.user_id, ANN.project_id, Jsonb({"content": LONG, "metadata": {}})),
        )
        place.without_events()
        said = place.rebuild(code=4)
        assert said["records"] == 700
        troubled = said["collections"][0]["troubled"]
        assert set(troubled) == {f"memory_log_{id_}" for (id_,) in long}
        assert all("Quota exceeded" in why for why in troubled.values())
        assert {row[0] for row in place.sql("SELECT memory_id FROM outbox")} == {id_ for (id_,) in long}
        place.sql("DELETE FROM memory_logs WHERE raw_data ->> 'content' = %s", LONG)
        place.without_events()
        assert place.verify()["same"] is True
        place.chroma.delete(ANN.collection("memory"), *sorted(place.chroma.records(ANN.collection("memory")))[:2])
        assert place.verify(code=4)["collections"][0]["missing"] == 2
        assert place.rebuild()["status"] == "rebuilt"  # and 698 records of the old one are removed
        place.assert_indexed()
