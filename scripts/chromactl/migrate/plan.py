"""Preflight: what will be migrated, kept on disk so that a resumed run has the very same plan."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from chromactl import files, metric
from chromactl.errors import EmptySourceError, PreconditionError, UsageError
from chromactl.location import DATABASES
from chromactl.migrate.config import MigrateConfig
from chromactl.schema.profile import Profile
from chromactl.stores.base import Batch, Collection, CollectionSpec, Source
from chromactl.stores.names import LONGEST_NAME, is_work_collection

log = logging.getLogger(__name__)

PIECE_RECORDS = 500

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]+[a-zA-Z0-9]")
_PLAN = "plan.json"
_PRUNED = "pruned-plan.json"
_METADATA_BYTES = 2048  # a generous guess at a record's document and metadata, compressed
_SPARE = 1.3


@dataclass(frozen=True, slots=True)
class PlannedCollection:
    """One collection of the source: what it is (`spec.space` proven), and its ids when the run began, in pieces."""

    key: str
    spec: CollectionSpec
    pieces: list[list[str]]

    @property
    def name(self) -> str:
        """The collection's name in the source."""
        return self.spec.name

    @property
    def records(self) -> int:
        """How many records it held when the run began."""
        return sum(map(len, self.pieces))

    @property
    def source(self) -> Collection:
        """The collection in the source."""
        return Collection(self.spec, self.key)


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """One collection of the target: `rule` is its name in the profile, `replaces` the key of what has its name."""

    rule: str
    spec: CollectionSpec
    sources: list[str]
    replaces: str | None = None

    @property
    def name(self) -> str:
        """The collection's name in the target, when all is done."""
        return self.spec.name


@dataclass(slots=True)
class Piece:
    """Some records of one collection on their way: as the source has them, and as they go to each target."""

    planned: PlannedCollection
    number: int
    batch: Batch | None = None
    parts: dict[str, Batch] | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of its records when the run began."""
        return self.planned.pieces[self.number]

    def forget(self) -> None:
        """Let go of the records."""
        self.batch = self.parts = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a run. `skipped` are collections that the profile does not name.

    `contested` are, for a target that several collections are merged into, the ids that more than one of them has.
    `base` is the finished run that this one carries changes over to.
    """

    collections: list[PlannedCollection]
    targets: list[PlannedTarget]
    skipped: list[str]
    contested: dict[str, list[str]] = field(default_factory=dict)
    base: str | None = None

    @property
    def records(self) -> int:
        """How many records there are to migrate."""
        return sum(collection.records for collection in self.collections)

    def pieces(self) -> Iterator[Piece]:
        """Every piece, collection by collection."""
        for planned in self.collections:
            for number in range(len(planned.pieces)):
                yield Piece(planned, number)

    def feeds(self, source: str) -> list[PlannedTarget]:
        """The targets that take records of this collection."""
        return [target for target in self.targets if source in target.sources]

    def write(self, folder: Path) -> None:
        """Keep the plan in a run's folder."""
        files.write_atomically(folder / _PLAN, orjson.dumps(self))


def set_aside(folder: Path) -> None:
    """Keep the plan of a run that nothing is read of any more but what it did (chromactl.rollback)."""
    if (folder / _PLAN).exists():
        (folder / _PLAN).rename(folder / _PRUNED)


def read_plan(folder: Path, *, pruned: bool = False) -> Plan | None:
    """The plan in a run's folder, if the run came so far; also a `pruned` one's, whose exported records are gone."""
    path = folder / _PLAN
    if pruned and not path.exists():
        path = folder / _PRUNED
    if not path.exists():
        return None
    body = orjson.loads(path.read_bytes())
    body["collections"] = [
        PlannedCollection(**{**entry, "spec": CollectionSpec(**entry["spec"])}) for entry in body["collections"]
    ]
    body["targets"] = [PlannedTarget(**{**entry, "spec": CollectionSpec(**entry["spec"])}) for entry in body["targets"]]
    return Plan(**body)


def make_plan(config: MigrateConfig, source: Source) -> Plan:
    """Look at the source: which collections, which ids, which metric, and where they go.

    Raises:
        UsageError: a collection that was asked for is not there, or the profile does not name it.
        PreconditionError: there is nothing to migrate, or what is to be merged does not fit together.
    """
    there = [collection.name for collection in source.collections() if not is_work_collection(collection.name)]
    for name in config.collections:
        if name not in there:
            raise UsageError(f"--collection {name}: not in {source.url}, which holds {_listed(sorted(there))}")
        if not config.profile.names(name):
            raise UsageError(f"--collection {name}: the profile {config.profile.name} does not name it")
    wanted = select(config, source)
    if not wanted:
        raise EmptySourceError(
            f"{source.url}: holds none of the collections that the profile {config.profile.name} names "
            f"(it holds {_listed(sorted(there))}); check the address, --database and --profile"
        )
    planned = [_planned(source, collection, config.profile) for collection in wanted]
    targets = plan_targets(config, planned)
    skipped = sorted(set(there) - {collection.name for collection in wanted})
    return Plan(planned, targets, skipped, contested_ids(config.profile, planned, targets))


