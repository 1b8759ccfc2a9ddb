"""Making a snapshot of collections, and finding it right before anyone relies on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from chromactl.compare import Comparison
from chromactl.errors import ChromactlError
from chromactl.stores.base import Batch, Collection, Source
from chromactl.stores.snapshot import SnapshotStore, SnapshotTarget

RECORDS_AT_ONCE = 1000


def create(
    store: Source,
    collections: Sequence[Collection],
    folder: Path,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    named: Mapping[str, str] | None = None,
    damaged: bool = False,
) -> dict[str, list[str]]:
    """Write a snapshot of these collections and compare it with what was read.

    `only` limits it to these ids of each collection, by the collection's name; `named` gives collections other names
    in the snapshot. Of a `damaged` store what can be read is kept; the ids of the rest come back, by collection.

    Raises:
        PreconditionError: the folder holds something already, or cannot be written.
        ChromactlError: a record cannot be read, or the snapshot does not hold what was read.
    """
    target = SnapshotTarget(folder, store.url, partial=only is not None)
    lost: dict[str, list[str]] = {}
    try:
        staged = []
        for collection in collections:
            name = (named or {}).get(collection.name, collection.name)
            copy = target.stage(replace(collection.spec, name=name), "")
            ids = store.ids(collection) if only is None else only[collection.name]
            for start in range(0, len(ids), RECORDS_AT_ONCE):
                batch, unreadable = store.read(collection, ids[start : start + RECORDS_AT_ONCE])
                if unreadable and damaged:
                    lost.setdefault(name, []).extend(record for entry in unreadable for record in entry.ids)
                elif unreadable:
                    raise ChromactlError(
                        f"{store.url}: {collection.name} has records that cannot be read, first "
                        f"{unreadable[0].ids[0]!r} ({unreadable[0].reason}); a snapshot would lose them"
                    )
                if len(batch):
                    target.write(copy, batch)
                    _check(target, copy, batch)
            staged.append(copy)
        target.swap(staged, "")
    finally:
        target.close()
    SnapshotStore(folder)
    return lost


def _check(target: SnapshotTarget, copy: Collection, batch: Batch) -> None:
    comparison = Comparison()
    comparison.add(batch, target.read(copy, batch.ids)[0], space="l2")
    if comparison.differences:
        raise ChromactlError(f"{target.url}: the snapshot differs from what was written; check the disk")
