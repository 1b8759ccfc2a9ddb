"""What is to happen to one live name, and what every way of going back can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from chromactl.stores.base import Collection


class Way(Enum):
    """How a name gets back what it had; the value is the word for it in reports."""

    AS_IT_WAS = "as it was"
    RENAMED = "the kept original, renamed back"
    REMOVED = "removed: there was none before"
    REWRITTEN = "written anew from the backup"
    AMENDED = "changed records put back"


@dataclass(frozen=True, slots=True)
class Step:
    """One live name. `leaves` is the collection that goes, `comes` the one that gets the name.

    `records` and `digest` are what the name has to hold in the end; the digest is None where there is nothing to hold.
    """

    name: str
    way: Way
    records: int = 0
    digest: str | None = None
    leaves: Collection | None = None
    comes: Collection | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return self.way is not Way.AS_IT_WAS or self.leaves is not None


class Undo(Protocol):
    """A way of going back. `plan` looks and refuses; only what follows it changes anything.

    Each can be repeated after a crash: what was done is seen in the target, and not done again.
    """

    name: str
    """Of the run, or of this rollback: what archives and work collections are named after."""

    def plan(self) -> list[Step]:
        """What is to be done.

        Raises:
            PreconditionError: going back is not safe any more, or not possible.
        """

    def prepare(self, steps: Sequence[Step]) -> None:
        """Write and prove whatever is needed, beside what is live."""

    def move(self, steps: Sequence[Step]) -> None:
        """Give the live names what they had, and prove it."""

    def clear(self, steps: Sequence[Step]) -> None:
        """Remove what is not needed any more."""
