"""What every check is: it watches the records go by, and says in the end what that comes to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from chromactl.validate.fields import FieldDifference, Matter
from chromactl.validate.findings import CheckResult, Findings, Offender, Status, Write
from chromactl.validate.part import Extra, Part, Refusals, Whole


class Check(ABC):
    """One test. Parts and extras come one at a time; `finish` comes after the last of them, `result` at the end."""

    number: ClassVar[int]
    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, write: Write) -> None:
        self.findings = Findings(self.number, write)

    def observe(self, part: Part) -> None:  # noqa: B027 (a check that has nothing to look at here does nothing)
        """Look at some records."""

    def observe_extra(self, extra: Extra) -> None:  # noqa: B027 (a check that has nothing to look at here does nothing)
        """Look at some records that should not be there."""

    def observe_refusals(self, refusals: Refusals) -> None:  # noqa: B027 (a check that has nothing to look at here does nothing)
        """Look at what cannot be on the new side."""

    def finish(self, whole: Whole) -> None:  # noqa: B027 (a check that has nothing to look at here does nothing)
        """Look at what only the whole shows."""

    @abstractmethod
    def result(self) -> CheckResult:
        """What it comes to."""

    def _result(
        self,
        status: Status,
        summary: str,
        numbers: dict[str, Any],
        *,
        hint: str = "",
        notes: Iterable[str] = (),
    ) -> CheckResult:
        return CheckResult(
            self.number, self.name, self.title, status, summary, numbers, self.findings, hint, list(notes)
        )


def offenders(collection: str, fields: Iterable[FieldDifference], matter: Matter) -> list[Offender]:
    """Those differences that are of this matter, as offenders."""
    return [
        Offender(collection, one.id, one.what, one.field, one.expected, one.actual)
        for one in fields
        if one.matter is matter
    ]


def plural(count: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
