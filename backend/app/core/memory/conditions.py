"""A `where` filter as a condition on memory_logs that holds for the same records as Chroma 1.5.9's would.

Chroma's meaning, measured (tests/integration/backend/test_where_in_both.py holds the two together):

- A field that a record does not have equals nothing, so $ne, $nin and $not_contains hold for the record.
- Text, true and false equal only themselves. 1 and 1.0 are equal. A float that is compared with an integer of a record
  is cut off first: 1.5 "equals" 1. An integer that is compared with a float of a record is rounded to a double.
- $gt, $gte, $lt, $lte hold for numbers only.
- $contains looks into lists only, and there 1 and 1.0 differ.

An integer is what jsonb keeps without a point, as record.to_jsonb writes it. Everything of the caller is a bound
parameter, and nothing is cast to a type that might not hold it: numbers are compared as numeric.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Numeric,
    Text,
    and_,
    any_,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.core.chroma.filters import Comparison, Filter, Junction
from app.core.database.schema import memory_logs
from app.core.memory.record import CREATED

_METADATA = memory_logs.c.raw_data[literal("metadata", Text)]
_CREATED = func.to_jsonb(func.trunc(func.extract("epoch", memory_logs.c.created_at)))
_NEGATED = {"$ne": "$eq", "$nin": "$in", "$not_contains": "$contains"}
_ORDER: dict[str, Callable[[Any, Any], Any]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}

Condition = ColumnElement[bool]
Field = ColumnElement[Any]


def condition(meaning: Filter) -> Condition:
    """The condition, never null."""
    if isinstance(meaning, Junction):
        parts = [condition(part) for part in meaning.parts]
        return and_(*parts) if meaning.every else or_(*parts)
    if meaning.operator in _NEGATED:
        return not_(condition(Comparison(meaning.key, _NEGATED[meaning.operator], meaning.value)))
    return func.coalesce(_holds(meaning), false())


def _holds(comparison: Comparison) -> Condition:
    if "\x00" in comparison.key:
        return false()  # jsonb holds no NUL, so no record has the field
    field = _CREATED if comparison.key == CREATED else _METADATA[literal(comparison.key, Text)]
    value: Any = comparison.value
    if comparison.operator in _ORDER:
        compare = _ORDER[comparison.operator]
        whole, broken = _operands(value)
        return _of_number(field, lambda number: compare(number, whole), lambda number: compare(number, broken))
    if comparison.operator == "$contains":
        return _contains(field, value)
    return _is_one_of(field, [value] if comparison.operator == "$eq" else value)


def _is_one_of(field: Field, values: Sequence[Any]) -> Condition:
    if isinstance(values[0], (bool, str)):
        return field == any_(cast(literal(_as_json(values), ARRAY(Text)), ARRAY(JSONB)))
    whole, broken = (literal(list(operands), ARRAY(Numeric)) for operands in zip(*map(_operands, values), strict=True))
    return _of_number(field, lambda number: number == any_(whole), lambda number: number == any_(broken))


def _contains(field: Field, value: Any) -> Condition:
    listed = case((func.jsonb_typeof(field) == "array", field), else_=cast(literal("[]", Text), JSONB))
    elements = func.jsonb_array_elements(listed).table_valued(column("value", JSONB))
    element = elements.c.value
    if isinstance(value, (bool, str)):
        same = _is_one_of(element, [value])
    elif isinstance(value, int):
        same = _of_number(element, lambda number: number == _exact(value), lambda _: false())
    else:
        same = _of_number(element, lambda _: false(), lambda number: number == _exact(value))
    return exists(select(elements.c.value).where(same))


def _of_number(
    field: Field, of_whole: Callable[[Field], Condition], of_broken: Callable[[Field], Condition]
) -> Condition:
    """One condition for integers and one for floats; what is no number is never cast to one."""
    number = cast(field, Numeric)
    either = case((func.scale(number) == 0, of_whole(number)), else_=of_broken(number))
    return case((func.jsonb_typeof(field) == "number", either), else_=false())


def _operands(value: int | float) -> tuple[Decimal, Decimal]:
    """What integers and what floats of records are compared with."""
    if isinstance(value, int):
        return Decimal(value), _exact(float(value))
    return Decimal(min(max(int(value), -(2**63)), 2**63 - 1)), _exact(value)


def _exact(value: int | float) -> Decimal:
    # the shortest text of a double, which is also how jsonb has it: equal texts, equal doubles, and the same order
    return Decimal(repr(value))


def _as_json(values: Sequence[str | bool]) -> list[str]:
    return [json.dumps(value) for value in values if not (isinstance(value, str) and "\x00" in value)]
