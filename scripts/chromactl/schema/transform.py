"""From a legacy record to one of a profile's schema. Documents, uris and embeddings are never touched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from chromactl.reject import Reject
from chromactl.schema.profile import Profile
from chromactl.schema.routing import Router
from chromactl.schema.rules import Origin, Rule
from chromactl.schema.values import Refused, check, fitting, in_type
from chromactl.stores.base import Batch, Metadata, MetadataValue


class Trace(Protocol):
    """Is told what every rule does with every record: see chromactl.profile_check."""

    def rule(self, target: str, name: str, what: str, detail: str = "") -> None:
        """The rule of this field did something: from, constant, default, translated, converted or absent."""

    def passed(self, target: str, keys: Iterable[str]) -> None:
        """These keys of a record are kept as they are."""

    def rejected_by(self, target: str, reject: Reject) -> None:
        """A rule of this target refused a record."""


class Transform:
    """A profile's rules for the records of one source collection, made ready to be applied."""

    def __init__(self, profile: Profile, source: str, trace: Trace | None = None) -> None:
        self._router = Router(profile, source)
        self._landings = {target: _Landing(profile, source, target, trace) for target in profile.targets(source)}

    def apply(self, batch: Batch) -> tuple[dict[str, Batch], list[Reject]]:
        """The transformed records for each target collection that gets any, and what was wrong with the others.

        Records keep their order within a target. Rejects carry the ids of the source.
        """
        parts, rejects = self._router.part(batch)
        landed: dict[str, Batch] = {}
        for target, part in parts.items():
            transformed, refused = self._landings[target].apply(part)
            rejects += refused
            if len(transformed):
                landed[target] = transformed
        return landed, rejects


class _Landing:
    """How records of one source collection become those of one target collection."""

    def __init__(self, profile: Profile, source: str, target: str, trace: Trace | None) -> None:
        rules = profile.rules(target)
        self._target = target
        self._trace = trace
        self._keep = profile.keep_other_fields
        self._steps = [
            (name, _step(name, rule, source, partial(trace.rule, target, name) if trace else None))
            for name, rule in rules.items()
        ]
        self._id_parts = (profile.collections or {})[target].id_parts(source) if profile.collections else None

    def apply(self, batch: Batch) -> tuple[Batch, list[Reject]]:
        kept, metadatas = batch, batch.metadatas
        rejects: list[Reject] = []
        if self._steps or not self._keep or self._trace:
            rows, metadatas, rejects = self._transformed(batch)
            kept = batch if len(rows) == len(batch) else batch.take(rows)
        ids = kept.ids if self._id_parts is None else [record.join(self._id_parts) for record in kept.ids]
        if metadatas is batch.metadatas and ids is batch.ids:
            return batch, rejects
        return Batch(ids, kept.embeddings, kept.documents, kept.uris, metadatas), rejects

    def _transformed(self, batch: Batch) -> tuple[list[int], list[Metadata | None], list[Reject]]:
        rows: list[int] = []
        metadatas: list[Metadata | None] = []
        rejects: list[Reject] = []
        steps, keep, trace = self._steps, self._keep, self._trace
        columns = zip(batch.ids, batch.documents, batch.metadatas, strict=True)
        for row, (record, document, metadata) in enumerate(columns):
            given: Metadata = metadata or {}
            # A key that a value was taken from is renamed by that; every other key passes through.
            others = given.copy() if keep else {}
            values: Metadata = {}
            before = len(rejects)
            for name, step in steps:
                others.pop(name, None)
                try:
                    value = step(given, document, others)
                except _Rejected as why:
                    rejects.append(Reject(record, name, why.reason, why.value))
                    continue
                if value is not None:
                    values[name] = value
            if trace:
                trace.passed(self._target, others)
                for reject in rejects[before:]:
                    trace.rejected_by(self._target, reject)
            if len(rejects) == before:
                others.update(values)
                rows.append(row)
                metadatas.append(others or None)
        return rows, metadatas, rejects


