"""From the source's records to those of each target: transformed, routed, and without those that cannot land.

A pure function of an exported shard and of what the ledger says, so that import, verification and later runs see
the same without a second copy on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from chromactl.landing import misfits
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.plan import Piece, Plan, PlannedCollection
from chromactl.reject import Reject
from chromactl.schema.profile import Profile
from chromactl.schema.transform import Transform
from chromactl.snapshot.shard import read_shard
from chromactl.stores.base import Batch


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of a batch: the records for each target, what was wrong with the others, and the seconds it took."""

    parts: dict[str, Batch]
    rejects: list[Reject]
    transform_seconds: float
    validate_seconds: float


class Passage:
    """A profile's transform for every collection of a plan, and the rules of landing."""

    def __init__(self, profile: Profile, plan: Plan) -> None:
        self._transforms = {entry.name: Transform(profile, entry.name) for entry in plan.collections}
        self._targets = {target.rule: target for target in plan.targets}

    def through(self, planned: PlannedCollection, batch: Batch) -> Passed:
        """What becomes of these records of the collection."""
        begun = perf_counter()
        routed, rejects = self._transforms[planned.name].apply(batch)
        halfway = perf_counter()
        parts: dict[str, Batch] = {}
        for rule, part in routed.items():
            target = self._targets[rule]
            unfit = misfits(part, target.spec.dimension, target.spec.space)
            rejects = rejects + unfit
            kept = without(part, {reject.id for reject in unfit})
            if len(kept):
                parts[target.name] = kept
        return Passed(parts, rejects, halfway - begun, perf_counter() - halfway)

    def expected(self, folder: RunFolder, piece: Piece) -> dict[str, Batch]:
        """The records of an exported piece that each target is to hold: without duplicates and what it refused."""
        batch = read_shard(folder.path, folder.shard(piece.planned.name, piece.number))
        parts = self.through(piece.planned, batch).parts
        for step in ("examine", "import"):
            noted = folder.entry(step, piece.planned.name, piece.number) or {}
            for target, ids in noted.get("left_out", {}).items():
                parts[target] = without(parts[target], set(ids))
        return parts


def without(batch: Batch, ids: set[str]) -> Batch:
    """The batch without the records of these ids."""
    if not ids:
        return batch
    return batch.take([row for row, record in enumerate(batch.ids) if record not in ids])
