"""Whether the service is up, whether it can serve, and whether Chroma is there. None of it needs a key."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app import SERVICE, VERSION
from app.core.memory.tenant import is_tenant_collection
from app.problems import CHROMA, DATABASE, responses
from app.services import AppServices, Services

router = APIRouter(tags=["health"])

# Counting takes Chroma a request a collection, and everybody may ask for it.
MAX_COUNTED_TENANTS = 100


class Health(BaseModel):
    """The process is up."""

    status: str = "healthy"
    service: str = Field(examples=[SERVICE])
    version: str = Field(examples=[VERSION])
    embedding_provider: str = Field(examples=["hashing"])


class Ready(BaseModel):
    """The process can serve."""

    status: Literal["ready", "degraded"] = Field(description="degraded: Chroma is down, PostgreSQL answers searches.")
    database: Literal["up"] = "up"
    chroma: Literal["up", "down"]
    detail: str | None = Field(description="What is wrong with Chroma; null when nothing is.", examples=[None])


class ChromaHealth(BaseModel):
    """Chroma answers, and this is what it has."""

    status: Literal["healthy", "degraded"] = Field(description="degraded: a configured collection is missing.")
    mode: str = Field(examples=["http"])
    document_count: int | None = Field(
        description=f"Records of shared and tenants' collections together; null with more than {MAX_COUNTED_TENANTS} "
        "of the latter.",
        examples=[9832],
    )
    collections: dict[str, int] = Field(description="Records by shared collection.", examples=[{"sergio_corpus": 3442}])
    tenant_collections: int = Field(description="How many collections tenants have.", examples=[12])
    missing: list[str] = Field(description="Names in RAG_COLLECTIONS that Chroma does not have.", examples=[[]])
    latency_ms: float = Field(description="How long the listing of the collections took.", examples=[3.1])


@router.get("/health")
async def health(services: Services) -> Health:
    """The process answers; asks nobody else."""
    return Health(service=SERVICE, version=VERSION, embedding_provider=services.embedder.name)


@router.get("/health/ready", responses=responses(*DATABASE, *CHROMA))
async def ready(services: Services) -> Ready:
    """PostgreSQL answers and its schema is the one of this version; 503 and why when not.

    Chroma is reported, and needed only where SEARCH_DEGRADED is false.
    """
    trouble = await services.readiness.look()
    if trouble is None:
        return Ready(status="ready", chroma="up", detail=None)
    return Ready(status="degraded", chroma="down", detail=str(trouble))


@router.get("/health/chromadb", responses=responses(*CHROMA, "overloaded"))
async def chroma_health(services: Services) -> ChromaHealth:
    """Chroma answers and its collections can be counted; 503 and why when not."""
    return await services.health_threads.run(lambda: _look(services))


def _look(services: AppServices) -> ChromaHealth:
    retriever, rag = services.retriever, services.stores.rag
    started = time.perf_counter()
    listed = {store: store.listed() for store in {services.stores.memory, rag}}
    latency = time.perf_counter() - started
    # names of tenants' collections are nobody else's business, and this route needs no key
    of_tenants = {
        store: [one for name, one in live.items() if is_tenant_collection(name)] for store, live in listed.items()
    }
    tenants = sum(map(len, of_tenants.values()))
    shared = rag.counts(one for name, one in listed[rag].items() if retriever.serves(name))
    total = None
    if tenants <= MAX_COUNTED_TENANTS:
        total = sum(shared.values()) + sum(sum(store.counts(ones).values()) for store, ones in of_tenants.items())
    missing = retriever.missing(listed[rag])
    return ChromaHealth(
        status="degraded" if missing else "healthy",
        mode=services.settings.chroma_mode,
        document_count=total,
        collections=shared,
        tenant_collections=tenants,
        missing=missing,
        latency_ms=round(latency * 1000, 3),
    )
