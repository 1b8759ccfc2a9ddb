"""Test 1, count verification: every record is there, and none that should not be.

A record in the wrong collection is there; that is a matter of test 5.
"""

from __future__ import annotations

from typing import ClassVar

from chromactl.validate.checks.base import Check, plural
from chromactl.validate.findings import CheckResult, Offender, Status
from chromactl.validate.part import UNREADABLE, Refusals, Whole


class CountCheck(Check):
    """Counts and ids of both sides."""

    number: ClassVar[int] = 1
    name: ClassVar[str] = "count_verification"
    title: ClassVar[str] = "Count Verification"

    def observe_refusals(self, refusals: Refusals) -> None:
        """Name what the profile or Chroma's rules leave out."""
        self.findings.add(
            Offender(refusals.source, reject.id, _what(reject.reason), reject.field, "", reject.value)
            for reject in refusals.rejects
        )

    def finish(self, whole: Whole) -> None:
        """Compare what is there with what should be."""
        self._whole = whole
        self._wrong_counts = []
        for name, state in whole.targets.items():
            self.findings.add(Offender(name, record, "missing", "", "there", "missing") for record in state.missing)
            self.findings.add(Offender(name, record, "extra", "", "not there", "there") for record in state.extra)
            if state.count != state.ids:
                self._wrong_counts.append(name)
                words = (f"{state.ids:,} ids", f"{state.count:,} counted")
                self.findings.add([Offender(name, "", "the count is not the number of ids", "count", *words)])

    def result(self) -> CheckResult:
        """Failed if anything is missing or extra; a warning if records had to be left out."""
        whole = self._whole
        extra = sum(len(state.extra) for state in whole.targets.values())
        old = whole.plan.records
        new = sum(state.ids for state in whole.targets.values())
        numbers = {
            "old": old,
            "expected": whole.expected,
            "new": new,
            "missing": whole.missing,
            "extra": extra,
            "left_out": whole.rejected,
            "unverified": whole.unverified,
            "left_out_by_reason": dict(whole.reasons),
            "data_loss_percentage": round(100 * whole.lost, 4),
        }
        if whole.missing or extra or self._wrong_counts:
            found = [plural(whole.missing, "record") + " missing", f"{extra:,} extra"]
            found += [f"count of {name} is not its number of ids" for name in self._wrong_counts]
            hint = (
                "If the old side was written to after the migration, run the migration again: it carries the changes "
                "over. Otherwise roll back, and look for what refused the missing ids in the migration's log."
            )
            return self._result(Status.FAILED, "; ".join(found), numbers, hint=hint)
        summary = f"all {plural(new, 'record')} that should be there, and no others"
        if whole.rejected or whole.unverified:
            if whole.rejected:
                summary += f"; {whole.rejected:,} of the old side could not be migrated"
            if whole.unverified:
                summary += f"; {whole.unverified:,} could not be compared, the old side does not give them back"
            hint = "Look at what was left out and why; correct the records or the profile, and migrate again."
            return self._result(Status.WARNING, summary, numbers, hint=hint)
        return self._result(Status.PASSED, summary, numbers)


def _what(reason: str) -> str:
    return "the old side does not give it back" if reason == UNREADABLE else f"left out: {reason}"
