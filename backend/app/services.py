"""What the routes need, made once for an application and handed to them."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from app.config import Settings
from app.core.chroma.store import Probe
from app.core.chroma.stores import ChromaStores
from app.core.embedding import EmbeddingProvider, make_provider
from app.core.memory.semantic_memory import SemanticMemory
from app.core.rag.retriever import Retriever
from app.limits import Threads

HEALTH_THREADS = 2


class AppServices:
    """Memory, retriever and what they share. Make it inside the event loop; connects to nothing by itself."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.embedder: EmbeddingProvider = make_provider(settings)
        self.stores = ChromaStores(settings)
        self.memory = SemanticMemory(self.stores.memory, self.embedder, settings.memory_collection)
        self.retriever = Retriever(self.stores.rag, self.embedder, settings.rag_collections, settings.memory_collection)
        self.threads = Threads(settings.chroma_threads)
        # of its own, so that health is told also when every search waits
        self.health_threads = Threads(HEALTH_THREADS)

    def probe(self) -> Probe:
        """Counts of the memory and of the served collections; the slower store's latency."""
        memory = self.settings.memory_collection
        if self.stores.memory is self.stores.rag:
            return self.stores.rag.probe(lambda name: name == memory or self.retriever.serves(name))
        remembered = self.stores.memory.probe(lambda name: name == memory)
        served = self.stores.rag.probe(self.retriever.serves)
        return Probe(remembered.counts | served.counts, max(remembered.latency_seconds, served.latency_seconds))


def _services(request: Request) -> AppServices:
    return cast(AppServices, request.app.state.services)


Services = Annotated[AppServices, Depends(_services)]
