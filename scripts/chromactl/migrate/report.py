"""What a migration came to: one object for programs, a table for people."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chromactl.compare import Comparison
from chromactl.migrate.state import CollectionState, PhaseResult


@dataclass(slots=True)
class Report:
    """The result of `chromactl migrate`.

    `status` is complete, unchanged or dry-run; `advice` is for dry runs. `unplaced` counts rejected records of
    collections that go to several targets; `carried` says what a run changed that carried over a source's changes;
    `reused` counts pieces that an earlier, interrupted process had finished, by step.
    """

    status: str
    changed: bool
    run: str
    source: str
    target: str
    profile: str
    collections: list[CollectionState] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rejects: dict[str, int] = field(default_factory=dict)
    phases: list[PhaseResult] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    unplaced: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    carried: dict[str, int] | None = None
    seconds: float = 0.0
    rounded_embeddings: int = 0
    rounded_floats: int = 0
    advice: str | None = None
    log_file: Path | None = None
    report_file: Path | None = None
    rejects_file: Path | None = None
    checkpoint_file: Path | None = None
    backup: Path | None = None

    def note_rounding(self, comparison: Comparison) -> None:
        """Take in the roundings that a comparison saw."""
        self.rounded_embeddings += comparison.rounded_embeddings
        self.rounded_floats += comparison.rounded_floats

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; paths are absolute, sizes in bytes, times in seconds."""
        return {
            "command": "migrate",
            "changed": self.changed,
            "status": self.status,
            "run": self.run,
            "source": self.source,
            "target": self.target,
            "profile": self.profile,
            "collections": {
                entry.name: {
                    "sources": list(entry.sources),
                    "source": entry.source,
                    "imported": entry.imported,
                    "rejected": entry.rejected,
                    "verified": entry.verified,
                    "space": entry.space,
                }
                for entry in self.collections
            },
            "skipped": self.skipped,
            "rejects": {
                "total": sum(entry.rejected for entry in self.collections) + sum(self.unplaced.values()),
                "by_reason": self.rejects,
                "unplaced": self.unplaced,
            },
            "rounded": {"embeddings": self.rounded_embeddings, "floats": self.rounded_floats},
            "phases": [
                {
                    "name": phase.name,
                    "seconds": round(phase.seconds, 3),
                    "records": phase.records,
                    "records_per_second": round(phase.records_per_second, 1),
                }
                for phase in self.phases
            ],
            "seconds": round(self.seconds, 3),
            "reused": self.reused,
            "carried": self.carried,
            "kept": self.kept,
            "advice": self.advice,
            "peak_memory_bytes": peak_memory(),
            "log_file": _text(self.log_file),
            "report_file": _text(self.report_file),
            "rejects_file": _text(self.rejects_file),
            "checkpoint_file": _text(self.checkpoint_file),
            "backup": _text(self.backup),
        }

    def lines(self) -> list[str]:
        """The table for people."""
        rows = [f"{'collection':24} {'source':>8} {'imported':>8} {'verified':>8} {'rejected':>8}"]
        rows += [
            f"{entry.name:24} {entry.source:8,} {entry.imported:8,} {entry.verified:8,} {entry.rejected:8,}"
            for entry in self.collections
        ]
        totals = [sum(getattr(entry, name) for entry in self.collections) for name in _COLUMNS]
        rows.append(f"{'TOTAL':24} " + " ".join(f"{total:8,}" for total in totals))
        if self.skipped:
            rows.append(f"left alone (not named by the profile): {', '.join(self.skipped)}")
        rows += [f"rejected of {source}: {count:,}" for source, count in self.unplaced.items()]
        rows += [f"rejected because of {reason}: {count:,}" for reason, count in sorted(self.rejects.items())]
        if self.carried is not None:
            rows.append("carried over: " + ", ".join(f"{count:,} {what}" for what, count in self.carried.items()))
        rows += [
            f"{phase.name:10} {phase.seconds:7.1f} s {phase.records_per_second:10,.0f} records/s"
            for phase in self.phases
            if phase.records
        ]
        rows.append(f"{self.seconds:.1f} s in all (phases overlap), peak memory {peak_memory() / 2**20:.0f} MiB")
        rows += [f"the former {name} is kept as {kept}" for name, kept in self.kept.items()]
        return rows


_COLUMNS = ("source", "imported", "verified", "rejected")


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
