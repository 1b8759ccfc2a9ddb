"""How the texts and metadata of a record differ from what they should be, and which test that is a matter of.

Each difference belongs to one test only: a value of another type, or outside of what a rule allows, to field types;
what is no citation where one should be, to citations; everything else to metadata completeness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from chromactl.compare import agree, shown
from chromactl.schema.rules import Rule
from chromactl.schema.values import Refused, check, is_citation
from chromactl.stores.base import Batch, Metadata, MetadataValue

Rules = Mapping[str, Rule]


class Matter(Enum):
    """Which test a difference is a matter of."""

    METADATA = "metadata"
    TYPES = "types"
    CITATIONS = "citations"


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field of one record that is not as it should be."""

    id: str
    field: str
    matter: Matter
    what: str
    expected: str
    actual: str


def differences(expected: Batch, actual: Batch, rules: Rules) -> list[FieldDifference]:
    """How the rows of `actual` differ from those of `expected`; both have the same records in the same order."""
    found: list[FieldDifference] = []
    for row, record in enumerate(expected.ids):
        for name, wanted, got in (
            ("document", expected.documents[row], actual.documents[row]),
            ("uri", expected.uris[row], actual.uris[row]),
        ):
            if wanted != got:
                what = f"{name} {'is gone' if got is None else 'differs'}"
                found.append(FieldDifference(record, name, Matter.METADATA, what, shown(wanted), shown(got)))
        before, now = expected.metadatas[row] or {}, actual.metadatas[row] or {}
        if before.keys() != now.keys() or not all(_identical(value, now[key]) for key, value in before.items()):
            found += _in_metadata(record, before, now, rules)
    return found


def _identical(wanted: MetadataValue, got: MetadataValue) -> bool:
    return type(wanted) is type(got) and type(wanted) is not list and wanted == got


def _in_metadata(record: str, expected: Metadata, actual: Metadata, rules: Rules) -> Iterator[FieldDifference]:
    for key in dict.fromkeys((*expected, *actual)):
        wanted, got = expected.get(key), actual.get(key)
        if not agree(wanted, got):
            matter, what = _matter(wanted, got, rules.get(key))
            yield FieldDifference(record, key, matter, what, shown(wanted), shown(got))


def _matter(wanted: MetadataValue | None, got: MetadataValue | None, rule: Rule | None) -> tuple[Matter, str]:
    if got is None:
        return Matter.METADATA, "field is missing"
    if (broken := breach(got, rule)) is not None:
        return broken
    if wanted is None:
        return Matter.METADATA, "field should not be there"
    if (is_now := kind(got)) != (was := kind(wanted)):
        return Matter.TYPES, f"{is_now} instead of {was}"
    return Matter.METADATA, "value differs"


def breach(value: MetadataValue, rule: Rule | None) -> tuple[Matter, str] | None:
    """What about this value breaks the rule of its field, if anything does."""
    if rule is None:
        return None
    if type(value).__name__ != rule.type:
        return Matter.TYPES, f"{kind(value)} instead of {rule.type}"
    if rule.format == "citation" and not is_citation(str(value)):
        return Matter.CITATIONS, "not a citation"
    try:
        check(value, rule.limits)
    except Refused as refused:
        return Matter.TYPES, str(refused)
    return None


def kind(value: MetadataValue) -> str:
    """The name of a value's type; of a list with its members'."""
    if isinstance(value, list):
        return f"list of {type(value[0]).__name__}" if value else "empty list"
    return type(value).__name__


def rounded(expected: Batch, actual: Batch) -> int:
    """How many records have floats that agree only within the rounding of the server."""
    return sum(
        any(isinstance(value, float) and value != (now or {}).get(key, math.nan) for key, value in (was or {}).items())
        and all(agree(value, (now or {}).get(key)) for key, value in (was or {}).items())
        for was, now in zip(expected.metadatas, actual.metadatas, strict=True)
        if was != now
    )
