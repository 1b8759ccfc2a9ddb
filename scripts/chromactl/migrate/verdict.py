"""The gate: how many records pass, how many do not and why, as the ledger has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from chromactl import files
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.plan import Plan
from chromactl.migrate.state import CollectionState
from chromactl.reject import Reject


@dataclass(slots=True)
class Verdict:
    """Records that pass per target, records that do not per source's collection, and the reasons."""

    passed: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        """How many records there were."""
        return self.passed.total() + self.rejected.total()

    @property
    def reject_rate(self) -> float:
        """The share of records that do not pass, 0 to 1."""
        return self.rejected.total() / self.records if self.records else 0.0


def judge(folder: RunFolder) -> Verdict:
    """What the ledger's notes come to so far."""
    verdict = Verdict()
    for entry in folder.entries("examine"):
        verdict.passed.update(entry["passed"])
        verdict.rejected[entry["collection"]] += entry["rejected"]
        verdict.reasons.update(entry["reasons"])
    for entry in folder.entries("import"):
        for target, ids in entry["left_out"].items():
            verdict.passed[target] -= len(ids)
            verdict.rejected[entry["collection"]] += len(ids)
        verdict.reasons.update(entry["reasons"])
    return verdict


def states(plan: Plan, folder: RunFolder) -> list[CollectionState]:
    """Every target of the plan with its numbers. Rejects count for the target that their collection goes to."""
    verdict = judge(folder)
    imported = _sums(folder, "import", "records")
    verified = _sums(folder, "verify", "compared")
    found = []
    for target in plan.targets:
        state = CollectionState(
            target.name,
            tuple(target.sources),
            verdict.passed[target.name],
            target.spec.space,
            imported=imported[target.name],
            verified=verified[target.name],
        )
        if all(len(plan.feeds(source)) == 1 for source in target.sources):
            feeding = [planned for planned in plan.collections if planned.name in target.sources]
            state = replace(
                state,
                source=sum(planned.records for planned in feeding),
                rejected=sum(verdict.rejected[planned.name] for planned in feeding),
            )
        found.append(state)
    return found


def unplaced(plan: Plan, verdict: Verdict) -> dict[str, int]:
    """Rejected records of collections that go to several targets, which are no single one's."""
    return {source: count for source, count in verdict.rejected.items() if count > 0 and len(plan.feeds(source)) > 1}


def _sums(folder: RunFolder, step: str, key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for entry in folder.entries(step):
        total.update(entry[key])
    return total


def lines(collection: str, rejects: list[Reject]) -> list[dict[str, Any]]:
    """The rejects of one collection as they are noted and kept."""
    return [
        {"collection": collection, "id": one.id, "field": one.field, "reason": one.reason, "value": one.value}
        for one in rejects
    ]


def write_rejects(folder: RunFolder, path: Path) -> None:
    """Write every reject, a JSON object a line."""
    files.write_atomically(path, b"".join(orjson.dumps(entry) + b"\n" for entry in folder.rejects()))
