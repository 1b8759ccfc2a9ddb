"""A whole database in one JSON file, the backup form of the runbooks; for databases that fit into memory.

{"format": "chroma-stack-json", "version": 1,
 "collections": [{"name", "space", "metadata", "hnsw", "embedding_function", "dimension",
                  "records": [{"id", "document", "uri", "metadata", "embedding"}]}]}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from chromactl import files
from chromactl.errors import NotChromaError, PreconditionError
from chromactl.reject import Reject
from chromactl.stores.base import Batch, Collection, CollectionSpec, Unreadable, concatenate
from chromactl.stores.file_source import FileSource, RecordIndex, never_changed

FORMAT = "chroma-stack-json"
VERSION = 1


class JsonStore(FileSource):
    """A JSON file as a source.

    Raises (when made):
        NotChromaError: there is no such file, or it is not of this format.
    """

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self._collections = {}
        self._records = {}
        self._unreadable: dict[str, dict[str, Unreadable]] = {}
        for entry in _read(path)["collections"]:
            spec, batch = _entry(entry, path)
            self._collections[spec.name] = Collection(spec, spec.name)
            self._unreadable[spec.name] = lost = {entry.ids[0]: entry for entry in _lost(batch)}
            kept = batch.take([row for row, record in enumerate(batch.ids) if record not in lost])
            index = self._records[spec.name] = RecordIndex()
            index.add(kept.ids, lambda kept=kept: kept)  # type: ignore[misc]

    def count(self, collection: Collection) -> int:
        """How many records the file lists."""
        return super().count(collection) + len(self._unreadable[collection.key])

    def ids(self, collection: Collection) -> list[str]:
        """The ids of all records; last those that hold what cannot be kept."""
        return [*super().ids(collection), *self._unreadable[collection.key]]

    def read(self, collection: Collection, ids: Sequence[str]) -> tuple[Batch, list[Unreadable]]:
        """The records of these ids; unreadable are those with an integer of more than 64 bits."""
        batch, _ = super().read(collection, ids)
        lost = self._unreadable[collection.key]
        return batch, [lost[record] for record in ids if record in lost]


class JsonTarget(FileSource):
    """A JSON file in the making; it appears by rename, with `swap`."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise PreconditionError(f"{path}: exists already; give a new name, backups are never overwritten")
        self.url = str(path)
        self._path = path
        self._collections = {}
        self._records = {}
        self._batches: dict[str, list[Batch]] = {}
        files.make_folder(path.parent)

    def collections(self) -> list[Collection]:
        """Nothing is there before the end."""
        return []

    def free_bytes(self) -> int | None:
        """Free space on the file's file system, in bytes."""
        return files.free_bytes(self._path)

    def stage(self, spec: CollectionSpec, run: str) -> Collection:
        """A new collection of the file."""
        collection = self._collections[spec.name] = Collection(spec, spec.name)
        self._records[spec.name] = RecordIndex()
        self._batches[spec.name] = []
        return collection

    def write(self, collection: Collection, batch: Batch, *, repeat: bool = False) -> list[Reject]:
        """Keep the records until the end."""
        if repeat:
            batch = self._records[collection.key].new(batch)
        self._batches[collection.key].append(batch)  # threads may, as the interpreter appends at one go
        self._records[collection.key].add(batch.ids, lambda: batch)
        return []

    def amend(self, collection: Collection, batch: Batch, removed: Sequence[str]) -> list[Reject]:
        """Refused.

        Raises:
            PreconditionError: always.
        """
        raise never_changed(self.url)

    def swap(self, staged: Sequence[Collection], run: str) -> dict[str, str]:
        """Write the file."""
        entries = [self._entry(self._collections[collection.key]) for collection in staged]
        body = {"format": FORMAT, "version": VERSION, "collections": entries}
        files.write_atomically(self._path, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
        return {}

    def _entry(self, collection: Collection) -> dict[str, Any]:
        batch = concatenate(self._batches[collection.key], collection.spec.dimension or 0)
        columns = zip(batch.ids, batch.documents, batch.uris, batch.metadatas, batch.embeddings, strict=True)
        names = ("id", "document", "uri", "metadata", "embedding")
        records = [dict(zip(names, record, strict=True)) for record in columns]
        return {**asdict(collection.spec), "dimension": batch.dimension or None, "records": records}

    def discard(self, staged: Collection) -> None:
        """Forget the records."""
        self._batches[staged.key] = []


class _TooLarge(int):
    """An integer of more than 64 bits: no Chroma keeps it, and neither do the shards of a migration."""


def _integer(text: str) -> int:
    number = int(text)
    return number if -(2**63) <= number < 2**63 else _TooLarge(number)


def _too_large(value: object) -> str:
    """The first integer in it that is too large, as text; empty if there is none."""
    if isinstance(value, dict | list):
        return next(filter(None, map(_too_large, value.values() if isinstance(value, dict) else value)), "")
    return str(value)[:40] if isinstance(value, _TooLarge) else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        # Not orjson: it takes integers that are too large for 64 bits for floats, and bends them so.
        body: Any = json.loads(path.read_bytes(), parse_int=_integer)
    except FileNotFoundError as error:
        raise NotChromaError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise NotChromaError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise NotChromaError(f"{path}: not JSON ({error}); give a backup that chromactl wrote") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT or body.get("version") != VERSION:
        raise NotChromaError(f"{path}: JSON, but not a {FORMAT} file of version {VERSION}")
    checked: dict[str, Any] = body
    return checked


def _entry(entry: dict[str, Any], path: Path) -> tuple[CollectionSpec, Batch]:
    try:
        spec = CollectionSpec(**{key: value for key, value in entry.items() if key != "records"})
        batch = _batch(entry["records"], spec)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise NotChromaError(f"{path}: damaged: a collection or record has not its form ({error!r})") from error
    if not isinstance(spec.name, str):
        raise NotChromaError(f"{path}: damaged: a collection has no name")
    if number := _too_large([spec.metadata, spec.hnsw, spec.embedding_function]):
        raise NotChromaError(
            f"{path}: {spec.name} itself holds the integer {number}, and no Chroma keeps one of more than 64 bits; "
            "make it smaller or a text"
        )
    if len(set(batch.ids)) != len(batch):
        raise NotChromaError(f"{path}: damaged: {spec.name} has an id twice; remove the wrong one of the two records")
    return spec, batch


def _lost(batch: Batch) -> list[Unreadable]:
    """The records with an integer that nothing keeps."""
    return [
        Unreadable([record], f"its metadata holds the integer {number}, of more than 64 bits")
        for record, metadata in zip(batch.ids, batch.metadatas, strict=True)
        if (number := _too_large(metadata))
    ]


def _batch(records: list[dict[str, Any]], spec: CollectionSpec) -> Batch:
    rows = [record["embedding"] for record in records]
    if not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
        raise ValueError(f"embeddings of different lengths in {spec.name}")
    return Batch(
        ids=[record["id"] for record in records],
        embeddings=np.asarray(rows, np.float32) if rows else np.empty((0, spec.dimension or 0), np.float32),
        documents=[record["document"] for record in records],
        uris=[record["uri"] for record in records],
        metadatas=[record["metadata"] or None for record in records],
    )
