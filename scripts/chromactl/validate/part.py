"""What the checks are shown: some records as they should be, and as the new side has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from chromactl.migrate.plan import Plan, PlannedTarget
from chromactl.reject import Reject
from chromactl.stores.base import Batch, Collection, Unreadable
from chromactl.validate.fields import FieldDifference, Rules, differences, rounded

UNREADABLE = "unreadable_record"
"""Why a record is not compared that the old side lists and cannot give back."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some records of one target collection.

    `wanted` are all that should be there; `expected` and `actual` are those that are, as they should be and as they
    are, row by row. `collection` is where they were found, which is not the target's name if they are misplaced.
    `whole` is False where only texts were read, because the index gives back no embeddings.
    """

    target: PlannedTarget
    collection: str
    wanted: Batch
    expected: Batch
    actual: Batch
    unreadable: list[Unreadable]
    missing: list[str]
    fields: list[FieldDifference]
    rounded: int
    whole: bool = True


def compare(
    target: PlannedTarget,
    wanted: Batch,
    found: Batch,
    unreadable: list[Unreadable],
    rules: Rules,
    *,
    collection: str | None = None,
    whole: bool = True,
) -> Part:
    """Bring what the new side gave for the wanted ids, in whatever order, into their order, and compare texts."""
    row_of = {record: row for row, record in enumerate(found.ids)}
    lost = {record for entry in unreadable for record in entry.ids}
    rows = [row for row, record in enumerate(wanted.ids) if record in row_of]
    expected = wanted if len(rows) == len(wanted) else wanted.take(rows)
    actual = found if found.ids == expected.ids else found.take([row_of[record] for record in expected.ids])
    missing = [record for record in wanted.ids if record not in row_of and record not in lost]
    return Part(
        target,
        collection or target.name,
        wanted,
        expected,
        actual,
        unreadable,
        missing,
        differences(expected, actual, rules),
        rounded(expected, actual),
        whole,
    )


@dataclass(frozen=True, slots=True)
class Extra:
    """Records of the new side that should not be there.

    `whole` is False where only texts were read, because the index gives back no embeddings, of none or of those that
    are `unreadable`.
    """

    target: PlannedTarget
    actual: Batch
    unreadable: list[Unreadable] = field(default_factory=list)
    whole: bool = True


@dataclass(slots=True)
class TargetState:
    """A target collection as the new side has it.

    `count` is what the store says, `ids` what it lists (`doubled` of them twice). `proven` is the metric that its
    index answers in, None where there is no proof; `index_error` what the index said instead of answering.
    """

    target: PlannedTarget
    collection: Collection | None
    count: int = 0
    ids: int = 0
    doubled: list[str] = field(default_factory=list)
    proven: str | None = None
    index_error: str = ""
    expected: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A record that is in another collection than it should be."""

    id: str
    should: str
    found: str


@dataclass(slots=True)
class Whole:
    """What only the whole shows.

    `misplaced` records count neither as missing nor as extra. `copies` are ids that are in their place, and once more
    in another collection. `unverified` records are on the new side, and the old one cannot give them back any more.
    """

    plan: Plan
    targets: dict[str, TargetState]
    misplaced: list[Misplaced] = field(default_factory=list)
    copies: list[Misplaced] = field(default_factory=list)
    rejected: int = 0
    unverified: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    not_named: list[str] = field(default_factory=list)

    @property
    def expected(self) -> int:
        """How many records the new side should hold."""
        return sum(state.expected for state in self.targets.values())

    @property
    def missing(self) -> int:
        """How many of them it does not hold anywhere."""
        return sum(len(state.missing) for state in self.targets.values())

    @property
    def lost(self) -> float:
        """The share of the old side's records that the new one does not hold, 0 to 1."""
        records = self.plan.records
        return (self.missing + self.rejected) / records if records else 0.0


@dataclass(frozen=True, slots=True)
class Refusals:
    """What of a piece cannot be on the new side: refused by the profile, by Chroma's rules, or lost on the old one."""

    source: str
    rejects: list[Reject]
