"""From a collection's name to the collection that has it now.

Chroma resolves a name to an id once and from then on knows only the id. A migration swaps collections by
renaming (`x` becomes `x--before-RUN`, then `x--mRUN` becomes `x`), and the old id goes on answering. So a
name is resolved again on a short clock, and at once when the id is gone (app.core.chroma.known).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from chromadb.types import Collection

from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import is_not_found

# Same pattern as chromactl.stores.names, which makes these names; a test holds the two together.
_WORK = re.compile(r"(?P<name>.*)--(?P<kind>m|before-)(?P<run>\d{8}T\d{6}-[0-9a-f]{6})")
# Chroma's own rule, without which a name of input would be a path of its API.
_POSSIBLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]", re.ASCII)
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


def may_be_searched(name: str) -> bool:
    """Whether a collection can have this name and is not a work collection."""
    return _POSSIBLE.fullmatch(name) is not None and not is_work_collection(name)


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


def called(client: ChromaClient, name: str) -> Collection | None:
    """The collection that has the name, or that a rebuild has taken it from a moment ago; asked by name alone."""
    for asked in (name, replaced_name(name)):
        try:
            # without the schema, which nobody here looks at and which is most of what would be kept
            return client.get(asked).model_copy(update={"name": name, "serialized_schema": None})
        except Exception as error:
            if not is_not_found(error):
                raise
    return None


def present(client: ChromaClient, name: str) -> Collection:
    """The collection that is meant by the name at this moment; chromadb's NotFoundError when there is none.

    Between the two renames of a swap that is the old one, for writers as for searchers. So a swap that was cut off
    there costs nothing, whenever somebody sees to it.
    """
    # by name first: the list of all collections may be long
    found = called(client, name) or by_name(client.collections()).get(name)
    # the name once more, because the second rename may have come in between
    return found or client.get(name)


def present_or_new(client: ChromaClient, name: str) -> Collection:
    """The same; made when there is none."""
    try:
        return present(client, name)
    except Exception as error:
        if not is_not_found(error):
            raise
        return client.get_or_create(name)