class _Rejected(Exception):
    """A rule refuses a record."""

    def __init__(self, reason: str, value: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value


_Find = Callable[[str | None, Metadata], MetadataValue | None]
_Step = Callable[[Metadata, str | None, Metadata], MetadataValue | None]
_Tell = Callable[[str, str], None]


def _step(name: str, rule: Rule, source: str, tell: _Tell | None) -> _Step:
    """What finds the field's value in a record, and takes the key it was found under out of the record's others."""
    lookups, ending = _lookups(name, rule, source)
    limits = rule.limits
    wanted = limits.type
    unlimited = limits.only_type
    values = rule.values
    last = _last(name, rule, source, ending, tell)

    def step(given: Metadata, document: str | None, others: Metadata) -> MetadataValue | None:
        for key, find in lookups:
            value = given.get(key) if find is None else find(document, given)
            if value is None or (not value and value == []):
                continue
            if find is None:
                others.pop(key, None)
            if tell:
                tell("from", key)
            return settle(value)
        return last()

    def settle(value: MetadataValue) -> MetadataValue:
        if values and isinstance(value, str) and value in values:
            value = values[value]
            if tell:
                tell("translated", "")
        try:
            typed = value
            if type(value).__name__ != wanted:
                typed = in_type(value, wanted)
                if tell:
                    tell("converted", f"{type(value).__name__} to {wanted}")
            if not unlimited:
                check(typed, limits)
        except Refused:
            raise _Rejected(f"invalid_{name}", repr(value)[:200]) from None
        return typed

    return step


def _lookups(name: str, rule: Rule, source: str) -> tuple[list[tuple[str, _Find | None]], MetadataValue | None]:
    """Where a record may have the value, and the value that the collection's name gives if it has not.

    A lookup is a name for people and how to find the value; without the latter the name is the record's key.
    """
    if rule.constant is not None:
        return [], None
    lookups: list[tuple[str, _Find | None]] = []
    for origin in rule.origins or (Origin(field=name),):
        if origin.collection is not None:
            # The same for all records, so that no later origin has a say once there is one.
            found = _found(re.compile(origin.collection.pattern), source)
            if found is not None:
                return lookups, found
        else:
            lookups.append(_lookup(origin))
    return lookups, None


def _lookup(origin: Origin) -> tuple[str, _Find | None]:
    if origin.field is not None:
        return origin.field, None
    if origin.regex is not None:
        source, pattern = origin.regex.field, re.compile(origin.regex.pattern)
        return f"a pattern on {source}", lambda _, metadata: _found(pattern, metadata.get(source))
    return "words of the document", lambda document, _: None if document is None else len(document.split())


def _found(pattern: re.Pattern[str], value: MetadataValue | None) -> str | None:
    match = pattern.search(value) if isinstance(value, str) else None
    if match is None:
        return None
    return match.group(1) if pattern.groups else match.group(0)


def _last(
    name: str, rule: Rule, source: str, from_name: MetadataValue | None, tell: _Tell | None
) -> Callable[[], MetadataValue | None]:
    """What a field is when the record has nothing for it; worked out once, because it is the same for all."""
    what = "constant" if rule.constant is not None else "default"
    value: MetadataValue | None = rule.default_for(source) if rule.constant is None else rule.constant
    if from_name is not None:
        what, value = "from", rule.values.get(str(from_name), from_name)
    reason = f"missing_{name}" if rule.required and value is None else ""
    shown = ""
    try:
        fitted = None if value is None else fitting(value, rule.limits)
    except Refused:
        fitted, reason, shown = None, f"invalid_{name}", repr(value)[:200]

    def last() -> MetadataValue | None:
        if tell and value is not None:
            tell(what, "the collection's name" if what == "from" else "")
            if from_name is not None and value != from_name:
                tell("translated", "")
        elif tell and not reason:
            tell("absent", "")
        if reason:
            raise _Rejected(reason, shown)
        return fitted

    return last
