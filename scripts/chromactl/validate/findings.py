"""What a check finds: the records that offend it, and what it comes to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from chromactl import files

SHOWN = 20
"""Offenders that a report names; the file beside it has all."""


class Status(StrEnum):
    """What a check comes to."""

    PASSED = "PASSED"
    WARNING = "WARNING"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Offender:
    """One thing that is not as it should be in one record; an empty id means the collection as a whole."""

    collection: str
    id: str
    what: str
    field: str = ""
    expected: str = ""
    actual: str = ""


Write = Callable[[int, Offender], None]
"""Takes an offender of the test of this number."""


class OffenderFile:
    """All offenders, a JSON object a line; there as a whole once it is closed, and not at all before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> Self:
        files.make_folder(self.path.parent)
        with files.explained(self.path):
            self._file = self._partial.open("wb")
            self._partial.chmod(0o640)
        return self

    def write(self, test: int, offender: Offender) -> None:
        """Add an offender of the test of this number."""
        with files.explained(self.path):
            self._file.write(orjson.dumps({"test": test, **asdict(offender)}) + b"\n")
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with files.explained(self.path):
                    self._file.flush()
                    os.fsync(self._file.fileno())
                    self._partial.replace(self.path)
        finally:
            self._file.close()
            self._partial.unlink(missing_ok=True)


@dataclass(slots=True)
class Findings:
    """The offenders of one test: how many, of how many records, and the first of them."""

    test: int
    write: Write
    total: int = 0
    records: int = 0
    first: list[Offender] = field(default_factory=list)

    def add(self, offenders: Iterable[Offender]) -> None:
        """Take in the offenders of some records; no record's are given in two calls."""
        seen: set[tuple[str, str]] = set()
        for offender in offenders:
            self.write(self.test, offender)
            self.total += 1
            seen.add((offender.collection, offender.id))
            if len(self.first) < SHOWN:
                self.first.append(offender)
        self.records += len(seen)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one test came to: a sentence, numbers, the first offenders, what to do about it, and notes."""

    number: int
    name: str
    title: str
    status: Status
    summary: str
    numbers: dict[str, Any]
    findings: Findings
    hint: str = ""
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "number": self.number,
            "name": self.name,
            "title": self.title,
            "status": self.status.value,
            "summary": self.summary,
            "hint": self.hint,
            "numbers": self.numbers,
            "notes": self.notes,
            "offenders": {
                "total": self.findings.total,
                "records": self.findings.records,
                "first": [asdict(offender) for offender in self.findings.first],
            },
        }
