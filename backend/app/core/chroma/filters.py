"""A caller's `where` filter, checked before it is sent anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chromadb.api.types import Where, validate_where

from app.core.errors import FilterRefused

MAX_DEPTH = 8
MAX_VALUES = 1000
MAX_TEXT = 8192

_ORDER = ("$gt", "$gte", "$lt", "$lte")
_INT64 = range(-(2**63), 2**63)


def checked_where(where: Mapping[str, Any] | None) -> Where | None:
    """The filter as Chroma's client takes it; None for none. Raises FilterRefused with the reason.

    What JSON allows and Chroma's wire or SQLite does not is refused here: deep nesting, lone surrogates,
    NaN, integers beyond 64 bits.
    """
    if not where:
        return None
    _check(where, MAX_DEPTH, [MAX_VALUES])
    conditions: Where = dict(where)
    try:
        validate_where(conditions)
    except (ValueError, TypeError, AttributeError) as error:
        raise FilterRefused(f"The filter is not one that Chroma accepts: {str(error)[:300]}") from None
    return conditions


def _check(value: Any, depth: int, left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0:
        raise FilterRefused(f"The filter holds more than {MAX_VALUES} values.")
    if depth == 0:
        raise FilterRefused(f"The filter is nested more than {MAX_DEPTH} deep.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_text(key)
            if not key:
                raise FilterRefused("The filter has an empty key.")
            if key in _ORDER and isinstance(inner, bool):  # Chroma 0.6 answers this with a 500
                raise FilterRefused(f"The filter's {key} needs a number.")
            _check(inner, depth - 1, left)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth - 1, left)
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int) and value not in _INT64:
        raise FilterRefused("The filter holds an integer beyond 64 bits.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise FilterRefused("The filter holds a number that is not finite.")


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise FilterRefused(f"The filter holds a text of more than {MAX_TEXT} characters.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterRefused("The filter holds a lone surrogate, which is not a character.") from None
