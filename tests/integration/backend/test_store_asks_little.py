"""What a search asks of a server that holds many collections: for its own name, and not for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from app.config import Settings
from app.core.chroma.deadline import within
from app.core.chroma.store import ChromaStore
from app.core.chroma.stores import ChromaStores
from app.core.errors import ChromaTimeout, UnknownCollection
from support.databases import Database, new_database
from support.forwarder import Fault, Forwarder, Guard, forwarder
from support.records import Made, plain
from support.servers import Server

RUN = "20261120T101500-0a1b2c"
VECTOR = np.ones(8, np.float32)


@pytest.fixture
def chroma(receiving: Server) -> Database:
    made = new_database(receiving)
    made.put(*(Made(f"many-{number}", "cosine", plain(2, prefix=f"r{number}-")) for number in range(5)))
    return made


@contextmanager
def searching(chroma: Database, guard: Guard | None = None) -> Iterator[tuple[ChromaStore, Forwarder]]:
    with forwarder(chroma.url, guard=guard) as way:
        port = int(way.url.rpartition(":")[2])
        settings = Settings(chroma_mode="http", chroma_host="127.0.0.1", chroma_port=port, chroma_database=chroma.name)
        stores = ChromaStores(settings.model_copy(update={"chroma_resolve_seconds": 3600.0}))
        try:
            yield stores.memory, way
        finally:
            stores.close()


def listings(way: Forwarder) -> int:
    return sum(urlsplit(path).path.endswith("/collections") for _, path in way.passed)


def test_a_search_asks_for_its_name_once(chroma: Database) -> None:
    with searching(chroma) as (store, way):
        for _ in range(3):
            assert {hit.id for hit in store.query("many-3", VECTOR, 5)} == {"r3-00000", "r3-00001"}
        assert (way.times("/collections/many-3"), way.times("/query"), listings(way)) == (1, 3, 0)


def test_names_that_nobody_has_cost_one_list_together_and_are_found_as_soon_as_they_are_there(chroma: Database) -> None:
    with searching(chroma) as (store, way):
        for name in ("late-0", "late-1", "late-0"):
            with pytest.raises(UnknownCollection):
                store.query(name, VECTOR, 5)
        once = listings(way)
        chroma.put(Made("late-0", "cosine", plain(3)))
        assert len(store.query("late-0", VECTOR, 5)) == 3
        with pytest.raises(UnknownCollection):
            store.query("late-1", VECTOR, 5)
        assert listings(way) == once == 2  # one list, and whether there is more of it


def test_what_is_between_two_renames_is_found_by_the_list(chroma: Database) -> None:
    chroma.put(Made(f"many-3--m{RUN}", "cosine", plain(1, prefix="new")))
    with searching(chroma) as (store, way):
        assert len(store.query("many-3", VECTOR, 5)) == 2
        key = chroma.description("many-3")["id"]
        chroma.request("PUT", f"/collections/{key}", {"new_name": f"many-3--before-{RUN}"})
        assert len(store.query("many-3", VECTOR, 5)) == 2
        assert listings(way) == 0
    with searching(chroma) as (store, way):  # who begins now has never seen it
        assert {hit.collection for hit in store.query("many-3", VECTOR, 5)} == {"many-3"}
        assert listings(way) == 2


@pytest.mark.parametrize("name", ["../..", "many-3/query", "many-3?x=1", "", "..", f"many-3--m{RUN}"])
def test_a_name_that_cannot_be_one_is_not_sent(chroma: Database, name: str) -> None:
    with searching(chroma) as (store, way):
        with pytest.raises(UnknownCollection):
            store.query(name, VECTOR, 5)
        assert way.passed == []


def test_a_list_that_comes_in_pages_is_read_to_its_end(chroma: Database) -> None:
    every = chroma.request("GET", "/collections")

    def two_at_once(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        parts = urlsplit(path)
        if body or not parts.path.endswith("/collections"):
            return None
        asked = parse_qs(parts.query)
        start = int(asked.get("offset", ["0"])[0])
        return 200, every[start : start + min(2, int(asked.get("limit", ["2"])[0]))]

    with searching(chroma, two_at_once) as (store, _):
        assert set(store.collections()) == {f"many-{number}" for number in range(5)}
        assert set(store.listed()) == {f"many-{number}" for number in range(5)}


def test_a_list_that_takes_longer_than_a_search_waits_is_waited_for(chroma: Database) -> None:
    waited: list[str] = []

    def slow(path: str, body: dict[str, Any]) -> None:
        if urlsplit(path).path.endswith("/collections") and not waited:
            waited.append(path)
            threading.Event().wait(2.5)

    with searching(chroma, slow) as (store, _), within(2.0):
        assert store.find("late") is None
        assert waited
        assert len(store.query("many-3", VECTOR, 5)) == 2  # and the search has the rest of its time


def test_a_server_that_hangs_over_a_name_is_not_waited_for(chroma: Database) -> None:
    with searching(chroma) as (store, way), within(0.3):
        way.faults.append(Fault("hang", on=("/collections/many-3",)))
        with pytest.raises(ChromaTimeout):
            store.query("many-3", VECTOR, 5)
