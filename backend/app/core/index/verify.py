"""Does the index hold what PostgreSQL says, record by record? Asked while writes go on.

A record with an event in the outbox is on its way, and no difference. One that seems to differ is looked at again: it
does, if it had no event and was the same in PostgreSQL before and after the index was read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any
from uuid import UUID

from app.core.chroma.bulk import Bulk, pages_of
from app.core.chroma.hits import metric_of
from app.core.chroma.resolver import present
from app.core.errors import UnknownCollection
from app.core.flow import Stage, flow
from app.core.index.compare import differences
from app.core.index.rebuild_fill import prepared, some
from app.core.index.rebuild_site import Site
from app.core.index.rebuild_source import PIECE_RECORDS, Part, Rows
from app.core.memory.record import index_id, memory_id
from app.core.memory.tenant import Kind

METRIC = "cosine"
READERS = 2
EXAMPLES = 20
_LOOKS = 5
_PAUSE_SECONDS = 0.5
_SWAPS = 3

_WAITING = b"SELECT DISTINCT memory_id FROM outbox WHERE memory_id = ANY(%s)"
_VERSIONS = b"SELECT id, xmin::text::bigint FROM memory_logs WHERE id = ANY(%s)"


@dataclass(slots=True)
class Checked:
    """One collection: ids of the records that differ, and how; `waiting` are on their way, and not looked at."""

    name: str
    user: str
    project: str
    kind: Kind
    metric: str = METRIC
    records: int = 0
    waiting: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    different: dict[str, str] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return self.metric == METRIC and not (self.missing or self.extra or self.different)

    def to_json(self) -> dict[str, Any]:
        """For programs: numbers, and of each kind of difference the first ids."""
        return {
            "name": self.name,
            "user": self.user,
            "project": self.project,
            "kind": self.kind,
            "metric": self.metric,
            "records": self.records,
            "waiting": self.waiting,
            "missing": len(self.missing),
            "extra": len(self.extra),
            "different": len(self.different),
            "examples": {
                "missing": self.missing[:EXAMPLES],
                "extra": self.extra[:EXAMPLES],
                "different": dict(list(self.different.items())[:EXAMPLES]),
            },
        }


@dataclass(slots=True)
class Verdict:
    """What was found. `unknown` are collections of tenants that PostgreSQL does not know, `leftovers` of runs."""

    collections: list[Checked] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def same(self) -> bool:
        """Whether the index holds what PostgreSQL says, apart from what is on its way."""
        return all(one.same for one in self.collections)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "changed": False,
            "same": self.same,
            "records": sum(one.records for one in self.collections),
            "waiting": sum(one.waiting for one in self.collections),
            "seconds": round(self.seconds, 3),
            "collections": [one.to_json() for one in self.collections],
            "unknown": self.unknown,
            "leftovers": self.leftovers,
        }


def verify(site: Site, parts: Sequence[Part], live: Container[str], advance: Callable[[int], None]) -> Verdict:
    """Compare these parts; `live` are the names of all collections. Raises ServiceError, Stopped."""
    begun = perf_counter()
    verdict = Verdict()
    for part in parts:
        site.stop.check()
        if not part.records and part.collection not in live:
            continue
        for swaps_left in reversed(range(_SWAPS)):
            try:
                checked = _Check(site, part).run(advance)
            except UnknownCollection:  # a rebuild put another in its place
                if not swaps_left:
                    raise
            else:
                break
        if checked is not None:
            verdict.collections.append(checked)
    verdict.seconds = perf_counter() - begun
    return verdict


class _Check:
    def __init__(self, site: Site, part: Part) -> None:
        self._site = site
        self._part = part
        self._bulk = self._live()
        self._suspects: set[str] = set()

    def _live(self) -> Bulk | None:
        chroma = self._site.chroma[self._part.kind]
        try:
            return Bulk(chroma, chroma.run(partial(present, name=self._part.collection)))
        except UnknownCollection:
            return None

    def run(self, advance: Callable[[int], None]) -> Checked | None:
        """The comparison; None where neither side has anything. Raises UnknownCollection too."""
        checked = self._compared(advance)
        if checked is not None and not checked.same and _id(self._live()) != _id(self._bulk):
            raise UnknownCollection(f"Another {self._part.collection} took its place while it was compared.")
        return checked

    def _compared(self, advance: Callable[[int], None]) -> Checked | None:
        part = self._part
        there = set(self._bulk.ids()) if self._bulk else set()
        if not there and not part.records:
            return None
        checked = Checked(part.collection, part.tenant.user_id, part.tenant.project_id, part.kind)
        if self._bulk:
            checked.metric = metric_of(self._bulk.model)
        seen: set[str] = set()

        def note(rows: Rows) -> None:
            seen.update(map(index_id, rows.ids))
            checked.records += len(rows)
            advance(len(rows))

        flow(self._site.source.pages(part), [Stage(self._compare, READERS), Stage(note)], self._site.stop)
        strange, ids = _apart(self._suspects | (there - seen))
        checked.extra += strange
        for start in range(0, len(ids), PIECE_RECORDS):
            self._settle(ids[start : start + PIECE_RECORDS], checked)
        return checked

    def _compare(self, rows: Rows) -> None:
        self._suspects.update(self._wrong(rows))

    def _wrong(self, rows: Rows) -> dict[str, str]:
        entries, kept, unfit = prepared(rows, bare=True)
        found = {index_id(rows.ids[row]): why for row, why in unfit.items()}
        found |= {index_id(rows.ids[row]): "no embedding of this model" for row in kept if not rows.current[row]}
        if self._bulk is None:
            return dict.fromkeys(map(index_id, rows.ids), "missing")
        for page in pages_of(entries):
            part = some(entries, range(*page.indices(len(entries.ids))))
            columns, unreadable = self._bulk.read(part.ids)
            found |= differences(part, columns) | dict.fromkeys(unreadable, "embedding")
        return found

    def _settle(self, ids: list[int], checked: Checked) -> None:
        """Look again at what seemed to differ, until it stands still or has been looked at often enough."""
        for look in range(_LOOKS):
            if look:
                self._site.stop.pause(_PAUSE_SECONDS)
            ids = self._look(ids, checked)
            if not ids:
                return
        checked.waiting += len(ids)

    def _look(self, ids: list[int], checked: Checked) -> list[int]:
        """Judge those that do not change meanwhile; the ids of the others."""
        connection = self._site.connection
        before: dict[int, int] = {}
        wrong: dict[str, str] = {}
        found = list(self._site.source.some(self._part, ids))
        waiting = {row[0] for row in connection.execute(_WAITING, [ids]).fetchall()}
        for rows in found:
            before.update(zip(rows.ids, rows.versions, strict=True))
            wrong |= self._wrong(rows)
        gone = [id_ for id_ in ids if id_ not in before]
        left: set[str] = set()
        if self._bulk:
            columns, unreadable = self._bulk.read(list(map(index_id, gone)))
            left.update(columns.ids, unreadable)
        after: dict[int, int] = dict(connection.execute(_VERSIONS, [ids]).fetchall())
        again: list[int] = []
        for id_ in ids:
            name = index_id(id_)
            if id_ in waiting:
                checked.waiting += 1
            elif before.get(id_) != after.get(id_):
                again.append(id_)
            elif name in left:
                checked.extra.append(name)
            elif wrong.get(name) == "missing":
                checked.missing.append(name)
            elif name in wrong:
                checked.different[name] = wrong[name]
        return again


def _id(bulk: Bulk | None) -> UUID | None:
    return bulk.model.id if bulk else None


def _apart(names: set[str]) -> tuple[list[str], list[int]]:
    """Ids that no memory can have, and the memories' numbers of the others, in order."""
    strange, ids = [], []
    for name in names:
        try:
            ids.append(memory_id(name))
        except ValueError:
            strange.append(name)
    return sorted(strange), sorted(ids)
