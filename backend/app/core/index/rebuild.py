"""`app rebuild`: every collection of the index anew from PostgreSQL, while writes and searches go on.

Each collection is made beside the live one, from the stored embeddings, and every record of it is read back and
compared. Index workers meanwhile go on with the live one; what they bring there is caught up with. Then the gate of
this one collection is closed, the last difference is made good, names are swapped, and the gate is opened. At that
moment the new collection holds what the old one should have held, and everything newer still waits in the outbox.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import psycopg

from app.core.chroma.bulk import Bulk
from app.core.errors import ChromaFailed, RebuildFailed, ServiceError
from app.core.index.gate import Gate
from app.core.index.rebuild_fill import Fill, Tools
from app.core.index.rebuild_source import Part
from app.core.index.rebuild_target import Leftovers, Target
from app.core.memory.record import index_id
from app.core.memory.tenant import Kind

log = logging.getLogger(__name__)

# So little is left to be made good with the gate closed: a fraction of a second.
SMALL = 500
_ROUNDS = 20
_CLOSING = 30
_BREATH = 0.25


@dataclass(slots=True)
class Rebuilt:
    """What became of one collection. `troubled` are records that the index does not hold as PostgreSQL does."""

    name: str
    user: str
    project: str
    kind: Kind
    records: int = 0
    embedded: int = 0
    caught_up: int = 0
    swapped: bool = False
    error: str = ""
    troubled: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What a rebuild did. `seconds` end when the last collection is live, before the replaced ones are removed."""

    run: str
    collections: list[Rebuilt] = field(default_factory=list)
    seconds: float = 0.0
    cleanup_seconds: float = 0.0
    unknown: list[str] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    left_behind: str = ""
    removed: int = 0

    @property
    def records(self) -> int:
        """Records in the new collections that are live now."""
        return sum(one.records for one in self.collections if one.swapped)

    @property
    def complete(self) -> bool:
        """Whether every collection is live and holds all its records as they are."""
        return all(one.swapped and not one.troubled for one in self.collections)

    @property
    def changed(self) -> bool:
        """Whether anything was done to the index."""
        return bool(self.removed) or any(one.swapped for one in self.collections)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "status": ("rebuilt" if self.collections else "unchanged") if self.complete else "incomplete",
            "changed": self.changed,
            "run": self.run,
            "records": self.records,
            "embedded": sum(one.embedded for one in self.collections),
            "caught_up": sum(one.caught_up for one in self.collections),
            "seconds": round(self.seconds, 3),
            "records_per_second": round(self.records / self.seconds, 1) if self.seconds else None,
            "cleanup_seconds": round(self.cleanup_seconds, 3),
            "collections": [asdict(one) for one in self.collections],
            "removed": self.removed,
            "unknown": self.unknown,
            "left_alone": self.left_alone,
            "left_behind": self.left_behind,
        }


