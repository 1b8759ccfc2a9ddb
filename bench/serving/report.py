"""From measurements to targets met or missed: a table for a terminal, and for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

MARK = "measured of the service: written by `make bench-service`"
Results = dict[str, list[dict[str, float]]]

MOST_ADDED_MS = 3.0
LEAST_THROUGHPUT = 0.6
MOST_WRITE_P99_MS, MOST_LAG_P50_MS, MOST_LAG_P99_MS = 20.0, 100.0, 500.0
LEAST_OF_INSERTS = 0.85
RUNBOOK_REBUILD_HOURS = "1 to 2 hours"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what, how much, what it is compared with, the target, and whether it is met."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """As text."""
        return (self.what, self.value, self.target, {None: "", True: "yes", False: "NO"}[self.met])


_HEAD = ("what", "measured", "target", "met")


def rows(results: Results) -> list[Row]:
    """All that was measured; of several rounds the median."""
    return [row for part in (_overhead, _saturation, _writes, _backlog) for row in part(results)]


def table(found: list[Row]) -> list[str]:
    """The lines for a terminal."""
    cells = [_HEAD, *(row.cells() for row in found)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def markdown(of: dict[str, Any], found: list[Row]) -> str:
    """The measured part of the page."""
    lines = [
        f"{of['cores']} cores shared by everything, Python {of['python']}; {of['memories']:,} memories x 768 are "
        f"searched, {of['backlog']:,} are drained and rebuilt; medians of {of['rounds']} rounds of {of['seconds']} s.",
        "",
        f"| {' | '.join(_HEAD)} |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row.cells())} |" for row in found),
    ]
    return "\n".join(lines)


def _overhead(results: Results) -> Iterator[Row]:
    for ours, straight in _pairs(results, "overhead"):
        added = ours - straight
        yield Row("one search straight against Chroma, p50", f"{straight:.2f} ms")
        yield Row("the same by the service, p50", f"{ours:.2f} ms")
        yield Row("what the service adds", f"{added:.2f} ms", f"< {MOST_ADDED_MS:.0f} ms", added < MOST_ADDED_MS)


def _saturation(results: Results) -> Iterator[Row]:
    for ours, straight in _pairs(results, "saturation"):
        ratio = ours / straight
        yield Row("searches a second straight against Chroma", f"{straight:.0f}")
        yield Row("by the service with 4 workers on the same cores", f"{ours:.0f}")
        yield Row("ratio", f"{ratio:.2f}", f"≥ {LEAST_THROUGHPUT:.2f}", ratio >= LEAST_THROUGHPUT)


def _writes(results: Results) -> Iterator[Row]:
    if found := results.get("writes"):
        middle = {name: median(one[name] for one in found) for name in found[0]}
        yield Row("writes a second, 4 workers", f"{middle['writes a second']:.0f}")
        for name, most in (
            ("write p99", MOST_WRITE_P99_MS),
            ("lag p50", MOST_LAG_P50_MS),
            ("lag p99", MOST_LAG_P99_MS),
        ):
            label = name.replace("lag", "write to searchable,").replace("write p", "a write, p")
            yield Row(label, f"{middle[name]:.0f} ms", f"< {most:.0f} ms", middle[name] < most)


def _backlog(results: Results) -> Iterator[Row]:
    for found in results.get("backlog", []):
        floor = min(seconds for name, seconds in found.items() if name.startswith("inserts"))
        yield Row("bare inserts", f"{floor:.1f} s")
        for name, label in (
            ("drain", "draining the outbox, embeddings stored"),
            ("drain and embed", "draining the outbox, embedded by the hashing provider meanwhile"),
            ("rebuild", f"app rebuild, verified (the runbook expects {RUNBOOK_REBUILD_HOURS})"),
        ):
            rate = floor / found[name]
            value = f"{found[name]:.1f} s, {rate:.2f} of the inserts' rate"
            yield Row(label, value, f"≥ {LEAST_OF_INSERTS:.2f}", rate >= LEAST_OF_INSERTS)


def _pairs(results: Results, way: str) -> Iterator[tuple[float, float]]:
    if found := results.get(way):
        yield median(one["service"] for one in found), median(one["straight"] for one in found)
