"""Writing to the index, over the wire and into a directory: whole records, and what each failure is taken for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.config import Settings
from app.core.chroma.client import ChromaClient, http_client, persistent_client
from app.core.chroma.failures import Target
from app.core.chroma.session import Session
from app.core.chroma.writer import Entries, IndexWriter
from app.core.errors import (
    ChromaFailed,
    ChromaUnavailable,
    ChromaUncertain,
    CollectionUnwritable,
    RecordsRefused,
)
from support.forwarder import Fault, Forwarder, answering, forwarder
from support.servers import Server, chroma_server

RUN = "20261120T101500-0a1b2c"
_number = itertools.count(1)


def session_of(url: str, timeout: float = 10.0) -> Session:
    port = httpx.URL(url).port
    settings = Settings.model_validate(
        {"chroma_mode": "http", "chroma_host": "127.0.0.1", "chroma_port": port, "chroma_timeout_seconds": timeout}
    )
    return Session(partial(http_client, settings), Target(f"Chroma at {url}", remote=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with chroma_server(tmp_path_factory.mktemp("index") / "data") as running:
        yield running


@pytest.fixture(params=["server", "directory"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    if request.param == "server":
        made = session_of(request.getfixturevalue("server").url)
    else:
        target = Target(f"The Chroma directory {tmp_path}", remote=False)
        made = Session(partial(persistent_client, Settings(), tmp_path), target)
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    return f"mem.test-{next(_number)}"


def entries(*metadatas: dict[str, Any], dimension: int = 4, document: str = "text") -> Entries:
    """Records a, b, c, … with these metadata."""
    number = len(metadatas)
    vectors = np.eye(max(number, dimension), dimension, dtype=np.float32)[:number]
    return Entries([chr(97 + n) for n in range(number)], vectors, [f"{document} {n}" for n in range(number)], metadatas)


def held(session: Session, name: str) -> dict[str, tuple[Any, Any]]:
    def read(client: ChromaClient) -> dict[str, tuple[Any, Any]]:
        got = client.bind(client.get(name)).get(include=["documents", "metadatas"])
        rows = zip(got["ids"], got["documents"] or [], got["metadatas"] or [], strict=True)
        return {id_: (document, metadata) for id_, document, metadata in rows}

    return session.answer(read)


def test_what_a_record_no_longer_has_goes_from_the_index(session: Session, name: str) -> None:
    writer = IndexWriter(session)
    before = {"number": 1, "text": "x", "flag": True, "ratio": 0.5, "words": ["a", "b"], "numbers": [1, 2], "same": 1}
    writer.put(name, entries(before, before, document="old"))
    writer.put(name, entries({"same": 1, "words": ["c"], "new": "y"}, {}, document="new"))
    assert held(session, name) == {
        "a": ("new 0", {"same": 1, "words": ["c"], "new": "y"}),
        "b": ("new 1", None),
    }
    writer.put(name, entries(before))
    assert held(session, name)["a"] == ("text 0", before)


def test_a_value_may_change_its_type(session: Session, name: str) -> None:
    writer = IndexWriter(session)
    for value in (1, 1.0, "1", True, [1], ["1"], [1.0], [True], "1", 1):
        writer.put(name, entries({"key": value}))
        got = held(session, name)["a"][1]["key"]
        assert (got, type(got)) == (value, type(value))


def test_removing_takes_away_what_is_there(session: Session, name: str) -> None:
    writer = IndexWriter(session)
    writer.remove(name, ["a"])  # not even a collection
    writer.put(name, entries({"l": ["x"]}, {"n": 1}))
    writer.remove(name, ["a", "unknown"])
    assert list(held(session, name)) == ["b"]
    writer.put(name, entries({"n": 2}))
    assert held(session, name)["a"][1] == {"n": 2}  # nothing of the first life


@pytest.mark.parametrize("value", [{"nested": 1}, [1, "mixed"], [[1]]])
def test_a_record_that_chroma_has_no_form_for_is_refused(session: Session, name: str, value: Any) -> None:
    writer = IndexWriter(session)
    with pytest.raises(RecordsRefused):
        writer.put(name, entries({"key": value}))
    writer.put(name, entries({"key": "well"}))


def test_a_collection_of_another_dimension_is_at_fault_and_not_the_records(session: Session, name: str) -> None:
    writer = IndexWriter(session)
    writer.put(name, entries({}, dimension=3))
    with pytest.raises(CollectionUnwritable, match="dimension"):
        writer.put(name, entries({}, dimension=4))


def test_many_may_make_a_collection_at_once(session: Session, name: str) -> None:
    def put(number: int) -> None:
        vector = np.ones((1, 4), dtype=np.float32)
        IndexWriter(session).put(name, Entries([str(number)], vector, ["text"], [{"n": number}]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(24)))
    assert {record: metadata["n"] for record, (_, metadata) in held(session, name).items()} == {
        str(n): n for n in range(24)
    }
    names = [collection.name for collection in session.answer(lambda client: client.collections())]
    assert names.count(name) == 1


def test_between_the_two_renames_of_a_swap_no_third_collection_is_made(session: Session, name: str) -> None:
    writer = IndexWriter(session)
    writer.put(name, entries({"n": 1}))
    writer.put(f"{name}--m{RUN}", entries({"n": 2}))

    def rename(client: ChromaClient) -> None:
        client.bind(client.get(name)).modify(name=f"{name}--before-{RUN}")

    session.answer(rename)
    writer.put(name, entries({"n": 3}))
    writer.remove(name, ["nobody"])
    names = {collection.name for collection in session.answer(lambda client: client.collections())}
    assert name not in names
    assert held(session, f"{name}--before-{RUN}")["a"][1] == {"n": 3}


# Over the wire only: a connection can break ------------------------------------------------------------------


@contextmanager
def through(server: Server, *faults: Fault, timeout: float = 10.0) -> Iterator[tuple[IndexWriter, Forwarder]]:
    """A writer whose way to the server has these faults."""
    with forwarder(server.url) as way:
        session = session_of(way.url, timeout)
        try:
            way.faults += faults
            yield IndexWriter(session), way
        finally:
            session.close()


def test_a_collection_that_is_deleted_between_finding_and_writing_is_made_again(server: Server, name: str) -> None:
    deleted: list[str] = []

    def delete(path: str, body: dict[str, Any]) -> None:
        if path.endswith("/upsert") and not deleted:
            deleted.append(path)
            collections = path.split("/collections/")[0] + "/collections"
            httpx.delete(f"{server.url}{collections}/{name}", trust_env=False).raise_for_status()

    with forwarder(server.url, guard=delete) as way:
        session = session_of(way.url)
        IndexWriter(session).put(name, entries({"n": 1}))
        assert deleted
        assert held(session, name) == {"a": ("text 0", {"n": 1})}
        session.close()


def test_a_collection_that_is_gone_every_time_is_told(server: Server, name: str) -> None:
    def never(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        return (404, {"error": "NotFoundError", "message": "does not exist"}) if path.endswith("/upsert") else None

    with forwarder(server.url, guard=never) as way:
        session = session_of(way.url)
        with pytest.raises(CollectionUnwritable, match="gone"):
            IndexWriter(session).put(name, entries({}))
        assert way.times("/upsert") == 3
        session.close()


@pytest.mark.parametrize("kind", ["lost", "reset", "cut"])
def test_a_write_that_breaks_off_is_done_and_yet_not_certain(server: Server, name: str, kind: Any) -> None:
    """Who asks a second time does not know when the first is done."""
    with through(server, Fault(kind)) as (writer, way):
        with pytest.raises(ChromaUncertain):
            writer.put(name, entries({"n": 1}))
        assert way.times("/upsert") == 2
        assert held(writer.session, name)["a"][1] == {"n": 1}


def test_a_write_without_an_answer_is_not_certain(server: Server, name: str) -> None:
    with through(server, Fault("hang"), timeout=0.5) as (writer, _):
        with pytest.raises(ChromaUncertain, match="in time"):
            writer.put(name, entries({"n": 1}))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_a_gateway_does_not_know_is_not_certain(server: Server, name: str, status: int) -> None:
    with through(server, Fault("answer", status=status)) as (writer, _), pytest.raises(ChromaUncertain):
        writer.put(name, entries({"n": 1}))


def test_a_chroma_that_is_not_there_was_told_nothing(tmp_path: Path, name: str) -> None:
    with chroma_server(tmp_path / "data") as gone:
        session = session_of(gone.url)
        gone.stop()
        with pytest.raises(ChromaUnavailable) as caught:
            IndexWriter(session).put(name, entries({}))
        assert not isinstance(caught.value, ChromaUncertain)
        session.close()


def test_an_answer_that_is_no_chromas_blames_no_record(name: str) -> None:
    for body in (b"<html>welcome</html>", b'{"ok": true}', b"[]"):
        with answering(200, "application/json", body) as url:
            session = session_of(url)
            with pytest.raises(ChromaUnavailable):
                IndexWriter(session).put(name, entries({}))
            session.close()


def test_an_error_of_chromas_own_says_whether_the_collection_takes_anything(server: Server, name: str) -> None:
    error = (500, {"error": "InternalError", "message": "disk full"})

    def refuse(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        return error if path.endswith(broken) else None

    with forwarder(server.url, guard=refuse) as way:
        session = session_of(way.url)
        writer = IndexWriter(session)
        broken: tuple[str, ...] = ()
        writer.put(name, entries({}))
        broken = ("/upsert",)
        with pytest.raises(ChromaFailed):
            writer.put(name, entries({}))
        writer.check_writable(name)
        broken = ("/upsert", "/delete")
        with pytest.raises(CollectionUnwritable, match="disk full"):
            writer.check_writable(name)
        session.close()
