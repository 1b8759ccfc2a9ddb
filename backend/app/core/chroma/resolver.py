"""From a collection's name to the collection that has it now.

Chroma resolves a name to an id once and from then on knows only the id. A migration swaps collections by
renaming (`x` becomes `x--before-RUN`, then `x--mRUN` becomes `x`), and the old id goes on answering. So a
name is resolved again on a short clock, and at once when the id is gone.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from chromadb.types import Collection

from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import is_not_found

# Same pattern as chromactl.stores.names, which makes these names; a test holds the two together.
_WORK = re.compile(r"(?P<name>.*)--(?P<kind>m|before-)(?P<run>\d{8}T\d{6}-[0-9a-f]{6})")
# The run by which a rebuild calls what it replaces: always this one, so that a writer can ask for it by name.
_REPLACED = "00000000T000000-000000"


def staged_name(name: str, run: str) -> str:
    """What a run calls the collection that is to have the name."""
    return f"{name}--m{run}"


def replaced_name(name: str) -> str:
    """What a rebuild calls the collection that had the name. It is still meant by the name while no other has it."""
    return f"{name}--before-{_REPLACED}"


@dataclass(frozen=True, slots=True)
class Work:
    """What the name of a work collection says: the name that it is about, of which run, and which of the two it is."""

    name: str
    run: str
    staged: bool


def work_of(name: str) -> Work | None:
    """The name of a work collection taken apart; None for every other name."""
    found = _WORK.fullmatch(name)
    return Work(found["name"], found["run"], found["kind"] == "m") if found else None


def is_work_collection(name: str) -> bool:
    """Whether a migration run made this collection for itself; such are never searched or counted."""
    return _WORK.fullmatch(name) is not None


def by_name(live: Iterable[Collection]) -> dict[str, Collection]:
    """The collections that have a name of their own, work collections left out.

    Between the two renames of a swap nobody is called `x`, but `x--before-RUN` and `x--mRUN` of one run
    are there. The former is still the proven one, so it goes on being `x` until the latter is. What a rebuild
    replaces is `x` until another is, whatever else is there.
    """
    named: dict[str, Collection] = {}
    replaced: dict[tuple[str, str], Collection] = {}
    staged: set[tuple[str, str]] = set()
    for collection in live:
        work = _WORK.fullmatch(collection.name)
        if work is None:
            named[collection.name] = collection
        elif work["kind"] == "m":
            staged.add((work["name"], work["run"]))
        else:
            replaced[work["name"], work["run"]] = collection
            if work["run"] == _REPLACED:
                staged.add((work["name"], work["run"]))
    for name, run in sorted(staged & replaced.keys(), reverse=True):
        named.setdefault(name, replaced[name, run].model_copy(update={"name": name}))
    return named


def present(client: ChromaClient, name: str) -> Collection:
    """The collection that is meant by the name at this moment; chromadb's NotFoundError when there is none.

    Between the two renames of a swap that is the old one, for writers as for searchers. So a swap that was cut off
    there costs nothing, whenever somebody sees to it.
    """
    # a rebuild's by its name, which is always the same; the list of all collections may be long
    for asked in (name, replaced_name(name)):
        try:
            return client.get(asked)
        except Exception as error:
            if not is_not_found(error):
                raise
    # the name once more, because the second rename may have come in between
    return by_name(client.collections()).get(name) or client.get(name)


def present_or_new(client: ChromaClient, name: str) -> Collection:
    """The same; made when there is none."""
    try:
        return present(client, name)
    except Exception as error:
        if not is_not_found(error):
            raise
        return client.get_or_create(name)


Listing = Callable[[], list[Collection]]


class Resolver:
    """The collections by name, at most `ttl` seconds old. Safe to share between threads."""

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._known: Mapping[str, Collection] = {}
        self._generation = 0
        self._expires = float("-inf")

    def known(self, ask: Listing) -> Mapping[str, Collection]:
        """Every collection but the work collections of migrations; `ask` lists all when time is up."""
        if self._clock() >= self._expires:
            return self.refreshed(ask)
        return self._known

    def refreshed(self, ask: Listing) -> Mapping[str, Collection]:
        """The same, asked for now. Threads that want this at once share one answer."""
        seen = self._generation
        with self._lock:
            if self._generation == seen:
                asked = self._clock()
                self._known = by_name(ask())
                self._expires = asked + self._ttl
                self._generation += 1
            return self._known
