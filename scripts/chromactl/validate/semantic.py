"""Asking both sides the same queries, and the exact answer to them while the vectors go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from chromactl.embedding.provider import Embedder
from chromactl.location import DATABASES, Kind
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Plan
from chromactl.stores.base import Batch, Source
from chromactl.validate.asking import Answer, Key, ask
from chromactl.validate.checks.semantic import Asked
from chromactl.validate.exact import RESULTS, ExactSearch, Truth
from chromactl.validate.part import Part, Whole
from chromactl.validate.queries import (
    Group,
    Question,
    TestQuery,
    check_names,
    file_questions,
    groups,
    pose,
    stored_questions,
)

_SEPARATOR = "\x1f"
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


class Interview:
    """All questions of a validation: made first, answered exactly on the way, asked in the end."""

    def __init__(
        self,
        plan: Plan,
        passage: Passage,
        old: Source,
        queries: list[TestQuery],
        stored: int,
        embedder: Embedder,
        *,
        limited: bool,
    ) -> None:
        self._passage = passage
        self._old = old
        self.notes: list[str] = []
        self._groups: list[tuple[Group, list[Question], ExactSearch]] = []
        asked = [group for group in groups(plan) if group.dimension is not None]
        check_names(queries, plan, asked, limited=limited)
        posed = pose(queries, asked, embedder)
        if any(query.vector is None for query in queries):
            self.notes.append(f"texts of test queries embedded by {embedder.name}")
        for group in asked:
            if group.space is None:
                self.notes.append(f"{group.name}: not asked, because the profile gives it another metric")
                continue
            questions = file_questions(group, posed) + (stored_questions(group, old, stored) if stored else [])
            if questions:
                vectors = np.stack([question.vector for question in questions])
                self._groups.append((group, questions, ExactSearch(vectors, group.space)))
        self._search = {target.name: search for group, _, search in self._groups for target in group.targets}

    def observe(self, part: Part) -> None:
        """Take the vectors that should be there into the exact answers."""
        search = self._search.get(part.target.name)
        if search is not None:
            search.add([_text((part.target.name, record)) for record in part.wanted.ids], part.wanted.embeddings)

    def ask(self, new: Source, whole: Whole, old_kind: Kind, new_kind: Kind) -> list[Asked]:
        """Ask everything of both sides, where they have an index."""
        if new_kind not in DATABASES:
            self.notes.append("the new side is a file and has no index to ask")
            return []
        if old_kind not in DATABASES:
            self.notes.append("the old side is a file without an index; the exact answer stands in for it")
        found: list[Asked] = []
        for group, questions, search in self._groups:
            if words := _cannot_be_asked(group, whole):
                self.notes.append(f"{group.name}: not asked, {words}")
                continue
            found += self._ask_group(group, questions, search, new, whole, has_index=old_kind in DATABASES)
        return found

    def _ask_group(
        self,
        group: Group,
        questions: list[Question],
        search: ExactSearch,
        new: Source,
        whole: Whole,
        *,
        has_index: bool,
    ) -> list[Asked]:
        sources = [planned.source for planned in group.sources]
        targets = [
            replace(state.collection, spec=replace(state.collection.spec, name=state.target.name))
            for state in (whole.targets[target.name] for target in group.targets)
            if state.collection is not None
        ]
        # What the profile rejects is only on the old side: ask it for so much more.
        limit = 2 * RESULTS if whole.rejected else RESULTS
        ask(new, targets, questions[0].vector, RESULTS)  # an index is loaded by its first query
        if has_index:
            ask(self._old, sources, questions[0].vector, limit)
        before = [ask(self._old, sources, one.vector, limit) if has_index else Answer() for one in questions]
        after = [ask(new, targets, one.vector, RESULTS) for one in questions]
        places = self._places(group, before)
        same_metric = all(whole.targets[one.name].proven in (None, one.spec.space) for one in group.targets)
        return [
            _compared(group, question, search.truth(number), before[number], after[number], places, same_metric)
            for number, question in enumerate(questions)
        ]

    def _places(self, group: Group, answers: list[Answer]) -> dict[Key, Key]:
        """Where the records that the old side answered with are on the new one, by the profile."""
        found: dict[Key, Key] = {}
        for planned in group.sources:
            ids = dict.fromkeys(key[1] for answer in answers for key, _ in answer.neighbours if key[0] == planned.name)
            batch, _ = self._old.read(planned.source, list(ids)) if ids else (None, [])
            for row in range(len(batch)) if batch is not None else ():
                assert batch is not None  # noqa: S101 (for the type checker)
                for target, part in self._one(planned.name, batch.take([row]), group).items():
                    found[planned.name, batch.ids[row]] = (target, part.ids[0])
        return found

    def _one(self, source: str, record: Batch, group: Group) -> Mapping[str, Batch]:
        planned = next(one for one in group.sources if one.name == source)
        return self._passage.through(planned, record).parts


def _cannot_be_asked(group: Group, whole: Whole) -> str:
    for target in group.targets:
        state = whole.targets[target.name]
        if state.collection is None:
            return f"{target.name} is not there"
        dimension = state.collection.spec.dimension
        if dimension is not None and dimension != group.dimension:
            return f"its vectors have dimension {dimension} instead of {group.dimension}"
    return ""


def _compared(
    group: Group,
    question: Question,
    truth: Truth,
    before: Answer,
    after: Answer,
    places: Mapping[Key, Key],
    same_metric: bool,
) -> Asked:
    asked = Asked(group.name, question.kind, question.text, question.category)
    asked.old_ms, asked.new_ms, asked.error = before.milliseconds, after.milliseconds, after.error
    size = truth.size
    old = {_text(places[key]): distance for key, distance in before.neighbours if key in places}
    new = {_text(key): distance for key, distance in after.neighbours}
    answered = bool(old) and not before.error
    first_old, first_new = (list(old) if answered else truth.ids)[:size], list(new)[:size]
    union = {*first_old, *first_new}
    asked.overlap = len({*first_old} & {*first_new}) / len(union) if union else 1.0
    asked.recall_old = truth.recall(first_old) if answered else None
    asked.recall_new = truth.recall(first_new)
    if same_metric:
        known = old if answered else {one.id: one.distance for one in truth.neighbours}
        both = [key for key in first_new if key in known]
        gaps = np.array([abs(known[key] - new[key]) for key in both])
        allowed = np.array([_ABSOLUTE + _RELATIVE * abs(known[key]) for key in both])
        asked.common, asked.agreeing = len(both), int((gaps <= allowed).sum())
        asked.largest_gap = round(float(gaps.max()), 9) if len(both) and np.isfinite(gaps).all() else 0.0
    return asked


def _text(key: Key) -> str:
    return _SEPARATOR.join(key)
