"""Carrying over what has changed in the source since a finished run: only that, into the live collections.

The finished run's records were found in the target just before, so what a piece has to become is known against what
it is. What is about to be changed or removed is kept in a snapshot first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chromactl.compare import Comparison
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Piece, Plan
from chromactl.migrate.steps import Land
from chromactl.reject import Reject
from chromactl.snapshot.create import create as create_snapshot
from chromactl.stores.base import Batch, Collection, Target

CARRY = "carry"
"""The ledger's step that says, before a piece is delivered, what that changes, in numbers, and the ids it adds."""


def carried(folder: RunFolder) -> dict[str, int]:
    """How many records of the target a delta run added, changed and removed."""
    total = Counter({"added": 0, "changed": 0, "removed": 0})
    for entry in folder.entries(CARRY):
        total.update(entry["counts"])
    return dict(total)


def added(folder: RunFolder) -> dict[str, list[str]]:
    """The ids that a delta run added, by the target's collection; of those it changed or emptied, none or some."""
    total: dict[str, list[str]] = {}
    for entry in folder.entries(CARRY):
        for name, ids in entry["added"].items():
            total.setdefault(name, []).extend(ids)
    return total


@dataclass(frozen=True, slots=True)
class Change:
    """What one piece changes in one collection: records to be there, which of them were, ids to be gone."""

    put: Batch
    changed: list[str]
    removed: list[str]

    @property
    def added(self) -> list[str]:
        """The ids of the records to be there that were not."""
        changed = set(self.changed)
        return [record for record in self.put.ids if record not in changed]

    @property
    def counts(self) -> dict[str, int]:
        """How many records are added, changed and removed."""
        return {
            "added": len(self.put) - len(self.changed),
            "changed": len(self.changed),
            "removed": len(self.removed),
        }


class Changes:
    """What a delta run's pieces change, against the run that it is based on."""

    def __init__(self, passage: Passage, folder: RunFolder, base: Passage, base_plan: Plan, base_folder: RunFolder):
        self._passage = passage
        self._folder = folder
        self._base = base
        self._base_folder = base_folder
        self._base_pieces = {(piece.planned.name, piece.number): piece for piece in base_plan.pieces()}

    def of(self, piece: Piece, parts: dict[str, Batch]) -> dict[str, Change]:
        """The changes of a piece whose records are to be these `parts`."""
        before: dict[str, Batch] = {}
        base = self._base_pieces.get((piece.planned.name, piece.number))
        if base is not None:
            before = self._base.expected(self._base_folder, base)
        return {
            target: _change(before.get(target), parts.get(target)) for target in sorted(before.keys() | parts.keys())
        }

    def keep(self, plan: Plan, target: Target, live: dict[str, Collection], folder: Path) -> bool:
        """A verified snapshot of the records that are about to be changed or removed; whether there are any."""
        touched: dict[str, list[str]] = {}
        for piece in plan.pieces():
            if self._folder.entry("verify", piece.planned.name, piece.number) is None:
                for name, change in self.of(piece, self._passage.expected(self._folder, piece)).items():
                    touched.setdefault(name, []).extend(change.changed + change.removed)
        wanted = {name: ids for name, ids in touched.items() if ids}
        if wanted and not folder.exists():
            create_snapshot(target, [live[name] for name in wanted], folder, only=wanted)
        return folder.exists()


def _change(before: Batch | None, now: Batch | None) -> Change:
    nothing = Batch([], np.empty((0, 0), np.float32), [], [], [])
    old, new = before or nothing, now or nothing
    known = {record: row for row, record in enumerate(old.ids)}
    both = [row for row, record in enumerate(new.ids) if record in known]
    comparison = Comparison()
    comparison.add(old.take([known[new.ids[row]] for row in both]), new.take(both), space="l2")
    differing = {difference.id for difference in comparison.differences}
    put = [row for row, record in enumerate(new.ids) if record not in known or record in differing]
    left = set(new.ids)
    return Change(
        new.take(put),
        [new.ids[row] for row in put if new.ids[row] in known],
        [record for record in old.ids if record not in left],
    )


class CarryOver(Land):
    """The step of import for a delta run: live collections are amended instead of staged ones filled."""

    changes: Changes

    def _deliver(self, piece: Piece, parts: dict[str, Batch]) -> dict[str, list[Reject]]:
        refused: dict[str, list[Reject]] = {}
        changes = self.changes.of(piece, parts)
        place = (piece.planned.name, piece.number)
        if self._folder.entry(CARRY, *place) is None:
            counts: Counter[str] = Counter()
            for change in changes.values():
                counts.update(change.counts)
            touched = {name: change.added for name, change in changes.items() if any(change.counts.values())}
            self._folder.note(CARRY, *place, counts=counts, added=touched)
        for name, change in changes.items():
            rejects: list[Reject] = []
            for batch in change.put.slices(self._config.batch_size):
                self._say_batch(name)
                rejects += self._target.amend(self._staged[name], batch, [])
            if change.removed:
                rejects += self._target.amend(self._staged[name], change.put.take([]), change.removed)
            if rejects:
                refused[name] = rejects
        return refused
