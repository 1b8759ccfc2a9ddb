"""What a rollback came to: one object for programs, a page for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from chromactl import files
from chromactl.rollback.step import Step, Way


@dataclass(slots=True)
class RollbackReport:
    """The result of `chromactl rollback`.

    `status` is restored, unchanged or dry-run. `backup` is where the truth of before came from, `archive` the snapshot
    of what had to go; `lost` are the ids that the archive could not keep, because the target does not give them back.
    `now` is what stands there at the end: the records of each live name, None where there is no such collection.
    """

    status: str
    name: str
    run: str | None
    target: str
    started: datetime
    reason: str = ""
    backup: str | None = None
    archive: Path | None = None
    lost: dict[str, list[str]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    now: dict[str, int | None] = field(default_factory=dict)
    seconds: float = 0.0
    report_file: Path | None = None
    log_file: Path | None = None

    @property
    def changed(self) -> bool:
        """Whether the target was changed; of a dry run, whether it would be."""
        return self.status != "unchanged" and any(step.changes for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints, and the JSON report; paths are absolute, times in seconds."""
        return {
            "command": "rollback",
            "changed": self.changed,
            "status": self.status,
            "rollback": self.name,
            "run": self.run,
            "target": self.target,
            "reason": self.reason,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "backup": self.backup,
            "archive": None if self.archive is None else str(self.archive.absolute()),
            "not_archived": {name: len(ids) for name, ids in self.lost.items()},
            "collections": {
                step.name: {
                    "way": step.way.name.lower(),
                    "records": step.records,
                    "digest": step.digest,
                    "verified": step.way in (Way.RENAMED, Way.REWRITTEN, Way.AMENDED),
                }
                for step in self.steps
            },
            "now": self.now,
            "report_file": None if self.report_file is None else str(self.report_file.absolute()),
            "log_file": None if self.log_file is None else str(self.log_file.absolute()),
        }

    def lines(self) -> list[str]:
        """What a person reads at the end."""
        rows = [f"{'collection':24} {'records':>8}  what becomes of it" if self.status == "dry-run" else _HEAD]
        rows += [f"{step.name:24} {step.records:8,}  {step.way.value}" for step in self.steps]
        if self.archive is not None:
            rows.append(f"what had to go is kept as snapshot:{self.archive}")
        rows += [
            f"not archived of {name}: {len(ids):,} records that the target does not give back"
            for name, ids in self.lost.items()
        ]
        rows.append(_SENTENCES[self.status])
        return rows

    def write(self, path: Path) -> None:
        """Write the page and, beside it, the JSON."""
        self.report_file = path
        files.make_folder(path.parent)
        files.write_atomically(path, ("\n".join(self._page()) + "\n").encode())
        files.write_atomically(path.with_suffix(".json"), orjson.dumps(self.as_json(), option=orjson.OPT_INDENT_2))

    def _page(self) -> list[str]:
        facts = [
            ("Status", self.status),
            ("Reason", self.reason or "-"),
            ("Run", self.run or "-"),
            ("Database", self.target),
            ("Went back to", self.backup or "-"),
            ("What had to go is kept in", f"snapshot:{self.archive}" if self.archive is not None else "-"),
            ("Started", self.started.isoformat(timespec="seconds")),
            ("Elapsed", f"{self.seconds:.1f} s"),
        ]
        lines = ["# Rollback report", "", f"**{_SENTENCES[self.status]}**", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_safe(value)} |" for name, value in facts]
        lines += [
            "",
            "## Collections",
            "",
            "| collection | records | what became of it | digest |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {_safe(step.name)} | {step.records:,} | {step.way.value} | {(step.digest or '-')[:16]} |"
            for step in self.steps
        ]
        if self.lost:
            lines += [
                "",
                "## Not in the archive",
                "",
                "The target listed these records and did not give them back:",
                "",
            ]
            lines += [f"- {_safe(name)}: {', '.join(map(_safe, ids[:20]))}" for name, ids in self.lost.items()]
        lines += ["", "## What now", ""]
        lines += [f"{number}. {sentence}" for number, sentence in enumerate(_NEXT, 1)]
        return lines


_HEAD = f"{'collection':24} {'records':>8}  what became of it"
_SENTENCES = {
    "restored": "The database is as it was; every record that came back was compared.",
    "unchanged": "The database is as it was already; nothing to do.",
    "dry-run": "[DRY-RUN] Nothing was changed.",
}
_NEXT = (
    "If applications were pointed to the migrated data, point them back (playbooks/rollback.yml does it).",
    "Find out why: the validation report names the records; the archive above holds what was imported.",
    "Correct the profile or the source, and migrate again; it begins anew.",
    "Validate, and cut over only after PASSED.",
)


def _safe(text: str) -> str:
    """Text that ends no cell."""
    return text.replace("|", "\\|").replace("\n", " ").replace("`", "\\`")
