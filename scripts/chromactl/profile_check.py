"""What a profile would do to a database, rule by rule, without writing anything. Embeddings are not even read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chromactl.errors import PreconditionError, UsageError
from chromactl.landing import misfits
from chromactl.reject import Reject
from chromactl.schema.profile import Profile
from chromactl.schema.transform import Transform
from chromactl.stores.base import Batch, Collection, Source
from chromactl.stores.names import is_work_collection

RECORDS_AT_ONCE = 1000


@dataclass(slots=True)
class FieldReport:
    """For how many records a field's rule did what.

    `taken` counts by the key or place that the value came from, `converted` by the two types, `rejected` by reason;
    `examples` has the first record's id of each reason. `absent` are records that do not get the field.
    """

    taken: Counter[str] = field(default_factory=Counter)
    default: int = 0
    constant: int = 0
    translated: int = 0
    converted: Counter[str] = field(default_factory=Counter)
    absent: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The counts as the report has them."""
        return {
            "from": dict(self.taken),
            "default": self.default,
            "constant": self.constant,
            "translated": self.translated,
            "converted": dict(self.converted),
            "absent": self.absent,
            "rejected": dict(self.rejected),
            "examples": dict(self.examples),
        }

    def words(self) -> str:
        """The counts as a person reads them."""
        said = [f"{count:,} from {origin}" for origin, count in self.taken.most_common()]
        alone = {"by constant": self.constant, "by default": self.default, "left out": self.absent}
        said += [f"{count:,} {what}" for what, count in alone.items() if count]
        also = [f"{self.translated:,} translated"] if self.translated else []
        also += [f"{count:,} converted ({types})" for types, count in self.converted.most_common()]
        also += [
            f"{count:,} rejected: {reason} (first: {self.examples[reason]})"
            for reason, count in self.rejected.most_common()
        ]
        return "; ".join([", ".join(said), *also] if said else also)


@dataclass(slots=True)
class TargetReport:
    """What one target collection would get: its records, what each rule did, and how often which key passed through."""

    records: int = 0
    fields: dict[str, FieldReport] = field(default_factory=dict)
    untouched: Counter[str] = field(default_factory=Counter)

    def of(self, name: str) -> FieldReport:
        """The report of a field."""
        return self.fields.setdefault(name, FieldReport())


@dataclass(slots=True)
class SourceReport:
    """Where the records of one source collection would land.

    `nowhere` are those that no target takes, `refused` those that a target takes, but not as they are.
    """

    records: int = 0
    targets: Counter[str] = field(default_factory=Counter)
    nowhere: int = 0

    @property
    def refused(self) -> int:
        """Records that one of the rules, or of the limits of a server, refuses."""
        return self.records - self.nowhere - self.targets.total()


