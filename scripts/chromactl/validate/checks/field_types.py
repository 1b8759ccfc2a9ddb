"""Test 7, field types: int, float, bool, str and list as they should be, within allowed values and ranges."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from chromactl.schema.profile import Profile
from chromactl.validate.checks.base import Check, offenders, plural
from chromactl.validate.fields import Matter, breach
from chromactl.validate.findings import CheckResult, Offender, Status, Write
from chromactl.validate.part import Extra, Part


class FieldTypeCheck(Check):
    """The types of all metadata values, and what the profile's rules allow."""

    number: ClassVar[int] = 7
    name: ClassVar[str] = "field_type_validation"
    title: ClassVar[str] = "Field Type Validation"

    def __init__(self, write: Write, profile: Profile) -> None:
        super().__init__(write)
        self._profile = profile
        self._values = 0
        self._fields: Counter[str] = Counter()

    def observe(self, part: Part) -> None:
        """Take the differences of type and range."""
        self._values += sum(len(metadata or ()) for metadata in part.actual.metadatas)
        self._take(offenders(part.collection, part.fields, Matter.TYPES))

    def observe_extra(self, extra: Extra) -> None:
        """Hold what is extra against the rules: there is nothing else to compare it with."""
        rules = self._profile.rules(extra.target.rule)
        found = []
        for record, metadata in zip(extra.actual.ids, extra.actual.metadatas, strict=True):
            self._values += len(metadata or ())
            for name, value in (metadata or {}).items():
                broken = breach(value, rules.get(name))
                if broken is not None and broken[0] is Matter.TYPES:
                    found.append(Offender(extra.target.name, record, broken[1], name, "", repr(value)[:80]))
        self._take(found)

    def _take(self, found: list[Offender]) -> None:
        self._fields.update(one.field for one in found)
        self.findings.add(found)

    def result(self) -> CheckResult:
        """Failed for any value."""
        numbers = {"values": self._values, "by_field": dict(self._fields)}
        if self._fields:
            wrong = ", ".join(f"{name} ({count:,})" for name, count in self._fields.most_common(10))
            hint = "Filters on these fields miss the records. Migrate again, and look for what else writes there."
            return self._result(Status.FAILED, f"wrong type, or not allowed: {wrong}", numbers, hint=hint)
        return self._result(Status.PASSED, f"all {plural(self._values, 'value')} of the right type", numbers)
