"""Reading every version of server as its own: what it holds, what it refuses, what changes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import SecretStr

from chromactl import metric
from chromactl.errors import AuthenticationError, MissingCollectionError, PreconditionError
from chromactl.stores.base import Batch
from chromactl.stores.http import HttpStore
from support.command import Chromactl
from support.databases import Database, assert_holds, new_database
from support.records import Made, Record, menagerie, plain
from support.servers import Server, TokenHeader, Version, chroma_server

VERSIONS: tuple[Version, ...] = get_args(Version)
OVER_SQLITE_VARIABLES = 33_000  # SQLite takes 32,766 in one statement

every_version = pytest.mark.parametrize("version", VERSIONS)


def reader(server: Server, database: str = "default_database") -> HttpStore:
    token = SecretStr(server.token) if server.token else None
    return HttpStore(server.url, token=token, database=database)


def records_of(batch: Batch) -> dict[str, Record]:
    columns = zip(batch.ids, batch.embeddings, batch.documents, batch.uris, batch.metadatas, strict=True)
    return {row[0]: Record(*row) for row in columns}


@pytest.fixture
def server(version: Version, servers: Mapping[Version, Server]) -> Server:
    return servers[version]


@pytest.fixture
def store(server: Server) -> Iterator[HttpStore]:
    with closing(reader(server)) as opened:
        yield opened


@pytest.fixture
def own(server: Server) -> Database:
    """An empty database."""
    return new_database(server)


@every_version
def test_all_that_it_holds_is_read(version: Version, store: HttpStore) -> None:
    wanted = menagerie(lists=version == "1.5.9")
    found = store.collections()
    assert [entry.name for entry in found] == [made.name for made in wanted]
    for collection, made in zip(found, wanted, strict=True):
        ids = store.ids(collection)
        assert store.count(collection) == len(ids) == len(set(ids)) == len(made.records)
        batch, unreadable = store.read(collection, ids)
        assert unreadable == []
        assert_holds(records_of(batch), made.records, made.space)
        assert collection.spec.space == made.space
        assert {key: collection.spec.hnsw[key] for key in made.hnsw} == made.hnsw
        if made.records:
            assert metric.prove(store, collection, ids) == made.space


@every_version
def test_what_is_not_there_is_left_out(store: HttpStore) -> None:
    collection = store.collections()[-1]
    batch, unreadable = store.read(collection, ["r00003", "not there", "r00001"])
    assert (sorted(batch.ids), unreadable) == (["r00001", "r00003"], [])
    assert len(store.read_text(collection, ["not there"])) == 0
    assert store.find("not there") is None
    found = store.find(collection.name)
    assert found is not None
    assert found.key == collection.key


@every_version
def test_its_index_answers(store: HttpStore) -> None:
    collection = store.collections()[-1]
    batch, _ = store.read(collection, ["r00007"])
    found = store.nearest(collection, batch.embeddings[0], 3)
    assert found[0].id == "r00007"
    assert [near.distance for near in found] == sorted(near.distance for near in found)
    filtered = store.nearest(collection, batch.embeddings[0], 3, {"number": {"$gte": 118}})
    assert {near.id for near in filtered} == {"r00118", "r00119"}


@every_version
def test_a_collection_removed_while_it_is_read_is_said_to_be(server: Server, own: Database) -> None:
    own.put(Made("pets", "l2", plain(5)))
    with closing(reader(server, own.name)) as store:
        (collection,) = store.collections()
        own.drop("pets")
        for look in (store.count, store.ids, lambda gone: store.read(gone, ["r00001"])):
            with pytest.raises(MissingCollectionError, match="pets was removed while it was read"):
                look(collection)


@every_version
def test_a_database_that_is_not_there_is_said_not_to_be(server: Server) -> None:
    with pytest.raises(PreconditionError, match="no database 'nowhere' of tenant 'default_tenant'"):
        reader(server, "nowhere")


@pytest.mark.parametrize("version", ["0.6.3", "1.0.21", "1.5.9"])
def test_its_databases_are_listed(server: Server, own: Database, store: HttpStore) -> None:
    names = store.databases()
    assert {"default_database", own.name} <= set(names)
    assert names == sorted(names)


@pytest.mark.parametrize("version", ["0.4.24", "0.5.23"])
def test_a_version_that_does_not_list_its_databases_says_what_to_do(store: HttpStore) -> None:
    with pytest.raises(PreconditionError, match="name each with --database, or migrate a copy of its directory"):
        store.databases()


@pytest.mark.parametrize("version", ["0.4.24", "1.5.9"])
def test_more_records_than_sqlite_takes_variables(server: Server, own: Database) -> None:
    """A get of all of them with metadata fails on every version ("too many SQL variables")."""
    records = [Record(f"r{n:05d}", np.asarray([n, 1], "<f4"), metadata={"n": n}) for n in range(OVER_SQLITE_VARIABLES)]
    own.put(Made("large", "l2", []))
    for start in range(0, len(records), 3000):
        own.upsert("large", *records[start : start + 3000])
    with closing(reader(server, own.name)) as store:
        (collection,) = store.collections()
        ids = store.ids(collection)
        batch, unreadable = store.read(collection, ids)
    assert unreadable == []
    assert_holds(records_of(batch), records, "l2")


@every_version
def test_neither_deletes_nor_inserts_meanwhile_shift_what_is_read(server: Server, own: Database) -> None:
    """Reading by offset misses and doubles records then, on every version."""
    records = plain(2000)
    own.put(Made("pets", "l2", records))
    gone = {record.id for record in records[:700:7]}
    with closing(reader(server, own.name)) as store:
        (collection,) = store.collections()
        ids = store.ids(collection)
        found, _ = store.read(collection, ids[:500])
        own.delete("pets", *gone)
        own.upsert("pets", *plain(100, prefix="a"), *plain(100, prefix="z"))
        later, unreadable = store.read(collection, ids[500:])
    assert unreadable == []
    read = [*found.ids, *later.ids]
    assert len(read) == len(set(read))
    assert {record.id for record in records} - set(read) <= gone
    assert set(read) <= {record.id for record in records}


# Tokens

OTHERS: list[tuple[Version, TokenHeader]] = [
    ("0.4.24", "Authorization"),
    ("0.5.23", "X-Chroma-Token"),
    ("0.6.3", "X-Chroma-Token"),
]


@pytest.mark.parametrize(("version", "header"), OTHERS)
def test_the_token_goes_in_either_header(version: Version, header: TokenHeader, tmp_path: Path) -> None:
    """The shared servers read the other one."""
    with chroma_server(tmp_path / "data", version=version, token="t0ken", header=header) as server:
        with closing(reader(server)) as store:
            assert store.collections() == []
        for wrong in (None, SecretStr("wr0ng")):
            with pytest.raises(AuthenticationError, match="--source-token-file"):
                HttpStore(server.url, token=wrong)


@pytest.mark.parametrize("version", ["0.4.24", "0.5.23", "0.6.3"])
def test_a_server_without_a_token_needs_none(version: Version, tmp_path: Path) -> None:
    with chroma_server(tmp_path / "data", version=version) as server:
        Database(server).put(Made("pets", "ip", plain(3)))
        for token in (None, SecretStr("superfluous")):
            with closing(HttpStore(server.url, token=token)) as store:
                assert [entry.name for entry in store.collections()] == ["pets"]


def test_a_server_of_v1_only_is_no_target(
    servers: Mapping[Version, Server], modern: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    server = servers["0.4.24"]
    before = Database(server).counts()
    (tmp_path / "token").write_text(str(server.token))
    place = ["--source-url", modern.url, "--target-url", server.url, "--target-token-file", "token"]
    ended = chromactl("migrate", *place, "--profile", "identity", "--json")
    assert ended.code == 3, ended.err
    assert "speaks only the v1 API" in ended.complaint
    assert "name a Chroma 1.x server" in ended.complaint
    assert Database(server).counts() == before