@dataclass(slots=True)
class CheckReport:
    """The result of `chromactl profile check`; a Trace of the transform, too.

    `rejected` counts records, `reasons` what is wrong with them (more than one thing may be); `skipped` are
    collections that the profile does not name.
    """

    url: str
    profile: str
    max_reject_rate: float
    sources: dict[str, SourceReport] = field(default_factory=dict)
    targets: dict[str, TargetReport] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        """How many records were read."""
        return sum(source.records for source in self.sources.values())

    @property
    def reject_rate(self) -> float:
        """The share of records that would be rejected, 0 to 1."""
        return self.rejected / self.records if self.records else 0.0

    @property
    def advice(self) -> str:
        """PROCEED, or INVESTIGATE when a migration would end because of too many rejects."""
        return "PROCEED" if self.reject_rate <= self.max_reject_rate else "INVESTIGATE"

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "command": "profile check",
            "changed": False,
            "url": self.url,
            "profile": self.profile,
            "records": self.records,
            "sources": {
                name: {
                    "records": source.records,
                    "targets": dict(source.targets),
                    "nowhere": source.nowhere,
                    "refused": source.refused,
                }
                for name, source in self.sources.items()
            },
            "targets": {
                name: {
                    "records": target.records,
                    "fields": {key: one.as_json() for key, one in target.fields.items()},
                    "untouched": dict(target.untouched),
                }
                for name, target in self.targets.items()
            },
            "skipped": self.skipped,
            "rejects": {"records": self.rejected, "rate": self.reject_rate, "by_reason": dict(self.reasons)},
            "advice": self.advice,
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        for name, source in self.sources.items():
            ways = [f"{count:,} to {target}" for target, count in source.targets.items()]
            ways += [f"{source.nowhere:,} to no collection"] if source.nowhere else []
            ways += [f"{source.refused:,} refused"] if source.refused else []
            yield f"{name}: {source.records:,} records{', ' if ways else ''}{', '.join(ways)}"
        for name, target in self.targets.items():
            yield f"{name} would hold {target.records:,} records:"
            width = max((len(key) for key in target.fields), default=0)
            yield from (f"  {key:{width}}  {one.words()}" for key, one in target.fields.items())
            if target.untouched:
                kept = ", ".join(f"{key} ({count:,})" for key, count in target.untouched.most_common())
                yield f"  as they are: {kept}"
        if self.skipped:
            yield f"not named by the profile, left alone: {', '.join(self.skipped)}"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common())
        yield f"{self.rejected:,} of {self.records:,} records would be rejected{': ' if reasons else ''}{reasons}"
        yield f"Recommendation: {self.advice}"

    # What the transform tells

    def rule(self, target: str, name: str, what: str, detail: str = "") -> None:
        """Count what a rule did."""
        report = self.targets[target].of(name)
        if what == "from":
            report.taken[detail] += 1
        elif what == "converted":
            report.converted[detail] += 1
        elif what == "translated":
            report.translated += 1
        elif what == "constant":
            report.constant += 1
        elif what == "default":
            report.default += 1
        else:
            report.absent += 1

    def passed(self, target: str, keys: Iterable[str]) -> None:
        """Count keys that no rule touched."""
        self.targets[target].untouched.update(iter(keys))  # of a mapping, Counter would add up the values

    def rejected_by(self, target: str, reject: Reject) -> None:
        """Count what a rule, or the target's own limits, refused."""
        report = self.targets[target].of(reject.field)
        report.rejected[reject.reason] += 1
        report.examples.setdefault(reject.reason, reject.id)


def check_profile(
    profile: Profile, store: Source, *, collections: Sequence[str] = (), max_reject_rate: float = 0.05
) -> CheckReport:
    """Put every record of the database through the profile, and count.

    Raises:
        UsageError: one of `collections` is not there, or the profile does not name it.
        PreconditionError: the database holds nothing that the profile names.
    """
    there = {entry.name: entry for entry in store.collections() if not is_work_collection(entry.name)}
    for name in collections:
        if name not in there:
            raise UsageError(f"--collection {name}: not in {store.url}")
        if not profile.names(name):
            raise UsageError(f"--collection {name}: the profile {profile.name} does not name it")
    wanted = [entry for name, entry in sorted(there.items()) if profile.names(name) and name in (collections or there)]
    if not wanted:
        raise PreconditionError(
            f"{store.url}: holds none of the collections that the profile {profile.name} names; "
            "check the address, --database and the profile"
        )
    names = {entry.name for entry in wanted}
    report = CheckReport(store.url, profile.name, max_reject_rate, skipped=sorted(there.keys() - names))
    taken: dict[str, set[str]] = {}
    for entry in wanted:
        for target in profile.targets(entry.name):
            report.targets.setdefault(target, TargetReport())
            taken.setdefault(target, set())
        _check(profile, store, entry, report, taken)
    return report


def _check(
    profile: Profile, store: Source, collection: Collection, report: CheckReport, taken: dict[str, set[str]]
) -> None:
    source = report.sources[collection.name] = SourceReport()
    transform = Transform(profile, collection.name, report)
    ids = store.ids(collection)
    for start in range(0, len(ids), RECORDS_AT_ONCE):
        batch = store.read_text(collection, ids[start : start + RECORDS_AT_ONCE])
        source.records += len(batch)
        routed, refused = transform.apply(batch)
        report.reasons.update(reject.reason for reject in refused)
        source.nowhere += sum(reject.reason == "no_collection" for reject in refused)
        landed = 0
        for target, part in routed.items():
            unfit = [*misfits(part, None), *_twice(part, taken[target])]
            for reject in unfit:
                report.rejected_by(target, reject)
            report.reasons.update(reject.reason for reject in unfit)
            fit = set(part.ids) - {reject.id for reject in unfit}
            taken[target] |= fit
            source.targets[target] += len(fit)
            report.targets[target].records += len(fit)
            landed += len(fit)
        report.rejected += len(batch) - landed


def _twice(batch: Batch, taken: set[str]) -> list[Reject]:
    """The records whose id another source has in the same target already."""
    return [Reject(record, "id", "duplicate_id", repr(record)) for record in batch.ids if record in taken]
