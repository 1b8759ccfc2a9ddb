"""A finished migration, run again: does the target still hold what was moved, and what has the source changed since?

Both are read at the same time and compared with the finished run's shards. Nothing is written to either; what has
changed in the source is kept at once, in the folder of the run that will carry it over (chromactl.migrate.delta).
"""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np

from chromactl import interrupt, metric
from chromactl.compare import Comparison
from chromactl.console import Advance
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.delta import CARRY
from chromactl.migrate.flow import Stage, flow
from chromactl.migrate.ledger import ROLLED_BACK, RunFolder
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Piece, Plan, PlannedCollection, contested_ids, in_pieces, select
from chromactl.migrate.probes import Probes, ask
from chromactl.migrate.proof import Prove, prove_all
from chromactl.migrate.steps import keep
from chromactl.snapshot.shard import read_shard
from chromactl.stores.base import Batch, Collection, Source


class Outcome(Enum):
    """What has happened since the finished run."""

    UNCHANGED = "unchanged"
    SOURCE_CHANGED = "the source has changed"
    OTHERWISE = "the target has changed, or the source's collections"


@dataclass(slots=True)
class Recheck:
    """The outcome; with a changed source, the plan that carries the changes over.

    `by_distances` says that embeddings of the source were compared by those, not read.
    """

    outcome: Outcome
    comparison: Comparison = field(default_factory=Comparison)
    plan: Plan | None = None
    by_distances: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run: its name, its plan, what it kept, and the keys of the collections it left in the target."""

    run: str
    plan: Plan
    folder: RunFolder
    keys: dict[str, str]


def recheck(
    config: MigrateConfig, finished: Finished, folder: RunFolder, source: Source, target: Source, advance: Advance
) -> Recheck:
    """Compare source and target with the finished run; changes of the source are kept in `folder`.

    Embeddings of a source to which they are dear are compared by what its index says of them
    (chromactl.migrate.probes), unless it is to be an exact recheck.
    """
    with interrupt.held(), ThreadPoolExecutor(1) as pool:
        there = pool.submit(holds, config, finished, target)
        look = _Source(config, finished, folder, source, advance)
        same_shape = look.compare()
        comparison = there.result()
    if comparison is None or not same_shape:
        folder.remove()
        return Recheck(Outcome.OTHERWISE)
    if not look.changed:
        return Recheck(Outcome.UNCHANGED, comparison, by_distances=look.by_distances)
    if finished.plan.contested or look.contested:
        # Which of two records with one id goes is decided over all of them.
        folder.remove()
        return Recheck(Outcome.OTHERWISE)
    return Recheck(Outcome.SOURCE_CHANGED, comparison, look.plan(), look.by_distances)


def holds(config: MigrateConfig, finished: Finished, target: Source) -> Comparison | None:
    """The roundings seen in the target, or None if it does not hold what the finished run left there."""
    live = {collection.name: collection for collection in target.collections()}
    plan = finished.plan
    if any(name in live and live[name].key != key for name, key in finished.keys.items()):
        return None
    passage = Passage(config.profile, plan)
    collections = {entry.name: live[entry.name] for entry in plan.targets if entry.name in live}
    if len(collections) < len(plan.targets):
        return None
    prove = Prove(passage, plan, finished.folder, target, collections, note=False, to_the_end=False)
    prove_all(prove, plan, plan.targets, config.workers)
    if prove.differ:
        return None
    total = Comparison()
    for comparison in prove.comparisons.values():
        total.merge(comparison)
    return total


class _Source:
    """The source against the finished run's shards, piece by piece."""

    def __init__(
        self, config: MigrateConfig, finished: Finished, folder: RunFolder, source: Source, advance: Advance
    ) -> None:
        self._config = config
        self._finished = finished
        self._folder = folder
        self._source = source
        self._advance = advance
        self._lock = threading.Lock()
        self._now: list[PlannedCollection] = []
        self._skipped: list[str] = []
        self._same: set[tuple[str, int]] = set()
        self._probes: Probes | None = None

    @property
    def by_distances(self) -> bool:
        """Whether embeddings are compared by their distances, since to read them takes long."""
        return self._source.embeddings_are_dear and not self._config.exact_recheck

    @property
    def changed(self) -> bool:
        """Whether any record was added, changed or deleted."""
        return len(self._same) < sum(len(planned.pieces) for planned in self._now)

    @property
    def contested(self) -> bool:
        """Whether collections that are merged have come to have records of one id."""
        return bool(contested_ids(self._config.profile, self._now, self._finished.plan.targets))

    def compare(self) -> bool:
        """Read everything; False if the collections themselves are not the same any more."""
        there = {collection.name: collection for collection in select(self._config, self._source)}
        base = self._finished.plan.collections
        if there.keys() != {planned.name for planned in base}:
            return False
        if any(there[planned.name].spec.metadata != planned.spec.metadata for planned in base):
            return False
        if not all(self._same_metric(planned, there[planned.name]) for planned in base):
            return False
        self._now = [self._pieces_now(planned, there[planned.name]) for planned in base]
        for planned in self._now:
            pieces = [Piece(planned, number) for number in range(len(planned.pieces))]
            self._probes = self._ask(planned, pieces)
            flow(pieces, [Stage(self._compare, self._config.workers)])
        return True

    def _same_metric(self, planned: PlannedCollection, there: Collection) -> bool:
        """Whether the index still answers in the metric that was proven; a collection can be made anew."""
        if there.key == planned.key:
            return True
        proven = metric.prove(self._source, there, self._source.ids(there))
        return (proven or there.spec.space) == planned.spec.space

    def _pieces_now(self, planned: PlannedCollection, there: Collection) -> PlannedCollection:
        """The collection in the pieces that it had, without deleted ids, and new ids in pieces of their own."""
        now = self._source.ids(there)
        left = set(now)
        pieces = [[record for record in piece if record in left] for piece in planned.pieces]
        known = {record for piece in planned.pieces for record in piece}
        new = [record for record in now if record not in known]
        return replace(planned, key=there.key, pieces=pieces + in_pieces(new))

    def _ask(self, planned: PlannedCollection, pieces: list[Piece]) -> Probes | None:
        """What the index says of the collection's embeddings, if they are compared by that."""
        if not self.by_distances:
            return None
        like = next((before for piece in pieces if (before := self._before(piece)) is not None and len(before)), None)
        if like is None:
            return None
        ids = [record for piece in pieces for record in piece.ids]
        seed = f"{self._folder.path.name} {planned.name}"
        return ask(self._source, planned.source, planned.spec.space, ids, like, seed)

    def _compare(self, piece: Piece) -> None:
        before = self._before(piece)
        if before is not None and self._probes is not None and self._seems_the_same(piece, before, self._probes):
            same = True
        else:
            batch, unreadable = self._source.read(piece.planned.source, piece.ids)
            same = before is not None and _equal(before, batch, piece.planned.spec.space)
            if not same:
                self._folder.make()
                keep(self._folder, piece, batch, unreadable)
        if same:
            with self._lock:
                self._same.add((piece.planned.name, piece.number))
        self._advance("recheck", len(piece.ids))

    def _before(self, piece: Piece) -> Batch | None:
        """The piece as the finished run kept it, unless ids of it are gone or it is new."""
        base = next(entry for entry in self._finished.plan.collections if entry.name == piece.planned.name)
        if piece.number >= len(base.pieces) or len(base.pieces[piece.number]) != len(piece.ids):
            return None
        folder = self._finished.folder
        return read_shard(folder.path, folder.shard(base.name, piece.number))

    def _seems_the_same(self, piece: Piece, before: Batch, probes: Probes) -> bool:
        """Whether all texts are equal, what the index says of the embeddings agrees, and those in doubt are equal."""
        some = before.take(probes.doubtful(before))
        if len(before) < len(piece.ids) or len(some) > len(before) // 2:
            return False
        there = piece.planned.source
        return _equal(_without_embeddings(before), self._source.read_text(there, before.ids), "l2") and (
            not len(some) or _equal(some, self._source.read(there, some.ids)[0], piece.planned.spec.space)
        )

    def plan(self) -> Plan:
        """The plan that carries the changes over; pieces that are the same are taken from the finished run."""
        base = self._finished
        lines = []
        for entry in base.folder.entries_with_rejects():
            piece = (entry["collection"], entry["number"])
            if piece in self._same and entry["step"] not in (CARRY, ROLLED_BACK):
                lines.append(entry)
                if entry["step"] == "export":
                    _link(base.folder.path, self._folder.path, entry["shard"]["file"])
        self._folder.adopt(lines)
        targets = [
            replace(target, replaces=base.keys[target.name], spec=replace(target.spec)) for target in base.plan.targets
        ]
        return Plan(self._now, targets, base.plan.skipped, base=base.run)


def _equal(before: Batch, now: Batch, space: str) -> bool:
    comparison = Comparison()
    comparison.add(before, now, space=space)
    return len(before) == len(now) and not comparison.differences


def _link(old: Path, new: Path, file: str) -> None:
    target = new / file
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(old / file)
    except OSError:  # a file system without links
        shutil.copyfile(old / file, target)


def _without_embeddings(batch: Batch) -> Batch:
    none = np.empty((len(batch), 0), np.float32)
    return Batch(batch.ids, none, batch.documents, batch.uris, batch.metadatas)
