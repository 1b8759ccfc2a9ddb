"""Test 4, semantic search equivalence: do both sides answer the same queries alike, and the new one fast enough?

HNSW is approximate: a good copy can answer differently from a good original. So the overlap of the answers (Jaccard
of the first ten) is told together with each side's recall against the exact answer, computed from the old vectors;
answers may diverge where the new side's recall is at least the old one's. An old side without an index (a snapshot)
is stood in for by the exact answer, and then divergence is a warning at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from chromactl.validate.checks.base import Check, plural
from chromactl.validate.config import Thresholds
from chromactl.validate.findings import CheckResult, Offender, Status, Write

AGREEMENT = 0.95
"""The share of records in both answers whose distances have to agree."""

_SLACK = 1e-9


@dataclass(slots=True)
class Asked:
    """One query and what came of it. Recalls are 0 to 1; `recall_old` is None where the old side has no index.

    `agreeing` of `common` records have the same distance in both answers.
    """

    group: str
    kind: str
    text: str
    category: str
    overlap: float = 0.0
    recall_old: float | None = None
    recall_new: float = 0.0
    old_ms: list[float] = field(default_factory=list)
    new_ms: list[float] = field(default_factory=list)
    common: int = 0
    agreeing: int = 0
    largest_gap: float = 0.0
    error: str = ""

    @property
    def divergence(self) -> float:
        """How far the answers are apart, 0 to 1."""
        return 1.0 - self.overlap

    @property
    def no_worse(self) -> bool:
        """Whether the new side found at least as much of the exact answer as the old one."""
        return self.recall_old is not None and self.recall_new >= self.recall_old - _SLACK

    def as_json(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "collection": self.group,
            "kind": self.kind,
            "text": self.text,
            "category": self.category,
            "overlap": round(self.overlap, 4),
            "recall_old": None if self.recall_old is None else round(self.recall_old, 4),
            "recall_new": round(self.recall_new, 4),
            "old_ms": [round(value, 2) for value in self.old_ms],
            "new_ms": [round(value, 2) for value in self.new_ms],
            "distances_common": self.common,
            "distances_agreeing": self.agreeing,
            "error": self.error,
        }


class SemanticCheck(Check):
    """Judges what was asked; asking is chromactl.validate.semantic's."""

    number: ClassVar[int] = 4
    name: ClassVar[str] = "semantic_search_equivalence"
    title: ClassVar[str] = "Semantic Search Equivalence"

    def __init__(self, write: Write, thresholds: Thresholds) -> None:
        super().__init__(write)
        self._limits = thresholds
        self.asked: list[Asked] = []
        self.notes: list[str] = []

    def take(self, asked: list[Asked], notes: list[str]) -> None:
        """Take in all queries and what was said about groups that could not be asked."""
        self.asked += asked
        self.notes += notes
        self.findings.add(
            Offender(one.group, "", "the index does not answer", one.text[:80], "an answer", one.error)
            for one in asked
            if one.error
        )
        self.findings.add(
            Offender(
                one.group,
                "",
                "a query's answers diverge",
                one.text[:80],
                f"at most {self._limits.query_divergence_warning:.0%}",
                f"{one.divergence:.0%} (recall {_percent(one.recall_old)} → {one.recall_new:.0%})",
            )
            for one in asked
            if not one.error and self._diverges(one)
        )

    def _diverges(self, one: Asked) -> bool:
        return one.divergence > self._limits.query_divergence_warning and not one.no_worse

    @property
    def divergence(self) -> float | None:
        """The mean divergence of all queries that both sides answered, 0 to 1; None if there is none."""
        answered = [one.divergence for one in self.asked if not one.error]
        return fmean(answered) if answered else None

    def result(self) -> CheckResult:
        """By the thresholds; a new side that finds no less passes with a note."""
        divergence = self.divergence
        if divergence is None:
            broken = sum(bool(one.error) for one in self.asked)
            if broken:
                return self._broken(broken, {"queries": broken})
            summary = "nothing to ask: no index, no vectors, or no queries"
            return self._result(Status.SKIPPED, summary, {"queries": 0}, notes=self.notes)
        numbers = self._numbers(divergence)
        notes = list(self.notes)
        if broken := sum(bool(one.error) for one in self.asked):
            return self._broken(broken, numbers)
        status, summary, hint = self._judge(divergence, numbers, notes)
        return self._result(status, summary, numbers, hint=hint, notes=notes)

    def _broken(self, broken: int, numbers: dict[str, Any]) -> CheckResult:
        hint = "The index is broken: roll back, or rebuild the collection from a snapshot."
        summary = f"the new side does not answer {broken:,} of {plural(len(self.asked), 'query')}"
        return self._result(Status.FAILED, summary.replace("querys", "queries"), numbers, hint=hint, notes=self.notes)

    def _numbers(self, divergence: float) -> dict[str, Any]:
        recalls = [one.recall_old for one in self.asked if one.recall_old is not None]
        common = sum(one.common for one in self.asked)
        return {
            "queries": len(self.asked),
            "divergence_percentage": round(100 * divergence, 4),
            "mean_overlap": round(1 - divergence, 6),
            "recall_old": round(fmean(recalls), 6) if recalls else None,
            "recall_new": round(fmean(one.recall_new for one in self.asked), 6),
            "worst_query_divergence_percentage": round(100 * max(one.divergence for one in self.asked), 4),
            "distances_compared": common,
            "distances_agreeing": sum(one.agreeing for one in self.asked),
            "largest_distance_gap": max(one.largest_gap for one in self.asked),
            "latency_ms": {
                "old": latency([value for one in self.asked for value in one.old_ms]),
                "new": latency([value for one in self.asked for value in one.new_ms]),
            },
        }

    def _judge(self, divergence: float, numbers: dict[str, Any], notes: list[str]) -> tuple[Status, str, str]:
        limits = self._limits
        recall_old, recall_new = numbers["recall_old"], numbers["recall_new"]
        summary = f"divergence {divergence:.1%}, recall {_percent(recall_old)} → {recall_new:.1%}"
        status, hint = Status.PASSED, ""
        no_worse = recall_old is not None and recall_new >= recall_old - _SLACK
        if divergence >= limits.divergence_warning:
            if no_worse:
                notes.append("the answers differ, but the new side's recall is at least the old one's: no loss")
            elif divergence > limits.max_divergence and recall_old is not None:
                status, hint = Status.FAILED, "The new index finds less: roll back; check metric and HNSW settings."
            else:
                status, hint = Status.WARNING, "Review the queries that diverge; compare metric and HNSW settings."
        over = [one for one in self.asked if one.divergence > limits.query_divergence_warning]
        single = [one for one in over if self._diverges(one)]
        if single and status is Status.PASSED:
            status, hint = Status.WARNING, "Review the queries that diverge; the average is fine."
        words = f"of {len(self.asked):,} queries diverge by more than {limits.query_divergence_warning:.0%}"
        if single:
            notes.append(f"{len(single):,} {words}, and the new side finds less for them")
        if others := len(over) - len(single):
            notes.append(f"{others:,} {words}, but the new side finds no less for them")
        common, agreeing = numbers["distances_compared"], numbers["distances_agreeing"]
        if common and agreeing < AGREEMENT * common:
            notes.append(f"only {agreeing:,} of {common:,} distances agree")
            if status is Status.PASSED:
                status, hint = Status.WARNING, "Distances differ: compare the metrics of both sides."
        new = numbers["latency_ms"]["new"]
        if new is not None:
            summary += f", p95 {new['p95']:.0f} ms"
            if new["p95"] >= limits.limit_ms:
                notes.append(f"p95 latency {new['p95']:.0f} ms is not below {limits.limit_ms:g} ms")
                if status is Status.PASSED:
                    status, hint = Status.WARNING, "The new side is slow: is it warm, and is the machine idle?"
        return status, summary, hint


def latency(values: list[float]) -> dict[str, float] | None:
    """p50 and p95 in milliseconds."""
    if not values:
        return None
    return {name: round(float(np.percentile(values, int(name[1:]))), 2) for name in ("p50", "p95")}


def _percent(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1%}"
