"""Which record lands in which collection: the first, in the order of the profile, whose conditions all hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from chromactl.reject import Reject
from chromactl.schema.profile import Profile
from chromactl.schema.rules import Condition
from chromactl.stores.base import Batch, Metadata

Takes = Callable[[Metadata], bool]

_SCALARS = (str, int, float, bool)


class Router:
    """Parts the records of one source collection among the target collections."""

    def __init__(self, profile: Profile, source: str) -> None:
        self._targets = profile.targets(source)
        rules = profile.collections or {}
        self._conditions = [(rules[target].where if target in rules else None) or () for target in self._targets]
        self._takes = [[_test(condition) for condition in conditions] for conditions in self._conditions]

    def part(self, batch: Batch) -> tuple[dict[str, Batch], list[Reject]]:
        """The records for each target that takes any, and those that none takes. All for one is the batch itself."""
        if self._takes and not self._takes[0]:
            return ({self._targets[0]: batch} if len(batch) else {}), []
        rows: list[list[int]] = [[] for _ in self._targets]
        rejects: list[Reject] = []
        for row, metadata in enumerate(batch.metadatas):
            number = self._first(metadata or {})
            if number is None:
                rejects.append(self._left_over(batch.ids[row], metadata or {}))
            else:
                rows[number].append(row)
        parts = {
            target: batch if len(own) == len(batch) else batch.take(own)
            for target, own in zip(self._targets, rows, strict=True)
            if own
        }
        return parts, rejects

    def _first(self, metadata: Metadata) -> int | None:
        for number, takes in enumerate(self._takes):
            for test in takes:
                if not test(metadata):
                    break
            else:
                return number
        return None

    def _left_over(self, record: str, metadata: Metadata) -> Reject:
        fields = dict.fromkeys(condition.field for conditions in self._conditions for condition in conditions)
        values = ", ".join(f"{name}={metadata.get(name)!r}" for name in fields)
        return Reject(record, "collection", "no_collection", values[:200])


def _test(condition: Condition) -> Takes:
    field = condition.field
    if condition.matches is not None:
        found = re.compile(condition.matches).search
        return lambda metadata: any(isinstance(member, str) and found(member) for member in _members(metadata, field))
    # With the type, because to Python True is 1 and 1 is 1.0.
    wanted = {(type(value), value) for value in condition.among or ()}
    return lambda metadata: any(
        isinstance(member, _SCALARS) and (type(member), member) in wanted for member in _members(metadata, field)
    )


def _members(metadata: Metadata, field: str) -> Iterable[object]:
    value = metadata.get(field)
    return value if isinstance(value, list) else (value,)