def select(config: MigrateConfig, source: Source) -> list[Collection]:
    """The collections of the source that are to be migrated, by name."""
    return [
        collection
        for collection in source.collections()
        if not is_work_collection(collection.name)
        and config.profile.names(collection.name)
        and (not config.collections or collection.name in config.collections)
    ]


def in_pieces(ids: list[str]) -> list[list[str]]:
    """The ids in lists of at most PIECE_RECORDS."""
    return [ids[start : start + PIECE_RECORDS] for start in range(0, len(ids), PIECE_RECORDS)]


def _planned(source: Source, collection: Collection, profile: Profile) -> PlannedCollection:
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
    return PlannedCollection(collection.key, spec, in_pieces(ids))


def plan_targets(config: MigrateConfig, planned: list[PlannedCollection]) -> list[PlannedTarget]:
    """Where the planned collections go, by the profile and the renames.

    Raises:
        UsageError: a rename names nothing, or two collections would get one name.
        PreconditionError: collections that are to be merged differ in metric or dimension, or a name is too long.
    """
    sources: dict[str, list[PlannedCollection]] = {}
    for collection in planned:
        for rule in config.profile.targets(collection.name):
            sources.setdefault(rule, []).append(collection)
    for old, count in Counter(old for old, _ in config.renames).items():
        if count > 1:
            raise UsageError(f"--rename {old}=…: given {count} times; a collection can have one new name")
    renames = dict(config.renames)
    for old in renames.keys() - sources.keys():
        raise UsageError(f"--rename {old}={renames[old]}: no collection {old} results from this migration")
    targets = [_target(config, rule, renames.get(rule, rule), feeding) for rule, feeding in sources.items()]
    for name, count in Counter(target.name for target in targets).items():
        if count > 1:
            raise UsageError(f"--rename: {count} collections would be called {name}; give each a name of its own")
    return targets


def _target(config: MigrateConfig, rule: str, name: str, sources: list[PlannedCollection]) -> PlannedTarget:
    if len(name) > LONGEST_NAME:
        raise PreconditionError(
            f"{config.source.location.text}: the name {name[:40]}… has {len(name)} characters, and {LONGEST_NAME} "
            "are the most that leave room for a copy beside it; give another with --rename, or rename it first"
        )
    if config.target.location.kind in DATABASES and not _NAME.fullmatch(name):
        error = UsageError if rule != name else PreconditionError
        raise error(
            f"{name!r} cannot be the name of a collection: Chroma takes 3 to 512 of a-z, A-Z, 0-9, dot, underscore and "
            "hyphen, with a letter or digit first and last; give another with --rename"
        )
    first = sources[0].spec
    rules = (config.profile.collections or {}).get(rule)
    space = rules.space if rules is not None and rules.space is not None else first.space
    spaces = {collection.spec.space for collection in sources}
    if len(spaces) > 1 and (rules is None or rules.space is None):
        raise PreconditionError(
            f"{rule}: {_listed([collection.name for collection in sources])} have different metrics "
            f"({', '.join(sorted(spaces))}); say which it is to have, as `space:` in the profile"
        )
    dimensions = {collection.spec.dimension for collection in sources if collection.spec.dimension is not None}
    if len(dimensions) > 1:
        raise PreconditionError(
            f"{rule}: {_listed([collection.name for collection in sources])} have embeddings of different dimensions "
            f"({', '.join(map(str, sorted(dimensions)))}), which no collection can hold together"
        )
    metadata = rules.metadata if rules is not None and rules.metadata is not None else first.metadata
    spec = replace(first, name=name, space=space, dimension=next(iter(dimensions), None), metadata=metadata)
    return PlannedTarget(rule, spec, [collection.name for collection in sources])


def contested_ids(
    profile: Profile, planned: list[PlannedCollection], targets: list[PlannedTarget]
) -> dict[str, list[str]]:
    """For each target that is merged from several collections, the ids that more than one of them would bring."""
    found: dict[str, list[str]] = {}
    for target in targets:
        if len(target.sources) > 1:
            counts = Counter(
                profile.target_id(collection.name, target.rule, id_)
                for collection in planned
                if collection.name in target.sources
                for piece in collection.pieces
                for id_ in piece
            )
            if contested := [id_ for id_, count in counts.items() if count > 1]:
                found[target.name] = contested
    return found


def check_room(plan: Plan, folder: Path) -> None:
    """Raise PreconditionError if the exported shards cannot fit into the folder."""
    need = sum(
        collection.records * (4 * (collection.spec.dimension or 0) + _METADATA_BYTES) for collection in plan.collections
    )
    free = files.free_bytes(folder)
    if free < need * _SPARE:
        raise PreconditionError(
            f"{folder}: {plan.records:,} records need up to {need * _SPARE / 2**20:,.0f} MiB here and only "
            f"{free / 2**20:,.0f} MiB are free; free space, or give another --checkpoint-dir"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "no collections"
