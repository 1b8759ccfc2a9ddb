"""What a rebuild and a verification work with: both databases, opened for somebody who has time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy import URL

from app.config import Settings
from app.core.chroma.bulk import Patient
from app.core.chroma.stores import ChromaStores
from app.core.database.direct import Connection, connected, explained
from app.core.database.upgrade import check
from app.core.embedding import EmbeddingProvider, make_provider
from app.core.errors import StartupError
from app.core.flow import Stop
from app.core.index.rebuild_source import Part, Source
from app.core.index.rebuild_target import Leftovers, Target
from app.core.memory.tenant import Kind

# A batch of two thousand is more than what the service's own deadline is made for.
CHROMA_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Site:
    """PostgreSQL, and the Chroma of each kind of records, which may be one and the same."""

    settings: Settings
    url: URL
    connection: Connection
    embedder: EmbeddingProvider
    source: Source
    chroma: Mapping[Kind, Patient]
    stop: Stop

    def targets(self, run: str) -> dict[Kind, Target]:
        """Each Chroma, as a run changes it."""
        seconds = self.settings.chroma_resolve_seconds
        made = {chroma: Target(chroma, run, seconds, self.stop) for chroma in self.chroma.values()}
        return {kind: made[chroma] for kind, chroma in self.chroma.items()}

    def choose(self, user: str | None, project: str | None, kind: str | None) -> Chosen:
        """The parts that are meant. Raises StartupError when there are none of this user or project."""
        every = self.source.parts()
        chosen = [
            part
            for part in every
            if user in (None, part.tenant.user_id)
            and project in (None, part.tenant.project_id)
            and kind in (None, part.kind)
        ]
        if not chosen and (user or project):
            raise StartupError(
                f"PostgreSQL knows no tenant {user or '*'}/{project or '*'}.", hint="Correct --user and --project."
            )
        known = {part.collection for part in every}
        whole = (user, project, kind) == (None, None, None)
        return Chosen(chosen, known, None if whole else {part.collection for part in chosen})


@dataclass(frozen=True, slots=True)
class Chosen:
    """Parts; the names of all collections that PostgreSQL tells of, and of the chosen ones where not all are meant."""

    parts: Sequence[Part]
    known: set[str]
    wanted: set[str] | None

    def leftovers(self, targets: Mapping[Kind, Target]) -> dict[Target, Leftovers]:
        """What earlier runs left of these, by the Chroma that it is in."""
        return {target: target.leftovers(self.known, self.wanted) for target in dict.fromkeys(targets.values())}


@contextmanager
def open_site(settings: Settings, url: URL, stop: Stop, patience: float) -> Iterator[Site]:
    """Take what is needed; a Chroma may be away for `patience` seconds.

    Raises StartupError, DirectoryLocked, DatabaseUnavailable.
    """
    deadline = max(settings.chroma_timeout_seconds, CHROMA_SECONDS)
    stores = ChromaStores(settings.model_copy(update={"chroma_timeout_seconds": deadline}))
    embedder = make_provider(settings)
    with ExitStack() as stack:
        stack.callback(stores.close)
        stores.open()
        check(url, settings.embedding_dimension)
        stack.enter_context(explained())
        connection = stack.enter_context(connected(url, "index"))
        sessions = {store: Patient(store.session, stop.pause, patience) for store in (stores.memory, stores.rag)}
        chroma: dict[Kind, Patient] = {"memory": sessions[stores.memory], "passage": sessions[stores.rag]}
        source = Source(connection, embedder.model, settings.embedding_dimension)
        yield Site(settings, url, connection, embedder, source, chroma, stop)