def new_run() -> str:
    """The name of a run, unlike any other's: when it began, and something random."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


class Rebuild:
    """One run. `tell` is given lines for people."""

    def __init__(self, run: str, targets: Mapping[Kind, Target], tools: Tools, tell: Callable[[str], None]) -> None:
        self._targets = targets
        self._tools = tools
        self._stop = tools.stop
        self._tell = tell
        self.report = Report(run)

    def run(self, parts: Sequence[Part], leftovers: Mapping[Target, Leftovers], *, re_embed: bool) -> Report:
        """Rebuild these parts, one after the other, after what earlier runs left is cleared away.

        A collection whose records make trouble stays as it is, and the others are rebuilt all the same. Raises
        ChromaUnavailable, DatabaseUnavailable, EmbeddingUnavailable, Stopped: what is not live yet stays as it was.
        """
        begun = perf_counter()
        for target, found in leftovers.items():
            self.report.unknown += found.unknown
            self.report.left_alone += found.foreign
            if len(found):
                self._tell(f"clearing away {len(found)} collections that earlier runs left")
                target.tidy(found)
                self.report.removed += len(found)
        for part in parts:
            self._stop.check()
            if part.records or part.collection in leftovers[self._targets[part.kind]].live:
                self._part(part, anew=re_embed)
            for target in leftovers:
                target.sweep()
        self.report.seconds = perf_counter() - begun
        self._clean_up(list(leftovers))
        self.report.cleanup_seconds = perf_counter() - begun - self.report.seconds
        return self.report

    def _clean_up(self, targets: Sequence[Target]) -> None:
        """Remove what was replaced. The index is right by now, so trouble here is told, and left to the next run."""
        try:
            for target in targets:
                target.sweep(wait=True, told=lambda left: self._tell(f"removing what was replaced, in {left:.0f} s"))
        except ServiceError as error:
            self.report.left_behind = str(error)

    def _part(self, part: Part, *, anew: bool) -> None:
        target = self._targets[part.kind]
        if not part.records and ((live := target.live(part.collection)) is None or not live.count()):
            return  # it holds what it should: nothing
        done = Rebuilt(part.collection, part.tenant.user_id, part.tenant.project_id, part.kind)
        self.report.collections.append(done)
        staged = target.stage(part.collection)
        fill = Fill(part, staged, self._tools)
        try:
            self._make(part, target, staged, fill, anew=anew)
            done.swapped = True
        except RebuildFailed as error:
            done.error = str(error)
            self._tell(f"{part.collection} stays as it is: {error}")
        finally:
            if not done.swapped:
                with suppress(ServiceError):  # else the next run removes it
                    self._discard(target, staged, part.collection)
        done.records = len(fill.expected())
        done.embedded, done.caught_up = fill.embedded, fill.caught_up
        done.troubled = {index_id(id_): why for id_, why in sorted(fill.troubles.items())}
        self._have_them_told(list(fill.refused))

    def _discard(self, target: Target, staged: Bulk, name: str) -> None:
        live = target.live(name)
        if live is None or live.model.id != staged.model.id:
            staged.discard(staged.model.name)

    def _have_them_told(self, refused: Sequence[int]) -> None:
        """Records that nobody knows to be refused are given to the index workers, and so to the dead letters."""
        if refused and (unknown := self._tools.ledger.unknown(refused)):
            self._tools.ledger.replay(sorted(unknown))

    def _make(self, part: Part, target: Target, staged: Bulk, fill: Fill, *, anew: bool) -> None:
        outages = target.chroma.outages
        fill.load(anew=anew)
        for _ in range(_ROUNDS):
            self._catch_up(part, fill)
            if target.chroma.outages > outages:  # what Chroma acknowledged before, it may have lost
                outages = target.chroma.outages
                self._tell("Chroma was away meanwhile: every record is read once more")
                fill.prove()
            self._exactly(part, staged, fill)
            self._answering(staged, fill)
            if self._swapped(part, target, staged, fill, outages):
                return
            self._stop.pause(_BREATH)
        if locked := self._tools.ledger.difference(part).ids():
            raise RebuildFailed(
                f"Some session keeps rows of PostgreSQL locked, so that {len(locked)} records cannot be given their "
                f"embeddings, as {index_id(locked[0])}; end that session (pg_locks), then try again."
            )
        raise RebuildFailed("More is written than can be caught up with; try again when less is.")

    def _answering(self, staged: Bulk, fill: Fill) -> None:
        if fill.sample is not None:
            try:
                staged.answers(fill.sample)
            except ChromaFailed as error:
                raise RebuildFailed(f"The new collection answers no query: {error}") from error

    def _catch_up(self, part: Part, fill: Fill) -> None:
        """Until little is left, or it does not get less."""
        least = None
        while len(found := self._tools.ledger.difference(part)) > SMALL and (least is None or len(found) < least):
            self._stop.check()
            least = len(found)
            fill.catch_up(found)
        fill.catch_up(found)

    def _exactly(self, part: Part, staged: Bulk, fill: Fill) -> None:
        """See that it holds the ids that it should, and no others."""
        for last in (False, True):
            expected, there = fill.expected(), set(staged.ids())
            if expected == there:
                return
            if last:
                raise RebuildFailed(
                    f"The new collection lacks {len(expected - there)} records and has {len(there - expected)} others."
                )
            staged.remove(sorted(there - expected))
            fill.forget(expected - there)
            self._catch_up(part, fill)

    def _swapped(self, part: Part, target: Target, staged: Bulk, fill: Fill, outages: int) -> bool:
        """Swap with the gate closed; False when too much has come in between for that, or another outage."""
        ledger = self._tools.ledger
        gate = ledger.gate(part)
        self._close(gate)
        try:
            found = ledger.difference(part)
            if len(found) > 2 * SMALL:
                return False
            fill.catch_up(found)
            if len(ledger.difference(part)):
                return False  # left out, because somebody has locked it; what comes from now on has an event
            if (count := staged.count()) != (number := len(fill.expected())):
                raise RebuildFailed(f"The new collection counts {count} records and should hold {number}.")
            self._no_worse(target, part, fill)
            if target.chroma.outages > outages:
                return False
            target.swap(staged, part.collection, ledger.alive)
            # with the connection the gate would have been lost, and perhaps something written to the old collection
            ledger.alive()
        finally:
            with suppress(psycopg.Error):  # lost with its connection, which is told already
                gate.open()
                ledger.wake()
        return True

    def _close(self, gate: Gate) -> None:
        for _ in range(_CLOSING):
            if gate.close():
                return
            self._stop.pause(0.5)
        raise RebuildFailed(
            "Index workers have had a batch of it in hand for more than a minute; see what they wait for."
        )

    def _no_worse(self, target: Target, part: Part, fill: Fill) -> None:
        if not fill.troubles or (live := target.live(part.collection)) is None:
            return
        if right := fill.right_in(live):
            raise RebuildFailed(
                f"Chroma does not take {len(right)} records any more that the live collection holds, as "
                f"{index_id(right[0])}: {fill.troubles[right[0]]}"
            )
