"""Export: from the source into shards on disk, in the order of the ids that the plan holds."""

from __future__ import annotations

from dataclasses import asdict

from chromactl.console import Advance
from chromactl.digest import CollectionDigest
from chromactl.errors import ChromactlError
from chromactl.migrate.plan import Plan, PlannedCollection
from chromactl.migrate.state import RunFolder
from chromactl.reject import Reject
from chromactl.snapshot.manifest import Manifest, SnapshotCollection
from chromactl.snapshot.shard import read_shard, write_shard
from chromactl.stores.base import Source
from chromactl.stores.snapshot import folder_name

SHARD_RECORDS = 1000


def export(source: Source, plan: Plan, folder: RunFolder, advance: Advance) -> None:
    """Bring every record of the plan into a shard, then write the manifest: the folder is a snapshot then.

    Shards that an interrupted run finished are taken as they are. A record that was deleted since the ids
    were taken is not there any more and not an error; one that the source cannot give back becomes a reject.
    """
    for collection in plan.collections:
        done = folder.noted("export", collection.name)
        for number, start in enumerate(range(0, len(collection.ids), SHARD_RECORDS)):
            ids = collection.ids[start : start + SHARD_RECORDS]
            if number not in done:
                _export_shard(source, collection, number, ids, folder)
            advance(len(ids))
        _check_complete(collection, folder)
    Manifest(source.url, [_entry(collection, folder) for collection in plan.collections]).write(folder.path)


def _check_complete(planned: PlannedCollection, folder: RunFolder) -> None:
    """Raise ChromactlError unless the ledger has a shard for every part of the plan's ids."""
    shards = -(-len(planned.ids) // SHARD_RECORDS)
    if missing := set(range(shards)) - folder.noted("export", planned.name).keys():
        raise ChromactlError(
            f"{folder.path}: the ledger lacks {len(missing)} of {shards} exported shards of {planned.name}; "
            "run the same command again, they are exported then"
        )


def _export_shard(source: Source, planned: PlannedCollection, number: int, ids: list[str], folder: RunFolder) -> None:
    batch, unreadable = source.read(planned.source, ids)
    file = f"{folder_name(planned.name)}/{number:06d}.parquet"
    shard = write_shard(folder.path, file, batch)
    lost = [{"id": record, "why": entry.reason} for entry in unreadable for record in entry.ids]
    folder.note("export", planned.name, number, shard=asdict(shard), unreadable=lost)


def unreadable(folder: RunFolder, collection: str) -> list[Reject]:
    """The records that the source listed but could not give back."""
    return [
        Reject(lost["id"], "record", "unreadable_record", lost["why"][:200])
        for entry in folder.noted("export", collection).values()
        for lost in entry["unreadable"]
    ]


def _entry(planned: PlannedCollection, folder: RunFolder) -> SnapshotCollection:
    shards = folder.shards(planned.name)
    digest = CollectionDigest()
    for shard in shards:
        digest.add(read_shard(folder.path, shard))
    return SnapshotCollection(planned.spec, digest.count, digest.hexdigest(), shards)
