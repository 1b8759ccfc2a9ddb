"""Whatever dies, and whenever: the index ends as PostgreSQL says, compared record by record by an independent reader.

Real processes all of them. They are shared by the tests of this module; each test has tenants of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.killable import Caller, Stack, stack, until
from support.postgres import Postgres
from support.servers import Process, chroma_server

API_WORKERS = 4
WRITES = 5000
OUTAGE_SECONDS = 60.0
KILLS = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, module_ready_url: str) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("faults")
    with (
        chroma_server(folder / "chroma") as chroma,
        stack(folder, chroma, module_ready_url, api_workers=API_WORKERS, CHROMA_TIMEOUT_SECONDS="5") as running,
    ):
        yield running
        said = running.said()
        assert "Traceback" not in said
        assert "database is locked" not in said
        assert "Unexpected" not in said


@pytest.fixture
def caller(whole: Stack) -> Caller:
    return whole.caller()


def post(number: int, **metadata: Any) -> Callable[[httpx.AsyncClient], Awaitable[int]]:
    """Remember something; the status."""

    async def call(client: httpx.AsyncClient) -> int:
        body = {"content": f"memory number {number}", "metadata": {"number": number, **metadata}}
        return (await client.post("/memories", json=body)).status_code

    return call


NEW_ROUND = (
    "UPDATE memory_logs SET raw_data = jsonb_set(raw_data, '{metadata,round}', %s::text::jsonb) WHERE user_id = %s"
)


def search(number: int) -> Callable[[httpx.AsyncClient], Awaitable[list[int]]]:
    """Search for one memory; the numbers that are found."""

    async def call(client: httpx.AsyncClient) -> list[int]:
        body = {"query": f"memory number {number}", "where": {"number": number}, "limit": 5}
        answer = await client.post("/memories/search", json=body)
        assert answer.status_code == 200, answer.text
        return [result["metadata"]["number"] for result in answer.json()["results"]]

    return call


def test_chroma_is_killed_while_5000_memories_are_written(whole: Stack, caller: Caller) -> None:
    """And stays away for a minute: every write is 201, all of them are found when it is back, none twice."""
    whole.have_workers(2)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(asyncio.run, caller.each([post(number) for number in range(WRITES)]))
        until(lambda: whole.truth.memories() > WRITES // 10, "a tenth is written")
        whole.chroma.kill()
        time.sleep(OUTAGE_SECONDS)  # the outage itself
        assert whole.truth.waiting() > 0
        whole.restart_chroma()
        statuses = writing.result()
    assert statuses == [201] * WRITES
    whole.until_indexed()
    whole.assert_right(memories=WRITES)
    sample = range(0, WRITES, 20)
    found = asyncio.run(caller.each([search(number) for number in sample]))
    assert found == [[number] for number in sample]
    assert "indexing waits: " in whole.said()  # whether refused or cut off, as each worker met it
    assert "indexing goes on after" in whole.said()


def test_index_workers_are_killed_in_the_middle_of_batches(whole: Stack, caller: Caller) -> None:
    """Twenty times, with memories changing meanwhile."""
    whole.have_workers(3)
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(whole.database_url, autocommit=True) as writer:
            number = 0
            while not ended.is_set():
                number += 1
                raw_data = Jsonb({"content": f"text {number}", "metadata": {"n": number, f"key{number % 7}": "x"}})
                writer.execute(
                    "INSERT INTO memory_logs (user_id, project_id, raw_data) SELECT %s, 'first', %s "
                    "FROM generate_series(1, 5)",
                    (caller.tenant.user_id, raw_data),
                )
                writer.execute(
                    "UPDATE memory_logs SET raw_data = %s WHERE id IN "
                    "(SELECT id FROM memory_logs WHERE user_id = %s ORDER BY random() LIMIT 5)",
                    (raw_data, caller.tenant.user_id),
                )
                writer.execute(
                    "DELETE FROM memory_logs WHERE id IN "
                    "(SELECT id FROM memory_logs WHERE user_id = %s ORDER BY random() LIMIT 1)",
                    (caller.tenant.user_id,),
                )

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(KILLS):
                victim = kill_one_with_a_batch(whole)
                assert victim.popen.returncode == -signal.SIGKILL
                whole.begin_worker()
        finally:
            ended.set()
        writing.result()
    whole.until_indexed()
    whole.assert_right()


def kill_one_with_a_batch(whole: Stack) -> Process:
    """SIGKILL to an index worker that holds a batch, and still does when it is gone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for worker, _ in whole.in_hand():
            worker.kill()
            return worker
    raise AssertionError("no worker had a batch in hand")


