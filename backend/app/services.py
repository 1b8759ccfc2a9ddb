"""What the routes need, made once for an application and handed to them."""

from __future__ import annotations

import asyncio
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import URL

from app.config import Settings
from app.core.chroma.stores import ChromaStores
from app.core.chroma.writer import IndexWriter
from app.core.database.database import Database
from app.core.embedding import EmbeddingProvider, make_provider
from app.core.index.indexer import Indexer
from app.core.index.progress import Progress
from app.core.index.tombstones import Tombstones
from app.core.index.wakeup import Wakeup
from app.core.index.worker import Worker
from app.core.keys.doorkeeper import Doorkeeper
from app.core.keys.repository import KeyRepository
from app.core.memory.nearest import Nearest
from app.core.memory.repository import Memories
from app.core.memory.semantic_memory import SemanticMemory
from app.core.memory.tenant import Kind
from app.core.rag.documents import Documents
from app.core.rag.retriever import Retriever
from app.core.rag.splitter import Splitter
from app.limits import Threads
from app.metrics import Metrics
from app.metrics_backlog import BacklogWatch
from app.readiness import Readiness

HEALTH_THREADS = 2
SPLITTING_THREADS = 2


class AppServices:
    """Memory, retriever and what they share. Make it inside the event loop; connects to nothing by itself."""

    def __init__(
        self, settings: Settings, url: URL, stores: ChromaStores | None = None, metrics: Metrics | None = None
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        # set when the schema is known to be ours: the index worker begins then
        self.fits = asyncio.Event()
        self.embedder: EmbeddingProvider = make_provider(settings)
        self.database = Database(url, settings.database_pool_size, settings.database_timeout_seconds)
        self._databases = [self.database]
        self.backlog = BacklogWatch(url)
        self.doorkeeper = Doorkeeper(
            KeyRepository(self.database), settings.api_key_cache_seconds, refused=self.metrics.refused
        )
        self.memories = Memories(self.database, "memory")
        self.passages = Memories(self.database, "passage")
        self.documents = Documents(self.database)
        self.splitter = Splitter(settings.rag_passage_characters, settings.rag_passage_overlap)
        self.stores = stores or ChromaStores(settings)
        self._watch_stores()
        self.threads = Threads(settings.chroma_threads)
        self.splitting = Threads(SPLITTING_THREADS)
        self.semantic_memory = SemanticMemory(
            self.stores.memory, self.embedder, self.threads, self._substitute("memory"), self._patience
        )
        self.retriever = Retriever(
            self.stores.rag,
            self.embedder,
            settings.rag_collections,
            self.threads,
            self._substitute("passage"),
            self._patience,
        )
        # of its own, so that health is told also when every search waits
        self.health_threads = Threads(HEALTH_THREADS)
        self.readiness = Readiness(
            self.database,
            settings.embedding_dimension,
            self.fits,
            {self.stores.memory.session, self.stores.rag.session},
            self.health_threads,
            needs_chroma=not settings.search_degraded,
        )

    def worker(self) -> Worker:
        """An index worker on these stores."""
        settings = self.settings
        writers: dict[Kind, IndexWriter] = {
            "memory": IndexWriter(self.stores.memory.session),
            "passage": IndexWriter(self.stores.rag.session),
        }
        # of its own, so that indexing and requests do not wait for each other: a batch holds two connections at most
        connections = 2 * settings.index_concurrency + 1
        database = Database(self.database.url, connections, settings.database_timeout_seconds)
        self._databases.append(database)
        indexer = Indexer(database, writers, self.embedder, settings.index_batch_size, settings.index_max_attempts)
        return Worker(
            indexer,
            Wakeup(database.url),
            Progress(database),
            Tombstones(database, settings.index_tombstone_days),
            settings.index_concurrency,
            settings.index_poll_seconds,
            self.fits,
            self.metrics.index.batch,
        )

    def _substitute(self, kind: Kind) -> Nearest | None:
        return Nearest(self.database, kind, self.embedder.model) if self.settings.search_degraded else None

    @property
    def _patience(self) -> float | None:
        return self.settings.search_timeout_seconds if self.settings.search_degraded else None

    async def close(self) -> None:
        """Let go of everything."""
        for database in self._databases:
            await database.close()
        self.stores.close()
        self.embedder.close()

    def _watch_stores(self) -> None:
        sessions = {"memory": self.stores.memory.session, "passages": self.stores.rag.session}
        if sessions["memory"] is sessions["passages"]:
            sessions = {"chroma": sessions["memory"]}
        for name, session in sessions.items():
            session.called = self.metrics.chroma(name)


async def _services(request: Request) -> AppServices:
    return cast(AppServices, request.app.state.services)


Services = Annotated[AppServices, Depends(_services)]
