"""The one pass over everything: old records, through the profile, beside what the new side has under their ids.

Ids are taken first, then records by id in a plan's pieces; readers of both sides work at the same time, and the checks
see one piece after the other. Only ids are kept, never all records.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from chromactl import metric
from chromactl.console import Advance
from chromactl.errors import ChromactlError
from chromactl.migrate.flow import Stage, flow
from chromactl.migrate.passage import Passage, without
from chromactl.migrate.plan import Piece, Plan, PlannedCollection, PlannedTarget, in_pieces
from chromactl.reject import Reject
from chromactl.schema.profile import Profile
from chromactl.stores.base import Batch, Collection, Source
from chromactl.stores.names import is_work_collection
from chromactl.validate.part import UNREADABLE, Extra, Misplaced, Part, Refusals, TargetState, Whole, compare

MOST_UNREADABLE = 50
"""Lost vectors of one collection after which no more are asked for: a second goes by until each is known as lost."""

PROBED = 40
"""Records of each collection that are read before all others, to know whether its index has lost any."""

_CAREFUL = 25


@dataclass(slots=True)
class _Look:
    """One piece under way."""

    piece: Piece
    parts: dict[str, Batch] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    compared: list[Part] = field(default_factory=list)


class Survey:
    """Reads both sides once and shows the checks what it sees."""

    def __init__(
        self, plan: Plan, passage: Passage, profile: Profile, old: Source, new: Source, *, has_index: bool
    ) -> None:
        self._plan = plan
        self._passage = passage
        self._profile = profile
        self._old = old
        self._new = new
        self._targets = {target.name: target for target in plan.targets}
        self._contested = {name: frozenset(ids) for name, ids in plan.contested.items()}
        self._taken: dict[str, set[str]] = {name: set() for name in plan.contested}
        self._unreadable: Counter[str] = Counter()
        self._missing: dict[str, dict[str, tuple[PlannedCollection, str]]] = {}
        self._kept: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        there = {one.name: one for one in new.collections() if not is_work_collection(one.name)}
        self.whole = Whole(plan, {name: self._state(name, there.get(name), has_index) for name in self._targets})
        self.whole.not_named = sorted(there.keys() - self._targets.keys())

    def _state(self, name: str, collection: Collection | None, has_index: bool) -> TargetState:
        """The collection's ids and count, and what its index says to a first question."""
        state = TargetState(self._targets[name], collection)
        self._kept[name] = set()
        if collection is None:
            return state
        ids = self._new.ids(collection)
        self._kept[name] = set(ids)
        state.count, state.ids = self._new.count(collection), len(ids)
        if len(ids) > len(self._kept[name]):
            state.doubled = [record for record, count in Counter(ids).items() if count > 1]
        if has_index and ids:
            self._probe(state, collection, ids)
        return state

    def _probe(self, state: TargetState, collection: Collection, ids: list[str]) -> None:
        """Prove the metric, and see whether vectors are lost; an index that has none at all is not asked again."""
        name = state.target.name
        try:
            state.proven = metric.prove(self._new, collection, ids)
            for count in (3, PROBED):
                some = list(dict.fromkeys(ids[number * (len(ids) - 1) // (count - 1)] for number in range(count)))
                _, unreadable = self._new.read(collection, some)
                lost = [record for entry in unreadable for record in entry.ids]
                self._unreadable[name] += len(lost)
                if len(lost) == len(some):
                    self._unreadable[name] = MOST_UNREADABLE + 1
                    state.index_error = unreadable[0].reason
                    return
        except ChromactlError as error:
            state.index_error = str(error)

    # The pass

    def look(
        self,
        workers: int,
        advance: Advance,
        refused: Callable[[Refusals], None],
        seen: Callable[[Part], None],
        extra: Callable[[Extra], None],
    ) -> Whole:
        """Show everything: what cannot be there, what is or should be, and what should not be there."""
        self._seen, self._refused, self._advance = seen, refused, advance
        looks = (_Look(piece) for piece in self._plan.pieces())
        self._flow(looks, workers)
        self._misplaced(workers)
        for state in self.whole.targets.values():
            if state.collection is not None:
                for ids in in_pieces(state.extra):
                    for part in self._read_extra(state.target, state.collection, ids):
                        extra(part)
        return self.whole

    def _read_extra(self, target: PlannedTarget, collection: Collection, ids: list[str]) -> Iterator[Extra]:
        """What should not be there as it is; of lost vectors, and of too many such, only the texts."""
        unread = ids
        if self._unreadable[target.name] <= MOST_UNREADABLE:
            found, unreadable = self._new.read(collection, ids)
            yield Extra(target, found, unreadable)
            unread = [record for entry in unreadable for record in entry.ids]
            self._unreadable[target.name] += len(unread)
        if unread:
            yield Extra(target, self._new.read_text(collection, unread), whole=False)

    def _flow(self, looks: Iterable[_Look], workers: int) -> None:
        flow(
            looks,
            [Stage(self._read_old, workers), Stage(self._settle), Stage(self._read_new, workers), Stage(self._show)],
        )

    def _read_old(self, look: _Look) -> None:
        piece = look.piece
        batch, unreadable = self._old.read(piece.planned.source, piece.ids)
        passed = self._passage.through(piece.planned, batch)
        look.parts = passed.parts
        look.rejects = passed.rejects + [
            Reject(record, "record", UNREADABLE, entry.reason[:200]) for entry in unreadable for record in entry.ids
        ]

    def _settle(self, look: _Look) -> None:
        """Of records with one id that go to one collection, the first one's stays: as in the migration."""
        for name in look.parts.keys() & self._contested.keys():
            here = [record for record in look.parts[name].ids if record in self._contested[name]]
            late = {record for record in here if record in self._taken[name]}
            self._taken[name].update(here)
            look.rejects += [Reject(record, "id", "duplicate_id", f"another of {name} has it") for record in late]
            look.parts[name] = without(look.parts[name], late)
        for name, part in look.parts.items():
            self.whole.targets[name].expected += len(part)
        # One record can be refused for several reasons.
        reasons: dict[str, str] = {}
        for reject in look.rejects:
            reasons.setdefault(reject.id, reject.reason)
        for record in [one for one, reason in reasons.items() if reason == UNREADABLE]:
            if self._is_there(look.piece, record):
                self.whole.unverified += 1
                del reasons[record]
        self.whole.rejected += len(reasons)
        self.whole.reasons.update(reasons.values())

    def _is_there(self, piece: Piece, record: str) -> bool:
        """Whether the new side has a record that the old one cannot give back any more; then it is not extra."""
        there = False
        for target in self._plan.feeds(piece.planned.name):
            new = self._profile.target_id(piece.planned.name, target.rule, record)
            if new in self._kept[target.name]:
                self._kept[target.name].remove(new)
                there = True
        return there

    def _read_new(self, look: _Look) -> None:
        for name, wanted in look.parts.items():
            state = self.whole.targets[name]
            if state.collection is not None and len(wanted):
                look.compared += self._compare(state, state.collection, wanted)
            elif len(wanted):
                look.compared.append(compare(state.target, wanted, wanted.take([]), [], {}))
        look.parts = {}

    def _compare(
        self, state: TargetState, collection: Collection, wanted: Batch, found_in: PlannedTarget | None = None
    ) -> Iterator[Part]:
        """Read what should be there. Of records whose vectors are lost, and of too many such, only the texts."""
        name = (found_in or state.target).name
        rules = self._profile.rules(state.target.rule)
        for some in wanted.slices(_CAREFUL if self._unreadable[name] else len(wanted)):
            lost: set[str] = set()
            if self._unreadable[name] <= MOST_UNREADABLE:
                found, unreadable = self._new.read(collection, some.ids)
                lost = {record for entry in unreadable for record in entry.ids}
                with self._lock:
                    self._unreadable[name] += len(lost)
                good = without(some, lost)
                yield compare(state.target, good, found, unreadable, rules, collection=name)
            else:
                lost = set(some.ids)
            if lost:
                blind = some.take([row for row, record in enumerate(some.ids) if record in lost])
                texts = self._new.read_text(collection, blind.ids)
                yield compare(state.target, blind, texts, [], rules, collection=name, whole=False)

    def _show(self, look: _Look) -> None:
        if look.rejects:
            self._refused(Refusals(look.piece.planned.name, look.rejects))
        for part in look.compared:
            self._kept[part.target.name].difference_update(part.wanted.ids)
            if part.missing:
                self._note_missing(look.piece, part)
            self._seen(part)
        self._advance("compare", len(look.piece.ids))
        look.compared = []

    def _note_missing(self, piece: Piece, part: Part) -> None:
        gone = set(part.missing)
        source, rule = piece.planned.name, part.target.rule
        by_target = self._missing.setdefault(part.target.name, {})
        for record in piece.ids:
            new = self._profile.target_id(source, rule, record)
            if new in gone:
                by_target[new] = (piece.planned, record)

    # What is left

    def _misplaced(self, workers: int) -> None:
        """Find missing records among what other collections have too many of; what stays is missing, and extra."""
        for name, state in self.whole.targets.items():
            missing = self._missing.get(name, {})
            for other, left in self._kept.items():
                if other != name and (here := [record for record in missing if record in left]):
                    left.difference_update(here)
                    self.whole.misplaced += [Misplaced(record, name, other) for record in here]
                    self._compare_misplaced(state, self.whole.targets[other], {one: missing.pop(one) for one in here})
            state.missing = list(missing)
        for name, state in self.whole.targets.items():
            state.extra = sorted(self._kept[name])
            self._copies(name, state)

    def _compare_misplaced(
        self, should: TargetState, found: TargetState, records: dict[str, tuple[PlannedCollection, str]]
    ) -> None:
        assert found.collection is not None  # noqa: S101 (it has ids)
        by_source: dict[str, list[tuple[PlannedCollection, str]]] = {}
        for planned, record in records.values():
            by_source.setdefault(planned.name, []).append((planned, record))
        for entries in by_source.values():
            planned = entries[0][0]
            for ids in in_pieces([record for _, record in entries]):
                batch, _ = self._old.read(planned.source, ids)
                wanted = self._passage.through(planned, batch).parts.get(should.target.name)
                for part in self._compare(should, found.collection, wanted, found.target) if wanted else ():
                    self._seen(part)

    def _copies(self, name: str, state: TargetState) -> None:
        """Of what is extra, the ids that another collection rightly has."""
        if not state.extra:
            return
        left = set(state.extra)
        for other in self.whole.targets.values():
            if other.target.name != name and other.collection is not None:
                extra_there = self._kept[other.target.name]
                for ids in in_pieces(state.extra):
                    there = self._new.read_text(other.collection, ids).ids
                    self.whole.copies += [
                        Misplaced(record, other.target.name, name)
                        for record in there
                        if record in left and record not in extra_there
                    ]
