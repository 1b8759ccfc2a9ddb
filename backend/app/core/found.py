"""What a search answers."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.chroma.hits import Hit


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, nearest first. `degraded`: from PostgreSQL, because Chroma could not be asked."""

    hits: list[Hit]
    degraded: bool = False
