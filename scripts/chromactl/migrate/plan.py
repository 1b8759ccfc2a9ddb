"""Preflight: what will be migrated, kept on disk so that a resumed run has the very same plan."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from chromactl import files, metric
from chromactl.errors import PreconditionError, UsageError
from chromactl.migrate.config import MigrateConfig
from chromactl.schema.profile import Profile
from chromactl.stores.base import Collection, CollectionSpec, Source
from chromactl.stores.names import LONGEST_NAME, is_work_collection

log = logging.getLogger(__name__)

_PLAN = "plan.json"
_METADATA_BYTES = 2048  # a generous guess at a record's document and metadata, compressed
_SPARE = 1.3


@dataclass(frozen=True, slots=True)
class PlannedCollection:
    """One collection to migrate: where it is in the source, what it is, and the ids it held when the run began.

    `spec.space` is the proven metric.
    """

    key: str
    spec: CollectionSpec
    ids: list[str]

    @property
    def name(self) -> str:
        """The collection's name, in source and target."""
        return self.spec.name

    @property
    def source(self) -> Collection:
        """The collection in the source."""
        return Collection(self.spec, self.key)


@dataclass(frozen=True, slots=True)
class Plan:
    """All collections of a run; `skipped` are those of the source that the profile does not name."""

    collections: list[PlannedCollection]
    skipped: list[str]

    @property
    def records(self) -> int:
        """How many records there are to migrate."""
        return sum(len(collection.ids) for collection in self.collections)

    def write(self, folder: Path) -> None:
        """Keep the plan in a run's folder."""
        body = {"collections": [asdict(collection) for collection in self.collections], "skipped": self.skipped}
        files.write_atomically(folder / _PLAN, orjson.dumps(body))


def read_plan(folder: Path) -> Plan | None:
    """The plan in a run's folder, if the run came so far."""
    path = folder / _PLAN
    if not path.exists():
        return None
    body = orjson.loads(path.read_bytes())
    collections = [
        PlannedCollection(entry["key"], CollectionSpec(**entry["spec"]), entry["ids"]) for entry in body["collections"]
    ]
    return Plan(collections, body["skipped"])


def make_plan(config: MigrateConfig, source: Source) -> Plan:
    """Look at the source: which collections, which ids, which metric.

    Raises:
        UsageError: a collection that was asked for is not there, or the profile does not name it.
        PreconditionError: there is nothing to migrate, or dimensions are mixed.
    """
    there = [collection.name for collection in source.collections() if not is_work_collection(collection.name)]
    for name in config.collections:
        if name not in there:
            raise UsageError(f"--collection {name}: not in {source.url}, which holds {_listed(sorted(there))}")
        if not config.profile.names(name):
            raise UsageError(f"--collection {name}: the profile {config.profile.name} does not name it")
    wanted = select(config, source)
    if not wanted:
        raise PreconditionError(
            f"{source.url}: holds none of the collections that the profile {config.profile.name} names "
            f"(it holds {_listed(sorted(there))}); check the address, --database and --profile"
        )
    planned = [_planned(source, collection, config.profile) for collection in wanted]
    return Plan(planned, sorted(set(there) - {collection.name for collection in wanted}))


def select(config: MigrateConfig, source: Source) -> list[Collection]:
    """The collections of the source that are to be migrated, by name."""
    return [
        collection
        for collection in source.collections()
        if not is_work_collection(collection.name)
        and config.profile.names(collection.name)
        and (not config.collections or collection.name in config.collections)
    ]


def _planned(source: Source, collection: Collection, profile: Profile) -> PlannedCollection:
    if len(collection.name) > LONGEST_NAME:
        raise PreconditionError(
            f"{source.url}: the name {collection.name[:40]}… has {len(collection.name)} characters, and {LONGEST_NAME} "
            "are the most that leave room for a copy beside it; rename it first"
        )
    ids = source.ids(collection)
    spec = collection.spec
    proven = metric.prove(source, collection, ids)
    if proven is not None and proven != spec.space:
        log.warning("%s calls itself %s but its index answers in %s; %s it is", spec.name, spec.space, proven, proven)
        spec = replace(spec, space=proven)
    if spec.dimension is None and ids:
        first, _ = source.read(collection, ids[:1])
        spec = replace(spec, dimension=first.dimension or None)
    if profile.usual_dimensions and spec.dimension and spec.dimension not in profile.usual_dimensions:
        log.warning("%s has embeddings of dimension %d, which is unusual here", spec.name, spec.dimension)
    return PlannedCollection(collection.key, spec, ids)


def check_room(plan: Plan, folder: Path) -> None:
    """Raise PreconditionError if the exported shards cannot fit into the folder."""
    need = sum(
        len(collection.ids) * (4 * (collection.spec.dimension or 0) + _METADATA_BYTES)
        for collection in plan.collections
    )
    free = files.free_bytes(folder)
    if free < need * _SPARE:
        raise PreconditionError(
            f"{folder}: {plan.records:,} records need up to {need * _SPARE / 2**20:,.0f} MiB here and only "
            f"{free / 2**20:,.0f} MiB are free; free space, or give another --checkpoint-dir"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "no collections"
