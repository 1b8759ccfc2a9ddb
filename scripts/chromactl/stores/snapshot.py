"""A snapshot folder as a store: read, and written beside and renamed into place."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from chromactl import files
from chromactl.digest import CollectionDigest
from chromactl.errors import PreconditionError
from chromactl.reject import Reject
from chromactl.snapshot.manifest import Manifest, SnapshotCollection, read_manifest
from chromactl.snapshot.shard import Shard, read_shard, write_shard
from chromactl.stores.base import Batch, Collection, CollectionSpec
from chromactl.stores.file_source import FileSource, RecordIndex, never_changed


class SnapshotStore(FileSource):
    """A finished snapshot.

    Raises (when made):
        NotChromaError: the folder is not a snapshot.
        ChromactlError: a shard is missing or its checksum is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self.url = f"snapshot:{folder}"
        self._collections = {}
        self._records = {}
        self.manifest = read_manifest(folder)
        for entry in self.manifest.collections:
            key = entry.spec.name
            self._collections[key] = Collection(entry.spec, key)
            index = self._records[key] = RecordIndex()
            for shard in entry.shards:
                index.add(read_shard(folder, shard).ids, partial(read_shard, folder, shard))


class SnapshotTarget(FileSource):
    """A snapshot in the making, in a folder beside the one that it becomes by `swap`.

    The folder must not hold a snapshot already: snapshots are added, never changed. Threads may write and read at
    once.
    """

    def __init__(self, folder: Path, source: str, *, partial: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise PreconditionError(f"{folder}: a file, not a folder; a snapshot needs a new or empty folder")
        if folder.exists() and any(folder.iterdir()):
            raise PreconditionError(f"{folder}: there is something in this folder; a snapshot needs a new or empty one")
        self.url = f"snapshot:{folder}"
        self._folder = folder
        self._work = folder.with_name(f".{folder.name}.partial")
        self._source = source
        self._partial = partial
        self._collections = {}
        self._records = {}
        self._shards: dict[str, list[Shard]] = {}
        self._begun: dict[str, int] = {}
        self._lock = threading.Lock()
        self._digests: dict[str, CollectionDigest] = {}
        shutil.rmtree(self._work, ignore_errors=True)
        files.make_folder(self._work)

    def collections(self) -> list[Collection]:
        """Nothing is there before the end."""
        return []

    def free_bytes(self) -> int | None:
        """Free space on the folder's file system, in bytes."""
        return files.free_bytes(self._work)

    def stage(self, spec: CollectionSpec, run: str) -> Collection:
        """A new collection of the snapshot."""
        collection = self._collections[spec.name] = Collection(spec, spec.name)
        self._records[spec.name] = RecordIndex()
        self._shards[spec.name] = []
        self._begun[spec.name] = 0
        self._digests[spec.name] = CollectionDigest()
        return collection

    def write(self, collection: Collection, batch: Batch, *, repeat: bool = False) -> list[Reject]:
        """Write the records as one shard."""
        key = collection.key
        if repeat:
            batch = self._records[key].new(batch)
            if not len(batch):
                return []
        with self._lock:
            number = self._begun[key]
            self._begun[key] += 1
        shard = write_shard(self._work, f"{folder_name(key)}/{number:06d}.parquet", batch)
        digest = CollectionDigest()
        digest.add(batch)
        with self._lock:
            self._shards[key].append(shard)
            self._digests[key].add_digest(digest.hexdigest(), digest.count)
            self._records[key].add(batch.ids, partial(read_shard, self._work, shard))
            if (spec := self._collections[key].spec).dimension is None:
                self._collections[key] = Collection(replace(spec, dimension=batch.dimension), key)
        return []

    def amend(self, collection: Collection, batch: Batch, removed: Sequence[str]) -> list[Reject]:
        """Refused.

        Raises:
            PreconditionError: always.
        """
        raise never_changed(self.url)

    def swap(self, staged: Sequence[Collection], run: str) -> dict[str, str]:
        """Write the manifest and rename the folder into place."""
        entries = [
            SnapshotCollection(
                spec=self._collections[collection.key].spec,
                count=self._digests[collection.key].count,
                digest=self._digests[collection.key].hexdigest(),
                shards=sorted(self._shards[collection.key], key=lambda shard: shard.file),
            )
            for collection in staged
        ]
        Manifest(self._source, entries, partial=self._partial).write(self._work)
        with files.explained(self._folder):
            if self._folder.exists():
                self._folder.rmdir()
            self._work.rename(self._folder)
            files.sync_folder(self._folder.parent)
        return {}

    def discard(self, staged: Collection) -> None:
        """Remove everything written so far."""
        shutil.rmtree(self._work, ignore_errors=True)

    def close(self) -> None:
        """Remove what was not finished."""
        shutil.rmtree(self._work, ignore_errors=True)


def folder_name(collection: str) -> str:
    """A folder name for a collection's shards. Legacy names are safe as they are; others are made so."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", collection).lstrip(".") or "_"
