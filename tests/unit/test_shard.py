from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chromactl.compare import Comparison
from chromactl.errors import ChromactlError, NotChromaError
from chromactl.snapshot.manifest import Manifest, SnapshotCollection, read_manifest
from chromactl.snapshot.shard import Shard, read_shard, write_shard
from chromactl.stores.base import Batch
from support.records import INT64_MAX, INT64_MIN, Made, Record, batch_of, nasty, spec_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTS = st.integers(INT64_MIN, INT64_MAX)
VALUES = st.one_of(
    TEXT,
    INTS,
    FLOATS,
    st.booleans(),
    *(st.lists(kind, min_size=1, max_size=4) for kind in (TEXT, INTS, FLOATS, st.booleans())),
)
VECTORS = st.lists(st.floats(width=32), min_size=4, max_size=4).map(lambda row: np.asarray(row, np.float32))
RECORDS = st.builds(
    Record,
    id=TEXT,
    embedding=VECTORS,
    document=st.none() | TEXT,
    uri=st.none() | TEXT,
    metadata=st.none() | st.dictionaries(TEXT, VALUES, min_size=1, max_size=5),
)


def rows(batch: Batch) -> list[Any]:
    """Everything in the batch, types and bits included."""
    columns = zip(batch.ids, batch.documents, batch.uris, batch.metadatas, strict=True)
    return [(repr(row), vector.tobytes()) for row, vector in zip(columns, batch.embeddings, strict=True)]


@given(st.lists(RECORDS, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_shard_gives_back_every_bit(records: list[Record]) -> None:
    batch = batch_of(records)
    with tempfile.TemporaryDirectory() as name:
        shard = write_shard(Path(name), "c/000000.parquet", batch)
        assert rows(read_shard(Path(name), shard)) == rows(batch)
        assert shard.rows == len(records)
        assert shard.bytes == (Path(name) / shard.file).stat().st_size


def test_nasty_records_come_back(tmp_path: Path) -> None:
    batch = batch_of(nasty(lists=True))
    back = read_shard(tmp_path, write_shard(tmp_path, "c/000000.parquet", batch))
    comparison = Comparison()
    comparison.add(batch, back, space="l2")
    assert (comparison.differences, comparison.rounded_floats) == ([], 0)


@pytest.mark.parametrize("dimension", [8, 0])
def test_a_shard_may_be_empty(tmp_path: Path, dimension: int) -> None:
    batch = Batch([], np.empty((0, dimension), np.float32), [], [], [])
    back = read_shard(tmp_path, write_shard(tmp_path, "c/000000.parquet", batch))
    assert len(back) == 0


def test_the_same_records_make_the_same_file(tmp_path: Path) -> None:
    batch = batch_of(nasty(lists=True))
    assert write_shard(tmp_path, "a.parquet", batch).sha256 == write_shard(tmp_path, "b.parquet", batch).sha256


def test_a_flipped_bit_is_found_and_the_file_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "c/000000.parquet", batch_of(nasty(lists=False)))
    path = tmp_path / shard.file
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), max(1, len(content) // 20)):
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(ChromactlError, match=f"{path}: the checksum is wrong"):
            read_shard(tmp_path, shard)
        content[position] ^= 1


def test_a_cut_and_a_missing_shard_are_found(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "c/000000.parquet", batch_of(nasty(lists=False)))
    path = tmp_path / shard.file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ChromactlError, match="checksum"):
        read_shard(tmp_path, shard)
    path.unlink()
    with pytest.raises(ChromactlError, match=f"{path}: this shard is missing"):
        read_shard(tmp_path, shard)


def test_no_partial_file_is_left(tmp_path: Path) -> None:
    write_shard(tmp_path, "c/000000.parquet", batch_of(nasty(lists=False)))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["000000.parquet"]


# The manifest


def manifest() -> Manifest:
    made = Made("pets", "cosine", nasty(lists=False), {"hnsw:space": "cosine", "n": 1, "f": 1.0}, {"ef_search": 7})
    shard = Shard("pets/000000.parquet", 15, 4711, "ab" * 32)
    return Manifest("http://old:8000", [SnapshotCollection(spec_of(made), 15, "cd" * 32, [shard])])


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    manifest().write(tmp_path)
    assert read_manifest(tmp_path) == manifest().__class__(
        source="http://old:8000",
        collections=manifest().collections,
        created=read_manifest(tmp_path).created,
        tool=manifest().tool,
    )


@pytest.mark.parametrize("change", [{"version": 2}, {"version": "1"}, {"format": "tarball"}])
def test_another_format_or_version_is_refused_by_its_name(tmp_path: Path, change: dict[str, Any]) -> None:
    manifest().write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | change))
    with pytest.raises(NotChromaError, match=f"{next(iter(change.values()))!r}.*reads chroma-stack-snapshot version 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"format": "chroma-stack-snapshot", "version": 1}', b"\xff\xfe"],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(NotChromaError, match="not a snapshot's manifest") as refused:
        read_manifest(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_manifest_is_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(NotChromaError, match=f"{tmp_path}: not a snapshot"):
        read_manifest(tmp_path)
