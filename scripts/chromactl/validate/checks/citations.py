"""Test 8, citation references: empty, or `if://citation/<id>` with a date that exists if it ends in one."""

from __future__ import annotations

import re
from typing import ClassVar

from chromactl.schema.profile import Profile
from chromactl.stores.base import Batch
from chromactl.validate.checks.base import Check, offenders, plural
from chromactl.validate.fields import Matter, breach
from chromactl.validate.findings import CheckResult, Offender, Status, Write
from chromactl.validate.part import Extra, Part

_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class CitationCheck(Check):
    """All fields that the profile calls citations."""

    number: ClassVar[int] = 8
    name: ClassVar[str] = "citation_references"
    title: ClassVar[str] = "Citation References"

    def __init__(self, write: Write, profile: Profile) -> None:
        super().__init__(write)
        self._profile = profile
        self._fields: dict[str, list[str]] = {}
        self._given = self._dated = 0

    def observe(self, part: Part) -> None:
        """Take the differences that are of citations."""
        self._count(part.actual, self._citations(part.target.rule))
        self.findings.add(offenders(part.collection, part.fields, Matter.CITATIONS))

    def observe_extra(self, extra: Extra) -> None:
        """Hold what is extra against the format too."""
        names = self._citations(extra.target.rule)
        self._count(extra.actual, names)
        rules = self._profile.rules(extra.target.rule)
        self.findings.add(
            Offender(extra.target.name, record, "not a citation", name, "", repr(metadata[name])[:80])
            for record, metadata in zip(extra.actual.ids, extra.actual.metadatas, strict=True)
            for name in names
            if metadata and name in metadata
            if (broken := breach(metadata[name], rules[name])) is not None and broken[0] is Matter.CITATIONS
        )

    def _citations(self, target: str) -> list[str]:
        if target not in self._fields:
            rules = self._profile.rules(target)
            self._fields[target] = [name for name, rule in rules.items() if rule.format == "citation"]
        return self._fields[target]

    def _count(self, batch: Batch, names: list[str]) -> None:
        for metadata in batch.metadatas if names else ():
            for name in names:
                value = (metadata or {}).get(name)
                if value:
                    self._given += 1
                    self._dated += isinstance(value, str) and _DATED.search(value) is not None

    def result(self) -> CheckResult:
        """Failed for any that is none; skipped where the profile knows no citations."""
        numbers = {"citations": self._given, "dated": self._dated, "malformed": self.findings.total}
        if self.findings.total:
            hint = "Correct them where they come from, or migrate again if the old side has them right."
            return self._result(
                Status.FAILED, f"{plural(self.findings.total, 'citation')} malformed", numbers, hint=hint
            )
        if not any(self._fields.values()):
            summary = f"the profile {self._profile.name} has no field of the format citation"
            return self._result(Status.SKIPPED, summary, numbers)
        return self._result(
            Status.PASSED, f"all {plural(self._given, 'citation')} well-formed, their dates exist", numbers
        )