def test_deletes_changes_and_reused_ids_race_with_the_workers(whole: Stack, caller: Caller) -> None:
    """Many interleavings of four workers and six writers on few records, some of which change their tenant."""
    whole.have_workers(4)
    other = f"{caller.tenant.user_id}-other"
    ids = range(10_000_000, 10_000_020)

    def race(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 (no secret)
        with psycopg.connect(whole.database_url, autocommit=True) as writer:
            for step in range(120):
                id_ = chance.choice(ids)
                raw_data = Jsonb({"content": f"by {seed} at {step}", "metadata": {f"key{chance.randrange(4)}": step}})
                deed = chance.random()
                if deed < 0.35:
                    writer.execute("DELETE FROM memory_logs WHERE id = %s", (id_,))
                elif deed < 0.7:
                    user = chance.choice([caller.tenant.user_id, other])
                    writer.execute(
                        "INSERT INTO memory_logs (id, user_id, project_id, raw_data) VALUES (%s, %s, 'first', %s) "
                        "ON CONFLICT DO NOTHING",
                        (id_, user, raw_data),
                    )
                else:
                    writer.execute("UPDATE memory_logs SET raw_data = %s WHERE id = %s", (raw_data, id_))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(race, range(6)))
    whole.until_indexed()
    whole.assert_right()
    assert whole.sql("SELECT count(DISTINCT user_id) FROM memory_logs WHERE id >= %s", ids[0]) == [(2,)]


def test_a_storm_of_changes_on_one_record_ends_with_the_last(whole: Stack, caller: Caller) -> None:
    whole.have_workers(4)

    async def storm() -> tuple[int, list[int]]:
        async with caller.client() as client:
            made = await client.post("/memories", json={"content": "calm", "metadata": {"number": 0}})
            path = f"/memories/{made.json()['id']}"

            async def change(one: int) -> list[int]:
                statuses = []
                for number in range(40):
                    body = {"content": f"storm {one} {number}", "metadata": {f"by{one}": number, "number": number}}
                    statuses.append((await client.patch(path, json=body)).status_code)
                return statuses

            statuses = await asyncio.gather(*(change(one) for one in range(8)))
            return int(made.json()["id"]), [status for each in statuses for status in each]

    record, statuses = asyncio.run(storm())
    assert statuses == [200] * 320
    assert whole.sql("SELECT revision FROM memory_logs WHERE id = %s", record) == [(321,)]
    whole.until_indexed()
    whole.assert_right()


def test_a_worker_that_was_stopped_in_its_request_leaves_nothing_stale(whole: Stack, caller: Caller) -> None:
    """Its session is ended meanwhile and others go on; what it does when it wakes is out of date."""
    (stalled,) = whole.have_workers(1)
    asyncio.run(caller.each([post(number, round=0) for number in range(200)]))
    whole.until_indexed()
    for round_ in range(1, 6):
        whole.sql(NEW_ROUND, round_ * 2 - 1, caller.tenant.user_id)
        for session in stop_with_a_batch(whole, stalled):
            assert whole.sql("SELECT pg_terminate_backend(%s, 10000)", session) == [(True,)]
        whole.sql(NEW_ROUND, round_ * 2, caller.tenant.user_id)
        other = whole.begin_worker()
        until(lambda: whole.truth.waiting() == 0, "another worker has done it all")
        os.kill(stalled.pid, signal.SIGCONT)
        until(lambda: not whole.in_hand([stalled]), "the stalled worker has noticed")
        other.stop()
        until(lambda: whole.truth.waiting() == 0, "it goes on")
    stalled.stop()
    whole.have_workers(1)
    whole.until_indexed()
    whole.assert_right()


def stop_with_a_batch(whole: Stack, worker: Process) -> list[int]:
    """SIGSTOP to the worker while it holds a batch; its sessions that are in a transaction."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if whole.in_hand([worker]):
            os.kill(worker.pid, signal.SIGSTOP)
            if sessions := [session for _, session in whole.in_hand([worker])]:
                return sessions
            os.kill(worker.pid, signal.SIGCONT)
    raise AssertionError("the worker had no batch in hand")
