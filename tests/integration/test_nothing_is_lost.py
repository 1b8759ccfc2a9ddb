"""What other tools lose or bend on the way from Chroma to Chroma, one promise each.

Seen in chroma copy, vdf-io, chromadb-data-pipes and qdrant/migration. `moved` is one migration; the source and the
target are compared by plain REST and Chroma's own client.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from chromadb import EmbeddingFunction, Embeddings
from chromadb.api.types import Embeddable
from chromadb.utils.embedding_functions import register_embedding_function
from numpy.typing import NDArray

from chromactl import cli
from support.command import Chromactl, clean_environment, close_log_files
from support.databases import Database, assert_holds, new_database, same_database
from support.records import Made, Record, menagerie, plain, vectors
from support.servers import Server

MANY = Made("many", "l2", plain(2300))
FUNCTION = {
    "type": "known",
    "name": "openai",
    "config": {"model_name": "text-embedding-3-small", "api_key_env_var": "NO_SUCH_VARIABLE"},
}
WANTED = {made.name: made for made in [*menagerie(lists=True), MANY]}

Pair = tuple[Database, Database]


@register_embedding_function
class Own(EmbeddingFunction[Embeddable]):
    """An application's embedding function."""

    def __init__(self) -> None:
        """Say that it needs nothing."""

    def __call__(self, input: Embeddable) -> Embeddings:
        return [np.zeros(8, np.float32) for _ in input]

    @staticmethod
    def name() -> str:
        return "own"

    def get_config(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> EmbeddingFunction[Embeddable]:
        return Own()


@pytest.fixture(scope="module")
def moved(modern: Server, receiving: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The menagerie, a collection of many batches and one with an embedding function: as they were, as they are."""
    source = new_database(modern)
    target = same_database(receiving, source.name)
    source.put(*WANTED.values())
    source.request("POST", "/collections", {"name": "function", "configuration": {"embedding_function": FUNCTION}})
    source.upsert("function", *plain(3))
    place = ["--source-url", source.url, "--target-url", target.url, "--database", source.name]
    with clean_environment(tmp_path_factory.mktemp("moved")):
        assert cli.run(["migrate", *place, "--profile", "identity", "--batch-size", "77", "--json"]) == 0
        close_log_files()
        yield source, target


def both(moved: Pair, collection: str, record: str) -> tuple[Record, Record]:
    return moved[0].records(collection)[record], moved[1].records(collection)[record]


def test_every_batch_arrives_and_not_only_the_last(moved: Pair) -> None:
    assert_holds(moved[1].records("many"), MANY.records, "l2")


@pytest.mark.parametrize("collection", ["nasty-ip", "nasty_cosine", "plain-l2"])
def test_the_metric_stays(moved: Pair, collection: str) -> None:
    assert moved[1].metric(collection) == WANTED[collection].space


@pytest.mark.parametrize("collection", WANTED)
def test_collection_metadata_stays(moved: Pair, collection: str) -> None:
    assert moved[1].description(collection)["metadata"] == WANTED[collection].metadata


@pytest.mark.parametrize("collection", WANTED)
def test_index_settings_stay(moved: Pair, collection: str) -> None:
    before, after = (database.description(collection)["configuration_json"]["hnsw"] for database in moved)
    assert after == before


@pytest.mark.parametrize("collection", WANTED)
def test_no_embedding_function_is_stamped_on(moved: Pair, collection: str) -> None:
    """With "default" stamped on it, an application's own function would be refused by Chroma's client."""
    before, after = (database.description(collection)["configuration_json"]["embedding_function"] for database in moved)
    assert after == before is None
    with moved[1].client() as client:
        assert client.get_collection(collection, embedding_function=Own()).name == collection


def test_an_embedding_function_is_carried_over_as_data(moved: Pair) -> None:
    """Nothing is made of it: neither its library nor its key is there."""
    before, after = (database.description("function")["configuration_json"]["embedding_function"] for database in moved)
    assert before == after == FUNCTION
    assert_holds(moved[1].records("function"), plain(3), "l2")


def test_documents_stay_documents(moved: Pair) -> None:
    old, new = both(moved, "many", "r00007")
    assert (new.document, new.metadata) == (old.document, old.metadata) == (
        "document 7 of r", {"number": 7, "odd": True}
    )  # fmt: skip


@pytest.mark.parametrize("collection", ["nasty-ip", "nasty_cosine"])
@pytest.mark.parametrize(
    ("record", "key", "value"),
    [
        ("ints", "one", 1),
        ("ints", "max", 2**63 - 1),
        ("ints", "safe", 2**53 + 1),
        ("whole floats", "one", 1.0),
        ("whole floats", "zero", 0.0),
        ("bools", "yes", True),
        ("bools", "one", 1),
        ("bools", "onef", 1.0),
        ("list int", "l", [3, 1, 2, 2**63 - 1]),
        ("list bool", "l", [True, False, True]),
    ],
)
def test_types_of_metadata_stay(moved: Pair, collection: str, record: str, key: str, value: object) -> None:
    found = (moved[1].records(collection)[record].metadata or {})[key]
    assert (found, type(found)) == (value, type(value))


def test_an_empty_document_is_kept_and_none_stays_none(moved: Pair) -> None:
    assert [one.document for one in both(moved, "nasty-ip", "empty document")] == ["", ""]
    assert [one.document for one in both(moved, "nasty-ip", "none")] == [None, None]


@pytest.mark.parametrize("record", ["uri only", "uri and text"])
def test_uris_are_kept(moved: Pair, record: str) -> None:
    old, new = both(moved, "nasty-ip", record)
    assert old.uri is not None
    assert new.uri == old.uri


def test_a_record_without_metadata_is_no_error_and_gets_none(moved: Pair) -> None:
    assert [one.metadata for one in both(moved, "nasty-ip", "no metadata")] == [None, None]


def test_an_empty_collection_arrives(moved: Pair) -> None:
    assert "empty.one" in moved[1].names()
    assert moved[1].counts()["empty.one"] == 0


def test_a_misspelt_collection_is_not_made_in_the_source(
    modern: Server, receiving: Server, chromactl: Chromactl
) -> None:
    source = new_database(modern)
    source.put(Made("pets", "l2", plain(3)))
    place = ["--source-url", source.url, "--target-url", receiving.url]
    place += ["--database", source.name, "--target-database", "default_database"]
    ended = chromactl("migrate", *place, "--profile", "identity", "--collection", "pest", "--json")
    assert ended.code in (2, 3), ended.err
    assert "pest" in ended.complaint
    assert source.names() == ["pets"]


class Writer(threading.Thread):
    """Deletes old records and inserts new ones, a few at a time, until it is told to end."""

    def __init__(self, database: Database, collection: str, doomed: list[str]) -> None:
        super().__init__()
        self._database = database
        self._collection = collection
        self._doomed = doomed
        self.first_done = threading.Event()
        self.enough = threading.Event()

    def run(self) -> None:
        for number, record in enumerate(self._doomed):
            self._database.delete(self._collection, record)
            self._database.upsert(
                self._collection, *plain(2, 64, prefix=f"a{number}-"), *plain(2, 64, prefix=f"z{number}-")
            )
            self.first_done.set()
            if self.enough.is_set():
                return


def test_records_that_stay_arrive_once_while_others_come_and_go(
    modern: Server, receiving: Server, chromactl: Chromactl
) -> None:
    source = new_database(modern)
    target = same_database(receiving, source.name)
    vector: NDArray[np.float32] = vectors(3000, 64)
    records = [Record(f"r{n:05d}", row, f"text {n}", None, {"n": n}) for n, row in enumerate(vector)]
    source.put(Made("pets", "l2", records))
    doomed = {record.id for record in records[::3]}
    writer = Writer(source, "pets", sorted(doomed))
    writer.start()
    try:
        assert writer.first_done.wait(30)
        place = ["--source-url", source.url, "--target-url", target.url, "--database", source.name]
        ended = chromactl("migrate", *place, "--profile", "identity", "--json")
    finally:
        writer.enough.set()
        writer.join()
    assert ended.code == 0, ended.err
    found = target.records("pets")
    staying = [record for record in records if record.id not in doomed]
    assert_holds({record.id: found[record.id] for record in staying}, staying, "l2")
    assert target.counts() == {"pets": len(found)}
    again = chromactl("migrate", *place, "--profile", "identity", "--json")
    assert again.code == 0, again.err
    assert_holds(target.records("pets"), source.records("pets").values(), "l2")


def test_switches_of_single_indexes_are_kept(pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    """1.5 can leave keys without an index; a copy with the default schema would index them again."""
    source, target = pair
    source.put(Made("plain", "cosine", plain(3)))
    schema = source.description("plain")["schema"]
    schema["keys"]["secret"] = {"string": {"string_inverted_index": {"enabled": False, "config": {}}}}
    schema["keys"]["#document"]["string"]["fts_index"]["enabled"] = False
    schema["keys"]["#embedding"]["float_list"]["vector_index"]["config"]["hnsw"]["ef_search"] = 77
    source.request("POST", "/collections", {"name": "switched", "schema": schema})
    source.upsert("switched", *plain(5))
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, "--database", source.name,
                      "--profile", "identity")  # fmt: skip
    assert ended.code == 0, ended.err
    assert target.description("switched")["schema"] == source.description("switched")["schema"]
    assert target.description("plain")["schema"] == source.description("plain")["schema"]
    assert_holds(target.records("switched"), plain(5), "cosine")
