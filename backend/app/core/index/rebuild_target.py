"""The collections of a rebuild: made beside the live ones, put in their place by two renames, and cleared away.

A collection that a rebuild makes carries the run in its metadata, and what it replaces gets a name that only rebuilds
give. So whatever a run left behind, killed at any moment, is known for what it is. The work collections of other
programs (chromactl's migrations name theirs alike) are left alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from chromadb.types import Collection

from app.core.chroma.bulk import Bulk, Patient
from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import is_not_found
from app.core.chroma.resolver import by_name, replaced_name, staged_name, work_of
from app.core.errors import RebuildFailed, ServiceError, StartupError, UnknownCollection
from app.core.flow import Stop
from app.core.memory.tenant import is_tenant_collection

log = logging.getLogger(__name__)

RUN = "rebuild"
# Beyond the searchers' own clock: for a search that has just been given the old collection's id.
GRACE_SECONDS = 2.0
_OLD_NAMES = 63
_KEPT_SETTINGS = ("ef_construction", "ef_search", "max_neighbors", "resize_factor", "sync_threshold")


@dataclass(slots=True)
class Leftovers:
    """What earlier runs left, by what is to be done with it. Names only: of others' leftovers, and of what is live."""

    restored: list[tuple[Collection, str]] = field(default_factory=list)
    staged: list[Collection] = field(default_factory=list)
    replaced: list[Collection] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    live: set[str] = field(default_factory=set)

    @property
    def ours(self) -> list[str]:
        """The names of what is to be cleared away."""
        return [model.name for model in (*(model for model, _ in self.restored), *self.staged, *self.replaced)]

    def __len__(self) -> int:
        return len(self.restored) + len(self.staged) + len(self.replaced)


class Target:
    """One Chroma, as a rebuild changes it. Searchers may go on asking a replaced collection for `seconds`."""

    def __init__(self, chroma: Patient, run: str, seconds: float, stop: Stop) -> None:
        self.chroma = chroma
        self._run = run
        self._seconds = seconds + GRACE_SECONDS
        self._stop = stop
        self._replaced: list[tuple[float, Bulk, str]] = []

    def check(self) -> None:
        """Raise StartupError when this Chroma does not take the names of what a rebuild makes beside the live ones."""
        version = self.chroma.run(lambda client: client.version())
        if version.startswith("0."):
            raise StartupError(
                f"{self.chroma.session.target} is version {version}, which takes names of at most {_OLD_NAMES} "
                "characters, and those that a rebuild needs are longer.",
                hint="Move to Chroma 1.x (playbooks/migrate.yml), then rebuild; until then app replay writes records "
                "again, and app verify compares.",
            )

    def live(self, name: str) -> Bulk | None:
        """The collection that has the name now."""
        try:
            return Bulk(self.chroma, self.chroma.run(lambda client: client.get(name)))
        except UnknownCollection:
            return None

    def stage(self, name: str) -> Bulk:
        """A new, empty collection beside the live one, with the settings of its index."""
        live = self.live(name)
        before = live.model if live else None
        hnsw = (before.configuration_json.get("hnsw") or {}) if before else {}
        settings = {key: hnsw[key] for key in _KEPT_SETTINGS if hnsw.get(key) is not None}
        metadata = {
            key: value
            for key, value in ((before.metadata if before else None) or {}).items()
            if not key.startswith("hnsw:")
        }

        def work(client: ChromaClient) -> Collection:
            try:
                return client.get(staged_name(name, self._run))  # of a try that made it the answer was lost
            except Exception as error:
                if not is_not_found(error):
                    raise
                return client.create(staged_name(name, self._run), settings, {**metadata, RUN: self._run})

        return Bulk(self.chroma, self.chroma.run(work))

    def swap(self, staged: Bulk, name: str, alive: Callable[[], None]) -> None:
        """Put the staged collection in the place of the live one, if there is one.

        It is live with the second rename; until then, and if nobody ever comes to that, the other one is. `alive`
        raises when the gate may be open: before the second rename the first one is taken back then.
        """
        live = self.live(name)
        if live is not None:
            live.rename(replaced_name(name))
            self._replaced.append((time.monotonic() + self._seconds, live, replaced_name(name)))
        try:
            alive()
            staged.rename(name)
            if (now := self.live(name)) is None or now.model.id != staged.model.id:
                raise RebuildFailed(f"Somebody made a collection {name} while it was being replaced.")
        except BaseException:
            if live is not None:
                self._replaced.pop()
                self._take_back(live, name, staged)
            raise

    def _take_back(self, live: Bulk, name: str, staged: Bulk) -> None:
        """Give the old collection its name again, unless the new one got it after all."""
        try:
            now = self.live(name)
            if now is None or now.model.id != staged.model.id:
                live.rename(name)
        except ServiceError as error:  # the old one goes on being found, and the next run restores its name
            log.warning("%s is called %s until the next rebuild: %s", name, replaced_name(name), error)

    def sweep(self, *, wait: bool = False, told: Callable[[float], None] = lambda seconds: None) -> None:
        """Remove the replaced collections that no search can be using any more; or wait until all are."""
        while self._replaced and (wait or self._replaced[0][0] <= time.monotonic()):
            due, bulk, name = self._replaced[0]
            if (left := due - time.monotonic()) > 0:
                told(left)
                self._stop.pause(left)
            bulk.discard(name)
            self._replaced.pop(0)

    @property
    def replaced(self) -> int:
        """How many replaced collections are still there."""
        return len(self._replaced)

    def leftovers(self, known: Container[str], wanted: Container[str] | None) -> Leftovers:
        """What earlier runs left of the wanted names (None: of all); `known` are the names that PostgreSQL tells of."""
        every = {model.name: model for model in self.chroma.run(lambda client: client.collections())}
        found = Leftovers(live=set(by_name(every.values())))
        for name, model in sorted(every.items()):
            if is_tenant_collection(name) and name not in known and wanted is None:
                found.unknown.append(name)
            work = work_of(name)
            if work is None or not is_tenant_collection(work.name) or (wanted is not None and work.name not in wanted):
                continue
            if name == replaced_name(work.name):
                if work.name in every:
                    found.replaced.append(model)
                else:
                    found.restored.append((model, work.name))
            elif work.staged and (model.metadata or {}).get(RUN) == work.run:
                found.staged.append(model)
            else:
                found.foreign.append(name)
        return found

    def tidy(self, found: Leftovers) -> None:
        """Undo what earlier runs left half done, and remove the rest of them."""
        for model, name in found.restored:
            Bulk(self.chroma, model).rename(name)
        if found.replaced:  # by a run that may have ended a moment ago
            self._stop.pause(self._seconds)
        for model in (*found.replaced, *found.staged):
            Bulk(self.chroma, model).discard(model.name)
