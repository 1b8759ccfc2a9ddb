"""One shard of a snapshot: a Parquet file of records of one collection.

Columns: id (string), document and uri (string, null where there is none), metadata (JSON text, null where
there is none: JSON keeps 1 and 1.0 apart), embedding (fixed-size list of float32).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from chromactl.errors import ChromactlError
from chromactl.files import explained, sha256, sync_folder
from chromactl.stores.base import Batch, Metadata

COMPRESSION = {"id": "zstd", "document": "zstd", "uri": "zstd", "metadata": "zstd", "embedding.list.element": "none"}
"""By column: floats do not get smaller, only slower."""

# Arrow's own pool keeps what threads once used: 60 MiB more in a migration of 9,832 x 768.
pa.set_memory_pool(pa.system_memory_pool())


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's entry in a manifest: its file (relative to the snapshot), records, bytes and SHA-256."""

    file: str
    rows: int
    bytes: int
    sha256: str


def write_shard(folder: Path, file: str, batch: Batch) -> Shard:
    """Write the records as `folder/file`, by fsync and rename."""
    path = folder / file
    temporary = path.with_name(f".{path.name}.partial")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as sink:
            pq.write_table(_table(batch), sink, compression=COMPRESSION, use_dictionary=False)
            sink.flush()
            os.fsync(sink.fileno())
        digest = sha256(temporary)
        size = temporary.stat().st_size
        temporary.replace(path)
        sync_folder(path.parent)
    return Shard(file, len(batch), size, digest)


def read_shard(folder: Path, shard: Shard) -> Batch:
    """The records of a shard, after its checksum was found right.

    Raises:
        ChromactlError: the file is missing or its bytes are not those that were written.
    """
    path = folder / shard.file
    if not path.is_file():
        raise ChromactlError(f"{path}: this shard is missing; the snapshot cannot be used")
    if sha256(path) != shard.sha256:
        raise ChromactlError(f"{path}: the checksum is wrong, the file was damaged; the snapshot cannot be used")
    return _batch(pq.read_table(path))


def _table(batch: Batch) -> pa.Table:
    flat = pa.array(np.ascontiguousarray(batch.embeddings, dtype="<f4").reshape(-1))
    size = batch.dimension or 1  # of dimension 0 are only batches without records, and Arrow has no such lists
    return pa.table(
        {
            "id": pa.array(batch.ids, pa.string()),
            "document": pa.array(batch.documents, pa.string()),
            "uri": pa.array(batch.uris, pa.string()),
            "metadata": pa.array(
                [None if metadata is None else orjson.dumps(metadata).decode() for metadata in batch.metadatas],
                pa.string(),
            ),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, size),
        }
    )


def _batch(table: pa.Table) -> Batch:
    column = table.column("embedding").combine_chunks()
    dimension = column.type.list_size
    embeddings = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
    metadatas: list[Metadata | None] = [
        None if text is None else orjson.loads(text) for text in table.column("metadata").to_pylist()
    ]
    return Batch(
        ids=table.column("id").to_pylist(),
        embeddings=embeddings,
        documents=table.column("document").to_pylist(),
        uris=table.column("uri").to_pylist(),
        metadatas=metadatas,
    )
