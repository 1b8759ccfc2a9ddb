"""Test 4 on answers in memory: by which thresholds they are judged, as a whole and one by one."""

from __future__ import annotations

from typing import Any

import pytest

from chromactl.validate.checks.semantic import Asked, SemanticCheck
from chromactl.validate.config import Thresholds
from chromactl.validate.findings import Offender, Status


class Seen(list[tuple[int, Offender]]):
    """What a check has written down."""

    def __call__(self, test: int, offender: Offender) -> None:
        self.append((test, offender))


@pytest.fixture
def seen() -> Seen:
    return Seen()


def asked(count: int, **more: Any) -> list[Asked]:
    usual: dict[str, Any] = {"overlap": 1.0, "recall_old": 1.0, "recall_new": 1.0, "new_ms": [5.0], "old_ms": [9.0]}
    return [Asked("pets", "stored", f"q{number}", "", **{**usual, **more}) for number in range(count)]


@pytest.mark.parametrize(
    ("queries", "status"),
    [
        (asked(10), Status.PASSED),
        (asked(10, overlap=0.91, recall_new=0.95), Status.PASSED),
        (asked(10, overlap=0.85, recall_new=0.9), Status.WARNING),
        (asked(10, overlap=0.8, recall_new=0.9), Status.WARNING),
        (asked(10, overlap=0.79, recall_new=0.9), Status.FAILED),
        (asked(10, overlap=0.5, recall_old=0.7, recall_new=0.7), Status.PASSED),
        (asked(10, overlap=0.5, recall_old=0.7, recall_new=0.9), Status.PASSED),
        (asked(10, overlap=0.5, recall_old=None, recall_new=0.6), Status.WARNING),
        (asked(9) + asked(1, overlap=0.65, recall_new=0.8), Status.WARNING),
        (asked(9) + asked(1, overlap=0.65, recall_old=0.8, recall_new=0.8), Status.PASSED),
        (asked(10, new_ms=[301.0]), Status.WARNING),
        (asked(10, common=10, agreeing=9), Status.WARNING),
        (asked(10, common=100, agreeing=95), Status.PASSED),
        (asked(9) + asked(1, error="HTTP 500"), Status.FAILED),
        (asked(2, error="HTTP 500"), Status.FAILED),
        ([], Status.SKIPPED),
    ],
)
def test_how_answers_are_judged(seen: Seen, queries: list[Asked], status: Status) -> None:
    check = SemanticCheck(seen, Thresholds())
    check.take(queries, [])
    assert check.result().status is status


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        (
            asked(1, overlap=0.65, recall_old=1.0, recall_new=0.9),
            Status.WARNING,
            "1 of 20 queries diverge by more",
        ),
        (asked(1, overlap=0.65, recall_old=0.9, recall_new=0.9), Status.PASSED, "finds no less for them"),
        (asked(1, overlap=0.65, recall_old=0.8, recall_new=0.9), Status.PASSED, "finds no less for them"),
        (asked(1, overlap=0.75, recall_old=1.0, recall_new=0.9), Status.PASSED, ""),
    ],
)
def test_a_query_is_judged_by_its_own_recall(seen: Seen, query: list[Asked], status: Status, words: str) -> None:
    """Less recall elsewhere does not make a warning of it, nor more recall elsewhere a note."""
    check = SemanticCheck(seen, Thresholds())
    check.take([*asked(18), *asked(1, recall_new=0.9), *query], [])
    result = check.result()
    assert result.status is status
    assert len(seen) == (status is Status.WARNING)
    assert words in " ".join(result.notes)
    assert bool(result.notes) is bool(words)


def test_the_thresholds_are_options(seen: Seen) -> None:
    check = SemanticCheck(seen, Thresholds(divergence_warning=0.01, max_divergence=0.02))
    check.take(asked(10, overlap=0.97, recall_new=0.9), [])
    assert check.result().status is Status.FAILED
