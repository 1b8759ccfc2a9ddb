"""A record: what was remembered (`raw_data`), what of it goes into the index, and how it comes back from there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.core.memory.tenant import Kind, Tenant

ID_PREFIX = "memory_log_"
# Written into the index beside the caller's own metadata, so that a search can filter by time (seconds since 1970).
CREATED = "created_at"
# Written into a passage's metadata beside its document's, so that a search can filter by them.
DOCUMENT_ID, SOURCE, PASSAGE = "document_id", "source", "passage"
OF_PASSAGES = (DOCUMENT_ID, SOURCE, PASSAGE)


@dataclass(frozen=True, slots=True)
class Record:
    """A row of memory_logs. `raw_data` holds `content` (text) and `metadata` (flat)."""

    id: int
    tenant: Tenant
    kind: Kind
    raw_data: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime
    document_id: UUID | None = None


def index_id(memory_id: int) -> str:
    """The record's id in Chroma."""
    return f"{ID_PREFIX}{memory_id}"


def memory_id(index_id: str) -> int:
    """The row that a record of Chroma stands for. Raises ValueError for an id that index_id did not make."""
    if not index_id.startswith(ID_PREFIX):
        raise ValueError(f"{index_id[:80]!r} is not the id of a memory")
    return int(index_id.removeprefix(ID_PREFIX))


def text_of(raw_data: Mapping[str, Any]) -> str:
    """What is embedded."""
    return str(raw_data["content"])


def document_of(raw_data: Mapping[str, Any]) -> str:
    """Chroma's document: the whole record as JSON."""
    return json.dumps(raw_data, ensure_ascii=False, separators=(",", ":"))


def metadata_of(raw_data: Mapping[str, Any], created_at: datetime) -> dict[str, Any]:
    """Chroma's metadata: the caller's, without what Chroma has no form for, and when it was written."""
    kept = {key: value for key, value in raw_data.get("metadata", {}).items() if value is not None and value != []}
    return {**kept, CREATED: seconds(created_at)}


def seconds(moment: datetime) -> int:
    """Whole seconds since 1970, as the index has a time."""
    return int(moment.timestamp())


def moment(seconds: float) -> datetime:
    """The time of so many seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def of_caller(raw_data: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """The metadata as the caller gave it, without what the service wrote beside it."""
    given = raw_data.get("metadata")
    if not isinstance(given, Mapping):
        return {}
    added = OF_PASSAGES if kind == "passage" else ()
    return {key: value for key, value in given.items() if key not in added}


def to_jsonb(raw_data: Mapping[str, Any]) -> str:
    """JSON that PostgreSQL gives back as it was: its jsonb keeps 1.0, but reads 1e16 as an integer.

    Floats are therefore written without exponent and with a point. Raises ValueError for NaN and infinities.
    """
    return _json(raw_data)


def _json(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(key)}:{_json(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, float):
        text = format(Decimal(json.dumps(value, allow_nan=False)), "f")
        return text if "." in text else f"{text}.0"
    return json.dumps(value)
