"""Generated records through every store, and through whole migrations.

Every one comes back equal (types exact, floats within 2 ULP, embeddings bit by bit or, of cosine collections, within
a relative 3e-7), or is a reject that says what is wrong with it.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given

from chromactl.landing import misfits
from chromactl.stores.base import Collection, CollectionSpec, Source, Target
from chromactl.stores.directory import DirectoryStore
from chromactl.stores.http_target import HttpTarget
from chromactl.stores.json_file import JsonStore, JsonTarget
from chromactl.stores.snapshot import SnapshotStore, SnapshotTarget
from support.command import Chromactl
from support.databases import Database, assert_holds, assert_same_metadata, new_database
from support.ended import Ended
from support.generated import made, reproducible
from support.records import Made, Record, batch_of
from support.servers import Server, Version

RUN = "20260101T000000-abcdef"
VERSIONS: tuple[Version, ...] = get_args(Version)
MODERN = ("1.0.21", "1.5.9")


def landing(one: Made) -> Made:
    """Those of its records that can land; of the others it is said what is wrong."""
    batch = batch_of(one.records)
    rejects = misfits(batch, batch.dimension, one.space)
    assert all(reject.id and reject.reason for reject in rejects)
    return one.only([record for record in one.records if record.id not in {reject.id for reject in rejects}])


def bring(target: Target, one: Made) -> Collection:
    """Into a collection of the target, staged and not yet live."""
    dimension = len(one.records[0].embedding) if one.records else None
    staged = target.stage(CollectionSpec(one.name, one.space, one.metadata, dimension=dimension), RUN)
    if one.records:
        assert target.write(staged, batch_of(one.records)) == []
    return staged


def check(store: Source, collection: Collection, one: Made) -> None:
    """The store gives back exactly these records."""
    assert sorted(store.ids(collection)) == sorted(record.id for record in one.records)
    batch, unreadable = store.read(collection, [record.id for record in one.records])
    assert unreadable == []
    columns = (batch.ids, batch.embeddings, batch.documents, batch.uris, batch.metadatas)
    found = {row[0]: Record(*row) for row in zip(*columns, strict=True)}
    assert_holds(found, one.records, one.space)
    about = collection.spec.metadata or {}
    assert_same_metadata({key: about[key] for key in about if not key.startswith("hnsw:")}, one.metadata or {})
    assert collection.spec.space == one.space


def through_databases(target: Target, again: Callable[[], Source], examples: int) -> None:
    """Each example a collection of its own; all of them read again in the end."""
    brought: dict[str, Made] = {}

    @reproducible(examples)
    @given(made(lists=True, wrong=True))
    def example(one: Made) -> None:
        one = replace(landing(one), name=f"c{uuid.uuid4().hex}")
        staged = bring(target, one)
        check(target, staged, one)
        target.swap([staged], RUN)
        brought[one.name] = one

    example()
    target.close()
    source = again()
    try:
        collections = {collection.name: collection for collection in source.collections()}
        assert set(collections) >= set(brought)
        for name, one in brought.items():
            check(source, collections[name], one)
    finally:
        source.close()


def test_through_a_server(receiving: Server) -> None:
    database = new_database(receiving)

    def opened() -> HttpTarget:
        return HttpTarget(database.url, database=database.name)

    through_databases(opened(), opened, 60)


def test_through_a_directory(tmp_path: Path) -> None:
    def opened(*, writable: bool = False) -> DirectoryStore:
        return DirectoryStore(
            tmp_path / "data", writable=writable, tenant="default_tenant", database="default_database", side="target"
        )

    through_databases(opened(writable=True), opened, 40)


FILES: dict[str, tuple[Callable[[Path], Target], Callable[[Path], Source]]] = {
    "snapshot": (lambda path: SnapshotTarget(path, "a test"), SnapshotStore),
    "json": (JsonTarget, JsonStore),
}


@pytest.mark.parametrize("kind", FILES)
def test_through_a_file(kind: str, tmp_path: Path) -> None:
    """Files keep whatever can be written down, also what cannot land in a server's collection of this metric."""
    target_of, source_of = FILES[kind]

    @reproducible(150)
    @given(made(lists=True))
    def example(one: Made) -> None:
        path = tmp_path / uuid.uuid4().hex
        target = target_of(path)
        staged = bring(target, one)
        check(target, staged, one)
        target.swap([staged], RUN)
        target.close()
        source = source_of(path)
        (collection,) = source.collections()
        check(source, collection, one)
        source.close()

    example()


# Whole migrations


