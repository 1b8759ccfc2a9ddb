from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from chromactl.errors import ChromactlError, NotChromaError, PreconditionError
from chromactl.snapshot.manifest import read_manifest
from chromactl.stores.json_file import JsonStore, JsonTarget
from chromactl.stores.snapshot import SnapshotStore, SnapshotTarget, folder_name
from support.records import Made, batch_of, nasty, plain, spec_of
from support.store_contract import RUN, Place, StoreContract


class TestSnapshot(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        target = SnapshotTarget(tmp_path / "snapshot", "http://old:8000")
        yield Place(target, lambda: SnapshotStore(tmp_path / "snapshot"))
        target.close()


class TestJson(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        target = JsonTarget(tmp_path / "backup.json")
        yield Place(target, lambda: JsonStore(tmp_path / "backup.json"))
        target.close()


# Snapshots


def snapshot(folder: Path, *collections: Made) -> Path:
    target = SnapshotTarget(folder, "http://old:8000")
    staged = []
    for made in collections:
        staged.append(target.stage(spec_of(made), RUN))
        target.write(staged[-1], batch_of(made.records))
    target.swap(staged, RUN)
    target.close()
    return folder


def test_a_snapshot_appears_at_once_and_complete(tmp_path: Path) -> None:
    target = SnapshotTarget(tmp_path / "s", "")
    staged = target.stage(spec_of(Made("pets", "l2", plain(5))), RUN)
    target.write(staged, batch_of(plain(5)))
    assert not (tmp_path / "s").exists()
    target.swap([staged], RUN)
    target.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]


def test_an_unfinished_snapshot_is_removed(tmp_path: Path) -> None:
    target = SnapshotTarget(tmp_path / "s", "")
    target.write(target.stage(spec_of(Made("pets", "l2", plain(5))), RUN), batch_of(plain(5)))
    target.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_does_not_get_into_the_next_snapshot(tmp_path: Path) -> None:
    left = SnapshotTarget(tmp_path / "s", "")
    left.write(left.stage(spec_of(Made("left", "l2", plain(5))), RUN), batch_of(plain(5)))
    snapshot(tmp_path / "s", Made("pets", "l2", plain(3)))
    assert [entry.name for entry in SnapshotStore(tmp_path / "s").collections()] == ["pets"]


def test_an_empty_folder_may_become_a_snapshot_but_no_other(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    snapshot(tmp_path / "s", Made("pets", "l2", plain(3)))
    before = (tmp_path / "s" / "manifest.json").read_bytes()
    with pytest.raises(PreconditionError, match="there is something in this folder"):
        SnapshotTarget(tmp_path / "s", "")
    assert (tmp_path / "s" / "manifest.json").read_bytes() == before


def test_a_file_in_the_way_of_a_snapshot_is_said(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(PreconditionError, match=str(tmp_path / "s")):
        SnapshotTarget(tmp_path / "s", "")
    assert (tmp_path / "s").read_text() == "mine"


def test_the_manifest_counts_what_is_there(tmp_path: Path) -> None:
    (entry,) = read_manifest(snapshot(tmp_path / "s", Made("pets", "l2", nasty(lists=True)))).collections
    assert entry.count == sum(shard.rows for shard in entry.shards) == len(nasty(lists=True))


def test_a_repeated_write_is_counted_once(tmp_path: Path) -> None:
    target = SnapshotTarget(tmp_path / "s", "")
    staged = target.stage(spec_of(Made("pets", "l2", plain(5))), RUN)
    target.write(staged, batch_of(plain(5)[:3]))
    target.write(staged, batch_of(plain(5)), repeat=True)
    target.swap([staged], RUN)
    (entry,) = read_manifest(tmp_path / "s").collections
    (other,) = read_manifest(snapshot(tmp_path / "t", Made("pets", "l2", plain(5)))).collections
    assert (entry.count, entry.digest) == (5, other.digest)


def test_a_damaged_snapshot_is_found_when_it_is_opened(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "s", Made("pets", "l2", plain(50)))
    shard = folder / "pets" / "000000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0x10
    shard.write_bytes(content)
    with pytest.raises(ChromactlError, match=f"{shard}: the checksum is wrong"):
        SnapshotStore(folder)


@pytest.mark.parametrize(("name", "folder"), [("a.b-c_d", "a.b-c_d"), ("a/b", "a_b"), ("..", "_"), (".x", "x")])
def test_folders_of_collections_stay_inside(name: str, folder: str) -> None:
    assert folder_name(name) == folder


# JSON files


def json_file(path: Path, *collections: dict[str, Any]) -> Path:
    path.write_bytes(orjson.dumps({"format": "chroma-stack-json", "version": 1, "collections": list(collections)}))
    return path


def entry(**changes: Any) -> dict[str, Any]:
    record = {"id": "a", "document": "d", "uri": None, "metadata": {"n": 1}, "embedding": [1.0, 2.0]}
    body: dict[str, Any] = {
        "name": "pets",
        "space": "l2",
        "metadata": None,
        "hnsw": {},
        "embedding_function": None,
        "dimension": 2,
    }
    return body | {"records": [record]} | changes


def test_a_json_file_appears_at_once_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    target = JsonTarget(path)
    staged = target.stage(spec_of(Made("pets", "l2", plain(5))), RUN)
    target.write(staged, batch_of(plain(5)))
    assert not path.exists()
    target.swap([staged], RUN)
    with pytest.raises(PreconditionError, match="exists already"):
        JsonTarget(path)
    assert [name.name for name in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"format": "chroma-stack-json", "version": 2}', b"\xff\xfe", b"null"]
)
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(NotChromaError, match=str(path)) as refused:
        JsonStore(path)
    assert "\n" not in str(refused.value)


def record(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "document": None, "uri": None, "metadata": None, "embedding": [1, 2]} | changes


@pytest.mark.parametrize(
    "damaged",
    [
        {"records": None},
        {"records": [{"id": "a"}]},
        {"records": [1]},
        {"records": [record(embedding=None)]},
        {"records": [record(embedding=[1]), record(id="b")]},
        {"records": [record(embedding=["x", "y"])]},
        {"records": [record(), record()]},
        {"surprise": 1},
        {"name": None},
    ],
)
def test_a_damaged_backup_is_refused_by_its_name(tmp_path: Path, damaged: dict[str, Any]) -> None:
    path = json_file(tmp_path / "b.json", entry(**damaged))
    with pytest.raises(NotChromaError, match=str(path)) as refused:
        JsonStore(path)
    assert "\n" not in str(refused.value)


def test_a_backup_without_its_records_is_refused(tmp_path: Path) -> None:
    body = entry()
    del body["records"]
    with pytest.raises(NotChromaError, match=r"b\.json"):
        JsonStore(json_file(tmp_path / "b.json", body))


def test_empty_metadata_in_a_file_is_none(tmp_path: Path) -> None:
    store = JsonStore(json_file(tmp_path / "b.json", entry(records=[record(metadata={})])))
    batch, _ = store.read(store.collections()[0], ["a"])
    assert batch.metadatas == [None]


# Both


def test_files_do_not_know_of_databases(tmp_path: Path) -> None:
    for store in (JsonStore(json_file(tmp_path / "b.json", entry())), SnapshotTarget(tmp_path / "s", "")):
        with pytest.raises(PreconditionError, match="holds the collections of one database"):
            store.databases()
        store.close()


TOO_LARGE = ["9223372036854775808", "-9223372036854775809", "1" + "0" * 400]


def with_number(path: Path, number: str, body: dict[str, Any]) -> Path:
    """A file with the number where the body has 123454321; orjson could not write it."""
    json_file(path, body)
    path.write_bytes(path.read_bytes().replace(b"123454321", number.encode()))
    return path


@pytest.mark.parametrize("value", [123454321, [1, 123454321], {"deep": 123454321}])
@pytest.mark.parametrize("number", TOO_LARGE)
def test_a_record_with_an_integer_that_no_chroma_keeps_is_unreadable_and_not_bent(
    tmp_path: Path, number: str, value: object
) -> None:
    records = [record(), {**record(metadata={"n": value}), "id": "large"}]
    store = JsonStore(with_number(tmp_path / "b.json", number, entry(records=records)))
    (collection,) = store.collections()
    assert store.ids(collection) == ["a", "large"]
    assert store.count(collection) == 2
    batch, (lost,) = store.read(collection, ["large", "a"])
    assert batch.ids == ["a"]
    assert lost.ids == ["large"]
    assert f"the integer {number[:40]}" in lost.reason


@pytest.mark.parametrize("number", TOO_LARGE)
def test_a_collection_with_an_integer_that_no_chroma_keeps_is_refused(tmp_path: Path, number: str) -> None:
    path = with_number(tmp_path / "b.json", number, entry(metadata={"n": 123454321}))
    with pytest.raises(NotChromaError, match=f"holds the integer {number[:40]}"):
        JsonStore(path)


def test_a_number_that_no_float_holds_is_damage(tmp_path: Path) -> None:
    path = with_number(tmp_path / "b.json", "1" + "0" * 400, entry(records=[record(embedding=[1.0, 123454321])]))
    with pytest.raises(NotChromaError, match="damaged"):
        JsonStore(path)


def test_the_largest_integers_are_read_exactly(tmp_path: Path) -> None:
    ends = {"most": 2**63 - 1, "least": -(2**63)}
    store = JsonStore(json_file(tmp_path / "b.json", entry(records=[record(metadata=ends)])))
    (collection,) = store.collections()
    assert store.read(collection, store.ids(collection))[0].metadatas == [ends]
