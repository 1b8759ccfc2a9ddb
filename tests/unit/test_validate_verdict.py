"""From results to a verdict, in the runbooks' words."""

from __future__ import annotations

import pytest

from chromactl.errors import UsageError
from chromactl.validate.config import Thresholds
from chromactl.validate.findings import CheckResult, Findings, Status
from chromactl.validate.verdict import judge

NAMES = [
    "count_verification",
    "embedding_integrity",
    "metadata_completeness",
    "semantic_search_equivalence",
    "collection_distribution",
    "duplicate_detection",
    "field_type_validation",
    "citation_references",
]


def results(**statuses: Status) -> list[CheckResult]:
    return [
        CheckResult(number, name, name, statuses.get(name, Status.PASSED), "", {}, Findings(number, lambda *_: None))
        for number, name in enumerate(NAMES, start=1)
    ]


def test_passed() -> None:
    verdict = judge(results(citation_references=Status.SKIPPED), 0.0, 0.05, Thresholds())
    assert (verdict.status, verdict.rollback_triggered, verdict.rollback_reason) == (Status.PASSED, False, None)
    assert (verdict.data_loss_percentage, verdict.semantic_divergence_percentage) == (0.0, 5.0)


def test_a_warning_triggers_nothing() -> None:
    verdict = judge(results(count_verification=Status.WARNING), 0.05, None, Thresholds())
    assert (verdict.status, verdict.rollback_triggered, verdict.reasons) == (Status.WARNING, False, {})
    assert verdict.semantic_divergence_percentage is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("count_verification", "Chunk Count Mismatch"),
        ("embedding_integrity", "Embedding Corruption"),
        ("metadata_completeness", "Schema Violation"),
        ("semantic_search_equivalence", "Search Results Diverged"),
        ("collection_distribution", "Chunk Count Mismatch"),
        ("duplicate_detection", "Duplicate IDs Found"),
        ("field_type_validation", "Schema Violation"),
        ("citation_references", "Schema Violation"),
    ],
)
def test_every_failed_test_is_a_reason(name: str, reason: str) -> None:
    verdict = judge(results(**{name: Status.FAILED}), 0.0, 0.0, Thresholds())
    assert (verdict.status, verdict.rollback_triggered, verdict.rollback_reason) == (Status.FAILED, True, reason)
    assert verdict.reasons == {f"{name} failed": reason}


def test_data_loss_comes_first_and_fails_by_itself() -> None:
    verdict = judge(results(count_verification=Status.WARNING), 0.051, 0.0, Thresholds())
    assert (verdict.status, verdict.rollback_reason) == (Status.FAILED, "Data Loss Detected")
    assert verdict.reasons == {"data_loss_percentage > 5%": "Data Loss Detected"}
    failed = results(count_verification=Status.FAILED, semantic_search_equivalence=Status.FAILED)
    verdict = judge(failed, 0.5, 0.3, Thresholds(max_data_loss=0.1))
    assert list(verdict.reasons) == [
        "data_loss_percentage > 10%",
        "semantic_divergence > 20%",
        "count_verification failed",
    ]


def test_thresholds_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="--divergence-warning"):
        Thresholds(divergence_warning=0.3)
