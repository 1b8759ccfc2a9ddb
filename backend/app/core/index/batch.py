"""What becomes of a batch: each record's parts, and whether they were done, refused, put off or left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.writer import Entries
from app.core.errors import RecordsRefused
from app.core.index.outbox import Place, Task
from app.core.memory.record import document_of, index_id, metadata_of, text_of


@dataclass(slots=True)
class Outcome:
    """What became of a batch, in records."""

    indexed: int = 0
    removed: int = 0
    postponed: int = 0
    buried: int = 0
    held: int = 0
    # seconds from the change of each record that is done to now
    lags: list[float] = field(default_factory=list)

    @property
    def taken(self) -> int:
        """Records taken."""
        return self.indexed + self.removed + self.postponed + self.buried + self.held

    @property
    def finished(self) -> int:
        """Records that need nothing more."""
        return self.indexed + self.removed + self.buried


@dataclass(slots=True)
class Batch:
    """The tasks of a batch, and how far it is."""

    tasks: Sequence[Task]
    # What of each is still to be done; a task without an entry is done.
    left: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    held: dict[int, str] = field(default_factory=dict)
    unsure: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.left = {task.memory_id: len(task.former) + (task.present is not None) for task in self.tasks}

    def did(self, tasks: Iterable[Task]) -> None:
        """One part of each is done."""
        for task in tasks:
            self.left[task.memory_id] -= 1

    def refuse(self, task: Task, reason: str) -> None:
        """It is the record's own fault."""
        self.refused.setdefault(task.memory_id, reason)

    def hold(self, tasks: Iterable[Task], reason: str) -> None:
        """It cannot be done now, through no fault of theirs."""
        for task in tasks:
            self.held.setdefault(task.memory_id, reason)

    def doubt(self, tasks: Iterable[Task]) -> None:
        """What came of a write of theirs is not known."""
        self.unsure.update(task.memory_id for task in tasks)

    def done(self) -> list[Task]:
        """Those of which every part is done."""
        return [
            task
            for task in self.tasks
            if self.left[task.memory_id] == 0 and task.memory_id not in self.refused and task.memory_id not in self.held
        ]

    def among(self, ids: Iterable[int]) -> list[Task]:
        """The tasks of these records."""
        wanted = set(ids)
        return [task for task in self.tasks if task.memory_id in wanted]


@dataclass(frozen=True, slots=True)
class Form:
    """A record as the index takes it, but for its vector."""

    text: str
    document: str
    metadata: dict[str, object]


def form_of(task: Task) -> Form:
    """The form of a record that there is; RecordsRefused when it has none, which only other writers can bring about."""
    if task.present is None:
        raise RecordsRefused("There is no such record.")
    raw_data = task.present.raw_data
    if not isinstance(raw_data.get("content"), str):
        raise RecordsRefused("Its raw_data has no text: content is missing, or no string.")
    try:
        return Form(text_of(raw_data), document_of(raw_data), metadata_of(raw_data, task.present.created_at))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordsRefused(f"Its raw_data is not a memory's ({type(error).__name__}: {error}).") from error


def entries_of(tasks: Sequence[Task], forms: dict[int, Form], vectors: dict[int, NDArray[float32]]) -> Entries:
    """The records as Chroma takes them."""
    found = [forms[task.memory_id] for task in tasks]
    return Entries(
        ids=[index_id(task.memory_id) for task in tasks],
        vectors=np.stack([vectors[task.memory_id] for task in tasks]),
        documents=[form.document for form in found],
        metadatas=[form.metadata for form in found],
    )


def by_place(parts: Iterable[tuple[Place, Task]]) -> list[tuple[Place, list[Task]]]:
    """The tasks of each place."""
    ordered = sorted(parts, key=lambda part: (part[0], part[1].memory_id))
    return [(place, [task for _, task in group]) for place, group in groupby(ordered, lambda part: part[0])]
