"""What a validation reports: the verdict, the eight tests, and what the reports draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from chromactl.migrate.report import peak_memory
from chromactl.stores.opening import Access
from chromactl.validate.checks.semantic import Asked
from chromactl.validate.config import Thresholds
from chromactl.validate.findings import CheckResult, Status
from chromactl.validate.part import Whole
from chromactl.validate.verdict import Verdict

VERSION = 1
_RULE = "=" * 80
_LOUD = (Status.FAILED, Status.WARNING)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values of each side fall between two edges; there is one edge more than counts."""

    edges: list[float]
    old: list[int]
    new: list[int]


@dataclass(slots=True)
class ValidationReport:
    """The result of one validation. `norms` has a histogram of vector lengths for each collection."""

    old: Access
    new: Access
    profile: str
    thresholds: Thresholds
    started: datetime
    seconds: float
    verdict: Verdict
    tests: list[CheckResult]
    whole: Whole
    asked: list[Asked]
    norms: dict[str, Histogram]
    files: dict[str, Path] = field(default_factory=dict)

    def count(self, status: Status) -> int:
        """How many tests came to this."""
        return sum(test.status is status for test in self.tests)

    def as_json(self) -> dict[str, Any]:
        """The JSON report, and what `--json` prints; its schema is docs/validation.schema.json."""
        verdict = self.verdict
        return {
            "command": "validate",
            "changed": False,
            "version": VERSION,
            "overall_status": verdict.status.value,
            "rollback_triggered": verdict.rollback_triggered,
            "rollback_reason": verdict.rollback_reason,
            "rollback_reasons": verdict.reasons,
            "data_loss_percentage": verdict.data_loss_percentage,
            "semantic_divergence_percentage": verdict.semantic_divergence_percentage,
            "started": self.started.isoformat(timespec="seconds"),
            "elapsed_seconds": round(self.seconds, 3),
            "old": _side(self.old),
            "new": _side(self.new),
            "profile": self.profile,
            "thresholds": asdict(self.thresholds),
            "total_tests": len(self.tests),
            "passed": self.count(Status.PASSED),
            "warnings": self.count(Status.WARNING),
            "failed": self.count(Status.FAILED),
            "skipped": self.count(Status.SKIPPED),
            "tests": [test.as_json() for test in self.tests],
            "collections": [
                {
                    "name": name,
                    "sources": state.target.sources,
                    "there": state.collection is not None,
                    "expected": state.expected,
                    "new": state.ids,
                    "missing": len(state.missing),
                    "extra": len(state.extra),
                    "metric": state.proven or (state.collection.spec.space if state.collection else None),
                }
                for name, state in self.whole.targets.items()
            ],
            "not_compared": {"old": self.whole.plan.skipped, "new": self.whole.not_named},
            "queries": [one.as_json() for one in self.asked],
            "norms": {name: asdict(histogram) for name, histogram in self.norms.items()},
            "peak_memory_bytes": peak_memory(),
            "files": {name: str(path.absolute()) for name, path in self.files.items()},
        }

    def lines(self) -> list[str]:
        """The block that the runbooks print, with what each test came to."""
        rows = [f"{test.number}. {test.title:30} {test.status.value:8} {test.summary}" for test in self.tests]
        verdict = self.verdict
        block = [
            _RULE,
            "VALIDATION SUMMARY",
            _RULE,
            f"Total tests: {len(self.tests)}",
            f"Passed: {self.count(Status.PASSED)}",
            f"Failed: {self.count(Status.FAILED)}",
        ]
        if warnings := self.count(Status.WARNING):
            block.append(f"Warnings: {warnings}")
        if skipped := self.count(Status.SKIPPED):
            block.append(f"Skipped: {skipped}")
        block += [
            f"Elapsed time: {self.seconds:.2f}s",
            f"Overall status: {verdict.status.value}",
            f"Rollback triggered: {'YES' if verdict.rollback_triggered else 'NO'}",
        ]
        if verdict.rollback_reason:
            block.append(f"Rollback reason: {verdict.rollback_reason}")
        return [*rows, *block, _RULE]

    def complaint(self, *, strict: bool) -> str:
        """What the command ends with, in one line; empty if all is well, or well enough without `strict`."""
        verdict = self.verdict
        if verdict.status is Status.PASSED or (verdict.status is Status.WARNING and not strict):
            return ""
        named = [f"{one.title} {one.status.value}" for one in self.tests if one.status in _LOUD]
        because = f" ({verdict.rollback_reason})" if verdict.rollback_reason else ""
        return f"validation {verdict.status.value}{because}: {', '.join(named)}; see {self.files['markdown']}"


def _side(access: Access) -> dict[str, str]:
    return {"url": access.location.text, "tenant": access.tenant, "database": access.database}
