"""What a search answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Match:
    """A record that was found, as whoever searched knows it.

    `id` is the record's own in the shared collection named; `collection` is None for the tenant's own records, whose
    `id` is that of memory_logs. `metadata` is without what the service wrote beside the caller's.
    """

    id: str
    collection: str | None
    content: str | None
    metadata: Mapping[str, Any]
    metric: str
    distance: float
    score: float
    created_at: datetime | None = None
    document_id: UUID | None = None
    source: str | None = None
    passage: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Matches, nearest first.

    `degraded`: from PostgreSQL, because Chroma could not be asked; `partial`: PostgreSQL has not all that was asked.
    """

    matches: Sequence[Match]
    degraded: bool = False
    partial: bool = False
