"""What is known of names for a moment: the collection that each has, and the list of all.

A search asks for a name or two, and Chroma may have many thousands, so each name is asked for by itself. All are listed
only for who wants all, and for what no single question can tell: a name that nobody has may be between the two renames
of a swap, and only the list shows who is meant by it then.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from chromadb.types import Collection

from app.core.chroma.resolver import by_name

# Names are kept for this many collections, those last asked for.
MOST = 4096
# From this part of its time on, what is known is asked for again by one, while the others go on with it.
EARLY = 0.8
# A name that nobody ever had does not get between two renames unseen: for this long an older list will do.
ABSENT_SECONDS = 60.0

Get = Callable[[str], Collection | None]
Every = Callable[[], Iterable[Collection]]


@dataclass(frozen=True, slots=True)
class _Answer:
    found: Collection | None = None
    asked: float = -math.inf


@dataclass(slots=True)
class _Name:
    answer: _Answer = _Answer()
    seen: float = -math.inf  # when some collection had it
    lock: threading.Lock = field(default_factory=threading.Lock)


class Known:
    """Collections by name, at most `ttl` seconds old. Safe to share between threads.

    `get` asks Chroma who has a name, or had it until a rebuild took it a moment ago; `every` for all collections. Both
    may raise, which is told and not remembered.
    """

    def __init__(
        self, ttl: float, get: Get, every: Every, clock: Callable[[], float] = time.monotonic, most: int = MOST
    ) -> None:
        self._ttl = ttl
        self._get = get
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._list = _List(every, clock)

    def all(self) -> Mapping[str, Collection]:
        """Every collection but the work collections of migrations."""
        return self._list.since(self._clock() - self._ttl).collections

    def find(self, name: str, gone: UUID | None = None) -> Collection | None:
        """The collection that is meant by the name; None where there is none, which is asked each time.

        `gone` is an id that was found and turned out to be nobody's. Threads that want a name at once share one answer.
        """
        entry = self._entry(name)
        before = entry.answer
        age = self._clock() - before.asked
        if before.found is not None and before.found.id != gone and age < self._ttl:
            if age < EARLY * self._ttl or not entry.lock.acquire(blocking=False):
                return before.found
        else:
            entry.lock.acquire()
        try:
            now = entry.answer
            if now is before or (now.found is not None and now.found.id == gone):
                now = entry.answer = self._ask(name, entry, gone)
            return now.found
        finally:
            entry.lock.release()
            self._tidy(name, entry)

    def _ask(self, name: str, entry: _Name, gone: UUID | None) -> _Answer:
        asked = self._clock()
        found = self._get(name)
        answer = _Answer(found, asked) if found is not None else self._between(name, entry, asked, gone)
        if answer.found is not None:
            entry.seen = asked
        return answer

    def _between(self, name: str, entry: _Name, now: float, gone: UUID | None) -> _Answer:
        """What the list tells of a name that nobody has: a list from after somebody had it."""
        listed = self._list.since(max(entry.seen, now - ABSENT_SECONDS))
        if (found := listed.collections.get(name)) is not None:
            listed = self._list.since(now if found.id == gone else now - self._ttl)
        return _Answer(listed.collections.get(name), listed.asked)

    def _entry(self, name: str) -> _Name:
        with self._lock:
            entry = self._names.setdefault(name, _Name())
            self._names.move_to_end(name)
            return entry

    def _tidy(self, name: str, entry: _Name) -> None:
        """Keep no name that nobody ever had, which may be one that somebody made up, and not too many others."""
        with self._lock:
            if entry.seen == -math.inf and self._names.get(name) is entry:
                del self._names[name]
            while len(self._names) > self._most:
                self._names.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Listed:
    collections: Mapping[str, Collection] = field(default_factory=dict)
    asked: float = -math.inf


class _List:
    def __init__(self, every: Every, clock: Callable[[], float]) -> None:
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        self._listed = _Listed()

    def since(self, moment: float) -> _Listed:
        """A list that was asked for after this moment. Threads that want one at once share it."""
        if self._listed.asked <= moment:
            with self._lock:
                if self._listed.asked <= moment:
                    asked = self._clock()
                    self._listed = _Listed(by_name(self._every()), asked)
        return self._listed
