"""A record that cannot be migrated as it should be, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reject:
    """Why one record cannot be migrated as it should be: the field, a stable reason, the offending value."""

    id: str
    field: str
    reason: str
    value: str
