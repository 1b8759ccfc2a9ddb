"""Values of fields: brought into a type where that loses nothing, and held against what a rule allows."""

from __future__ import annotations

import contextlib
import re
from datetime import date
from typing import NamedTuple

from chromactl.stores.base import MetadataValue

_CITATION = re.compile(r"if://citation/[A-Za-z0-9-]+")
_CITATION_DATE = re.compile(r"-(\d{4})-(\d{2})-(\d{2})$")
_EXACT_FLOAT = 2**53


class Refused(Exception):
    """This value cannot become what the rule asks for."""


class Limits(NamedTuple):
    """What a value has to be: its type (str, int, float, bool or list), and what else a rule asks of it."""

    type: str
    allowed: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    format: str | None = None

    @property
    def only_type(self) -> bool:
        """Whether every value of the type will do."""
        return self[1:] == (None, None, None, None)


def fitting(value: MetadataValue, limits: Limits) -> MetadataValue:
    """The value in the wanted type and within the limits.

    Raises:
        Refused: it cannot be, without losing something.
    """
    typed = in_type(value, limits.type)
    check(typed, limits)
    return typed


def in_type(value: MetadataValue, wanted: str) -> MetadataValue:
    """The value in the wanted type, where that loses nothing.

    Raises:
        Refused: it would.
    """
    kind = type(value)
    if kind.__name__ == wanted:
        return value
    if isinstance(value, str) and wanted in ("int", "float"):
        return _number(value, wanted)
    if isinstance(value, str) and wanted == "bool" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind is int and isinstance(value, int) and wanted == "float" and abs(value) <= _EXACT_FLOAT:
        return float(value)
    if isinstance(value, float) and wanted == "int" and value.is_integer():
        return int(value)
    raise Refused(f"{kind.__name__}, not {wanted}")


def _number(text: str, wanted: str) -> int | float:
    with contextlib.suppress(ValueError):
        whole = int(text)
        if wanted == "int":
            return whole
        if abs(whole) > _EXACT_FLOAT:
            raise Refused("a float cannot hold it")
    with contextlib.suppress(ValueError):
        if wanted == "float":
            return float(text)
    raise Refused(f"str, not {wanted}")


def check(value: MetadataValue, limits: Limits) -> None:
    """Hold a value of the right type against everything else that is asked of it.

    Raises:
        Refused: it is not allowed, out of range, or of another format.
    """
    _, allowed, minimum, maximum, form = limits
    if allowed is not None and value not in allowed:
        raise Refused(f"not one of {', '.join(allowed)}")
    if isinstance(value, int | float):
        # Written so that NaN is refused too.
        if minimum is not None and not value >= minimum:
            raise Refused(f"below {minimum:g}")
        if maximum is not None and not value <= maximum:
            raise Refused(f"above {maximum:g}")
    if form == "citation" and not is_citation(str(value)):
        raise Refused("not a citation")


def is_citation(text: str) -> bool:
    """Whether the text is empty or `if://citation/<id>`, with a date that exists if it ends in one."""
    if not text:
        return True
    if not _CITATION.fullmatch(text):
        return False
    ending = _CITATION_DATE.search(text)
    if ending is None:
        return True
    try:
        date(*(int(part) for part in ending.groups()))
    except ValueError:
        return False
    return True
