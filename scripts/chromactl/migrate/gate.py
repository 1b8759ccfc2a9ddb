"""The gate: every exported record through the transform and the rules of landing, before anything is imported."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

import orjson

from chromactl import files
from chromactl.console import Advance
from chromactl.landing import misfits
from chromactl.migrate.export import unreadable
from chromactl.migrate.plan import Plan, PlannedCollection
from chromactl.migrate.state import RunFolder
from chromactl.reject import Reject
from chromactl.schema.profile import Profile
from chromactl.schema.transform import Transform
from chromactl.snapshot.shard import Shard, read_shard
from chromactl.stores.base import Batch


@dataclass(slots=True)
class Verdict:
    """What the gate found: records that pass per collection, rejects, and the seconds of its two halves."""

    passed: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    transform_seconds: float = 0.0
    validate_seconds: float = 0.0

    @property
    def records(self) -> int:
        """How many records there were."""
        return sum(self.passed.values()) + sum(self.rejected.values())

    @property
    def reject_rate(self) -> float:
        """The share of records that do not pass, 0 to 1."""
        return sum(self.rejected.values()) / self.records if self.records else 0.0


class Passage:
    """The records of one collection as they are imported: transformed, and without those that cannot land.

    A pure function of a shard, so that import and verification see the same without a second copy on disk.
    """

    def __init__(self, profile: Profile, planned: PlannedCollection) -> None:
        self._target = planned.name
        self._transform = Transform(profile, planned.name)
        self._dimension = planned.spec.dimension
        self.transform_seconds = 0.0
        self.validate_seconds = 0.0

    def through(self, batch: Batch) -> tuple[Batch, list[Reject]]:
        """The records that pass, and everything that is wrong with the others."""
        begun = perf_counter()
        targets, rejects = self._transform.apply(batch)
        transformed = targets.get(self._target, batch.take([]))
        halfway = perf_counter()
        unfit = misfits(transformed, self._dimension)
        if unfit:
            rejected = {reject.id for reject in unfit}
            transformed = transformed.take([row for row, id_ in enumerate(transformed.ids) if id_ not in rejected])
        self.transform_seconds += halfway - begun
        self.validate_seconds += perf_counter() - halfway
        return transformed, rejects + unfit

    def load(self, folder: RunFolder, shard: Shard) -> Batch:
        """The records of an exported shard that pass."""
        return self.through(read_shard(folder.path, shard))[0]


def examine(profile: Profile, plan: Plan, folder: RunFolder, advance: Advance) -> Verdict:
    """Put every exported record through, write the rejects to the folder, and say how it went."""
    verdict = Verdict()
    lines: list[bytes] = []
    for planned in plan.collections:
        passage = Passage(profile, planned)
        rejects = unreadable(folder, planned.name)
        passed = 0
        for shard in folder.shards(planned.name):
            batch, found = passage.through(read_shard(folder.path, shard))
            rejects += found
            passed += len(batch)
            advance(shard.rows)
        verdict.passed[planned.name] = passed
        verdict.rejected[planned.name] = len({reject.id for reject in rejects})
        verdict.reasons.update(reject.reason for reject in rejects)
        verdict.transform_seconds += passage.transform_seconds
        verdict.validate_seconds += passage.validate_seconds
        lines += [_line(planned.name, reject) for reject in rejects]
    files.write_atomically(folder.rejects, b"".join(lines))
    return verdict


def _line(collection: str, reject: Reject) -> bytes:
    entry = {
        "collection": collection,
        "id": reject.id,
        "field": reject.field,
        "reason": reject.reason,
        "value": reject.value,
    }
    return orjson.dumps(entry) + b"\n"
