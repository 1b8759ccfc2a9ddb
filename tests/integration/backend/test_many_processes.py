"""http mode: as many processes as anybody likes write at once, and every embedding is the one that PostgreSQL has.

Compared record by record by an independent reader: four processes on one directory pass a comparison of counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.databases import DEFAULT, Database, assert_holds, same_database
from support.killable import Caller, Stack, stack
from support.process import children, running
from support.records import Made, nasty, plain
from support.servers import Server, Version, chroma_server

API_WORKERS = 4
WRITES = 2400
TENANTS = 6
# Long enough for several passages.
DOCUMENT = "Rain falls on the hills, and the river takes it to the sea. " * 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, module_ready_url: str) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("many")
    with (
        chroma_server(folder / "chroma") as chroma,
        stack(folder, chroma, module_ready_url, api_workers=API_WORKERS) as made,
    ):
        yield made
        said = made.said() + chroma.process.text()
        assert "database is locked" not in said
        assert "Traceback" not in said


async def write(callers: Sequence[Caller], number: int) -> None:
    """So many memories of each, all of them at once, every tenth changed, every twentieth forgotten; and a document."""

    async def remember(client: httpx.AsyncClient, one: int) -> None:
        body: dict[str, Any] = {"content": f"memory number {one}", "metadata": {"number": one, "even": one % 2 == 0}}
        made = await client.post("/memories", json=body)
        assert made.status_code == 201, made.text
        path = f"/memories/{made.json()['id']}"
        if one % 10 == 0:
            changed = await client.patch(path, json={"content": f"changed {one}", "metadata": {"number": one}})
            assert changed.status_code == 200, changed.text
        if one % 20 == 0:
            assert (await client.delete(path)).status_code == 204

    async def document(client: httpx.AsyncClient) -> None:
        made = await client.post("/rag/documents", json={"content": DOCUMENT, "source": "almanac"})
        assert made.status_code == 201, made.text

    work: list[Callable[[httpx.AsyncClient], Awaitable[None]]] = [
        document,
        *(partial(remember, one=one) for one in range(number)),
    ]
    await asyncio.gather(*(caller.each(work) for caller in callers))


def test_four_api_workers_and_two_index_workers_write_several_tenants_at_once(whole: Stack) -> None:
    whole.have_workers(2)
    assert len(children(whole.serving.process.pid)) >= API_WORKERS
    callers = [whole.caller() for _ in range(TENANTS)]
    before = whole.truth.memories()
    asyncio.run(write(callers, WRITES // TENANTS))
    whole.until_indexed()
    whole.assert_right()
    assert whole.truth.memories() - before > WRITES * 19 // 20


def left_by(version: Version, folder: Path, database: str, *collections: Made) -> Path:
    """A directory that a server of this version left."""
    with chroma_server(folder / version, version=version) as server:
        place = Database(server) if database == DEFAULT else same_database(server, database)
        place.put(*collections)
    return folder / version


def migration(source: Path, target: Server, database: str) -> list[str]:
    place = ["--source-url", f"path:{source}", "--target-url", target.url, "--database", database]
    return ["migrate", *place, "--profile", "identity", "--json"]


def test_migrations_into_the_same_server_meanwhile(whole: Stack, tmp_path: Path) -> None:
    """Two of them, of directories, one into the database that the index is in; one run at a time has a database."""
    wanted = {
        DEFAULT: [Made("pets", "cosine", plain(2500, 32)), Made("odds.and-ends", "l2", nasty(lists=False))],
        "archive": [Made("letters", "ip", plain(2500, 32, seed=2)), Made("pets", "l2", plain(500, seed=3))],
    }
    sources = {
        DEFAULT: left_by("0.6.3", tmp_path, DEFAULT, *wanted[DEFAULT]),
        "archive": left_by("1.5.9", tmp_path, "archive", *wanted["archive"]),
    }
    whole.have_workers(4)
    callers = [whole.caller() for _ in range(TENANTS)]
    for database in sources:
        (tmp_path / database).mkdir()
    same_database(whole.chroma, "archive")
    first, second = (migration(source, whole.chroma, database) for database, source in sources.items())
    with running(tmp_path / DEFAULT, *first) as one, running(tmp_path / "archive", *second) as two:
        rounds = 0
        while one.process.poll() is None or two.process.poll() is None:
            asyncio.run(write(callers, 30))
            rounds += 1
        ended = [one.end(), two.end()]
    assert [end.code for end in ended] == [0, 0], ended
    assert rounds > 1
    assert not any("database is locked" in end.err for end in ended)
    whole.until_indexed()
    whole.assert_right()
    for name, collections in wanted.items():
        place = Database(whole.chroma, name)
        for made in collections:
            assert_holds(place.records(made.name), made.records, made.space)
            assert place.counts()[made.name] == len(made.records)
            assert place.metric(made.name) == made.space
