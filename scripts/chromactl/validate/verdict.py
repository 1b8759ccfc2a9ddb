"""From eight results to one verdict, in the words of the runbooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chromactl.validate.config import Thresholds
from chromactl.validate.findings import CheckResult, Status

# By test, in the order in which a rollback names its first reason. The first two conditions are not a test's own.
_REASONS = {
    "count_verification": "Chunk Count Mismatch",
    "embedding_integrity": "Embedding Corruption",
    "metadata_completeness": "Schema Violation",
    "duplicate_detection": "Duplicate IDs Found",
    "collection_distribution": "Chunk Count Mismatch",
    "field_type_validation": "Schema Violation",
    "citation_references": "Schema Violation",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict. `reasons` are all conditions that ask for a rollback, with the runbooks' words for them."""

    status: Status
    data_loss_percentage: float
    semantic_divergence_percentage: float | None
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def rollback_triggered(self) -> bool:
        """Whether the migration should be rolled back."""
        return self.status is Status.FAILED

    @property
    def rollback_reason(self) -> str | None:
        """The first of the reasons."""
        return next(iter(self.reasons.values()), None)


def judge(results: Sequence[CheckResult], lost: float, divergence: float | None, thresholds: Thresholds) -> Verdict:
    """Failed if a test failed or too much is lost; a warning if a test warns. Shares are 0 to 1."""
    failed = {result.name: result for result in results if result.status is Status.FAILED}
    reasons: dict[str, str] = {}
    if lost > thresholds.max_data_loss:
        reasons[f"data_loss_percentage > {100 * thresholds.max_data_loss:g}%"] = "Data Loss Detected"
    if "semantic_search_equivalence" in failed:
        limit = f"{100 * thresholds.max_divergence:g}%"
        diverged = divergence is not None and divergence > thresholds.max_divergence
        condition = f"semantic_divergence > {limit}" if diverged else "semantic_search_equivalence failed"
        reasons[condition] = "Search Results Diverged"
    reasons |= {f"{name} failed": reason for name, reason in _REASONS.items() if name in failed}
    if reasons:
        status = Status.FAILED
    elif any(result.status is Status.WARNING for result in results):
        status = Status.WARNING
    else:
        status = Status.PASSED
    return Verdict(status, round(100 * lost, 4), None if divergence is None else round(100 * divergence, 4), reasons)
