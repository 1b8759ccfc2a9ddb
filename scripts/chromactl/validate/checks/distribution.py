"""Test 5, collection distribution: every record is in its collection, and the collections' shares are the old ones."""

from __future__ import annotations

from typing import Any, ClassVar

from chromactl.validate.checks.base import Check, plural
from chromactl.validate.findings import CheckResult, Offender, Status
from chromactl.validate.part import Whole


class DistributionCheck(Check):
    """Which record is in which collection."""

    number: ClassVar[int] = 5
    name: ClassVar[str] = "collection_distribution"
    title: ClassVar[str] = "Collection Distribution"

    def finish(self, whole: Whole) -> None:
        """Name records in a wrong collection, and collections that are not there."""
        self._whole = whole
        self.findings.add(
            Offender(one.found, one.id, "in the wrong collection", "collection", one.should, one.found)
            for one in whole.misplaced
        )
        self._absent = [name for name, state in whole.targets.items() if state.collection is None]
        self.findings.add(Offender(name, "", "no such collection", "collection", "there", "") for name in self._absent)

    def result(self) -> CheckResult:
        """Failed for anything in a wrong place."""
        whole = self._whole
        total_expected = whole.expected
        total_new = sum(state.ids for state in whole.targets.values())
        shares: dict[str, dict[str, Any]] = {
            name: {
                "expected": state.expected,
                "new": state.ids,
                "expected_share": round(state.expected / total_expected, 6) if total_expected else 0.0,
                "new_share": round(state.ids / total_new, 6) if total_new else 0.0,
            }
            for name, state in whole.targets.items()
        }
        numbers = {"collections": shares, "misplaced": len(whole.misplaced), "absent": self._absent}
        notes = []
        if whole.not_named:
            notes.append(f"the new side has other collections too, not looked at: {', '.join(whole.not_named[:20])}")
        if whole.plan.skipped:
            notes.append(f"the old side has collections that were not compared: {', '.join(whole.plan.skipped[:20])}")
        if whole.misplaced or self._absent:
            found = [f"{plural(len(whole.misplaced), 'record')} in a wrong collection"] if whole.misplaced else []
            found += [f"no collection {name}" for name in self._absent]
            hint = "Check --profile and --rename against those of the migration; if they are right, migrate again."
            return self._result(Status.FAILED, "; ".join(found), numbers, hint=hint, notes=notes)
        return self._result(
            Status.PASSED, f"every record in its one of {plural(len(shares), 'collection')}", numbers, notes=notes
        )
