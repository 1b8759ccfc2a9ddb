"""A caller's `where` filter, read once: what it says, or why it is refused before anything is sent anywhere.

The grammar is Chroma's: `{field: value}`, `{field: {operator: value}}`, `{"$and": [filter, …]}`, `{"$or": […]}`.
Where chromadb's client and server disagree about a form, it is refused here, so that the same filters pass whoever
answers: Chroma, or PostgreSQL while Chroma is down (app.core.memory.conditions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from chromadb.api.types import Where

from app.core.errors import FilterRefused

MAX_DEPTH = 8
# Chroma's time grows with the square of these (100: 0.02 s, 900: 1.3 s); SQLite takes no 1000.
MAX_COMPARISONS = 100
MAX_VALUES = 1000
MAX_TEXT = 8192

JUNCTIONS = ("$and", "$or")
EQUALITY = ("$eq", "$ne")
ORDER = ("$gt", "$gte", "$lt", "$lte")
MEMBERSHIP = ("$in", "$nin")
CONTAINMENT = ("$contains", "$not_contains")
OPERATORS = (*EQUALITY, *ORDER, *MEMBERSHIP, *CONTAINMENT)

# Names that no record's metadata can have: Chroma keeps them for itself, the record's document among them.
_RESERVED = ("$", "#", "chroma:")
_INT64 = range(-(2**63), 2**63)

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field, one of OPERATORS, and what it is compared with: with $in and $nin values of one type."""

    key: str
    operator: str
    value: Scalar | Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class Junction:
    """Two or more filters: `every` one of them has to hold, or else any."""

    every: bool
    parts: Sequence[Filter]


Filter = Comparison | Junction


@dataclass(frozen=True, slots=True)
class CheckedWhere:
    """A filter that was found good: as Chroma's client takes it, and what it says."""

    conditions: Where
    meaning: Filter


def checked_where(where: Mapping[str, Any] | None) -> CheckedWhere | None:
    """The filter, or None for none; FilterRefused with the reason.

    What JSON allows and Chroma's wire or SQLite does not is refused as well: deep nesting, lone surrogates, NaN,
    integers beyond 64 bits.
    """
    if not where:
        return None
    return CheckedWhere(cast(Where, dict(where)), _Reader().filter(where, MAX_DEPTH))


class _Reader:
    def __init__(self) -> None:
        self._comparisons = 0
        self._values = 0

    def filter(self, where: Any, depth: int) -> Filter:
        if depth == 0:
            raise FilterRefused(f"The filter is nested more than {MAX_DEPTH} deep.")
        if not isinstance(where, Mapping) or len(where) != 1:
            raise FilterRefused(
                "A filter, and each one within $and and $or, is an object with one entry; join several by $and."
            )
        ((key, value),) = where.items()
        if key in JUNCTIONS:
            if not isinstance(value, list) or len(value) < 2:
                raise FilterRefused(f"The filter's {key} needs a list of two filters or more.")
            return Junction(key == "$and", [self.filter(part, depth - 1) for part in value])
        return self._comparison(self._field(key), value)

    def _field(self, key: str) -> str:
        _check_text(key)
        if not key:
            raise FilterRefused("The filter has an empty key.")
        if key.startswith(_RESERVED):
            raise FilterRefused(f"The filter's {key[:80]} is neither a field of metadata nor $and nor $or.")
        return key

    def _comparison(self, key: str, value: Any) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise FilterRefused(f"The filter compares more than {MAX_COMPARISONS} times; use $in for many values.")
        if not isinstance(value, Mapping):
            return Comparison(key, "$eq", self._scalar(value))
        if len(value) != 1:
            raise FilterRefused("A field of the filter is compared with one operator at a time; join several by $and.")
        ((operator, operand),) = value.items()
        if operator not in OPERATORS:
            raise FilterRefused(f"The filter's operators are {', '.join(OPERATORS)}.")
        if operator in MEMBERSHIP:
            return Comparison(key, operator, self._list(operator, operand))
        scalar = self._scalar(operand)
        if operator in ORDER and isinstance(scalar, (bool, str)):
            raise FilterRefused(f"The filter's {operator} needs a number.")
        return Comparison(key, operator, scalar)

    def _list(self, operator: str, values: Any) -> list[Scalar]:
        if not isinstance(values, list) or not values:
            raise FilterRefused(f"The filter's {operator} needs a list that is not empty.")
        scalars = [self._scalar(value) for value in values]
        if len({type(scalar) for scalar in scalars}) > 1:
            raise FilterRefused(f"The values of the filter's {operator} are of different types.")
        return scalars

    def _scalar(self, value: Any) -> Scalar:
        self._values += 1
        if self._values > MAX_VALUES:
            raise FilterRefused(f"The filter holds more than {MAX_VALUES} values.")
        if not isinstance(value, (bool, int, float, str)):
            raise FilterRefused("The filter compares with something that is no text, number, true or false.")
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise FilterRefused("The filter holds a number that is not finite.")
        elif isinstance(value, int) and value not in _INT64:
            raise FilterRefused("The filter holds an integer beyond 64 bits.")
        return value


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise FilterRefused(f"The filter holds a text of more than {MAX_TEXT} characters.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterRefused("The filter holds a lone surrogate, which is not a character.") from None