def migrate(chromactl: Chromactl, folder: Path, source: list[str], target: list[str]) -> Ended:
    """One migration; all of its records are imported or rejected, with id, field and reason."""
    options = ["--profile", "identity", "--max-reject-rate", "1", "--json", "--checkpoint-dir", f"{folder}/checkpoints"]
    ended = chromactl("migrate", *source, *target, *options)
    assert ended.code == 0, ended.err
    for entry in ended.json["collections"].values():
        assert entry["imported"] + entry["rejected"] == entry["source"]
        assert entry["verified"] == entry["imported"]
    return ended


def rejected(ended: Ended) -> set[str]:
    """The ids that a migration says it rejected."""
    if ended.json["rejects_file"] is None:
        return set()
    lines = [orjson.loads(line) for line in Path(ended.json["rejects_file"]).read_bytes().splitlines()]
    assert all(line["id"] and line["reason"] and "field" in line for line in lines)
    return {line["id"] for line in lines}


def place(side: str, database: Database) -> list[str]:
    return [f"--{side}-url", database.url, "--database" if side == "source" else "--target-database", database.name]


def arrived(database: Database, one: Made) -> list[Record]:
    """The records that are there; they are some of these, as they were."""
    found = database.records(one.name)
    assert_holds(found, [record for record in one.records if record.id in found], one.space)
    about = database.description(one.name)["metadata"] or {}
    assert_same_metadata({key: about[key] for key in about if not key.startswith("hnsw:")}, one.metadata or {})
    return list(found.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_from_every_version_into_a_server_a_snapshot_and_a_server(
    version: Version, servers: Mapping[Version, Server], receiving: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    # 1.x servers have bent other vectors before anybody could read them, and 0.4.24 the booleans of a collection.
    modest = ("cosine",) if version in MODERN else ()

    @reproducible(8, shrink=False)
    @given(made(lists=version == "1.5.9", flags=version != "0.4.24", modest=modest, most=12))
    def example(one: Made) -> None:
        source, first, second = new_database(servers[version]), new_database(receiving), new_database(receiving)
        source.put(one)
        # A 1.x server rounds some floats when it takes them in, and the next one again.
        taken = arrived(source, one)
        assert len(taken) == len(one.records)
        one = one.only(taken)
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        begin = place("source", source)
        if source.server.token is not None:
            (folder / "token").write_text(source.server.token)
            begin += ["--source-token-file", f"{folder}/token"]
        ended = migrate(chromactl, folder, begin, place("target", first))
        there = arrived(first, one)
        gone = {record.id for record in one.records} - {record.id for record in there}
        assert gone == rejected(ended)
        assert not gone or (version not in MODERN and one.space == "cosine")
        for begin, end in (
            (place("source", first), ["--target-url", f"snapshot:{folder}/s"]),
            (["--source-url", f"snapshot:{folder}/s"], place("target", second)),
        ):
            assert rejected(migrate(chromactl, folder, begin, end)) == set()
        assert {record.id for record in arrived(second, one.only(there))} == {record.id for record in there}

    example()


def json_form(one: Made) -> dict[str, Any]:
    """A JSON backup as a person might have written it."""
    return {
        "format": "chroma-stack-json",
        "version": 1,
        "collections": [
            {
                "name": one.name,
                "space": one.space,
                "metadata": one.metadata,
                "hnsw": {},
                "embedding_function": None,
                "dimension": len(one.records[0].embedding),
                "records": [
                    {
                        "id": record.id,
                        "document": record.document,
                        "uri": record.uri,
                        "metadata": record.metadata,
                        "embedding": [float(number) for number in record.embedding],
                    }
                    for record in one.records
                ],
            }
        ],
    }


def test_from_a_file_with_what_cannot_land(receiving: Server, chromactl: Chromactl, tmp_path: Path) -> None:
    """What arrives is as it was; what does not is a reject, and only what has something wrong with it is one."""

    @reproducible(25, shrink=False)
    @given(made(lists=True, wrong=True, most=12))
    def example(one: Made) -> None:
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        (folder / "backup.json").write_bytes(orjson.dumps(json_form(one)))
        target = new_database(receiving)
        ended = migrate(chromactl, folder, ["--source-url", f"{folder}/backup.json"], place("target", target))
        there = {record.id for record in arrived(target, one)}
        assert {record.id for record in one.records} - there == rejected(ended)
        fine = {record.id for record in one.records if is_fine(record, one.space)}
        assert fine <= there

    example()


def is_fine(record: Record, space: str) -> bool:
    """Whether nothing at all is odd about the record."""
    numbers = [abs(float(number)) for number in record.embedding]
    length = math.hypot(*numbers)
    return (
        (space != "cosine" or not length or (1e-15 < length < 1e15 and all(not n or n > 1e-20 for n in numbers)))
        and all(isinstance(value, str | bool | float) for value in (record.metadata or {}).values())
        and all(key and key[0] not in "#$" and not key.startswith("chroma:") for key in record.metadata or {})
    )
