"""Whether the service is up, and whether Chroma is."""

from __future__ import annotations

from fastapi import APIRouter

from app import SERVICE, VERSION
from app.problems import responses
from app.schemas import ChromaHealth, Health
from app.services import Services

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(services: Services) -> Health:
    """The process answers; asks nobody else."""
    return Health(service=SERVICE, version=VERSION, embedding_provider=services.embedder.name)


@router.get("/health/chromadb", responses=responses(503))
async def chroma_health(services: Services) -> ChromaHealth:
    """Chroma answers and its served collections can be counted; 503 and why when not."""
    probe = await services.health_threads.run(services.probe)
    missing = services.retriever.missing(probe.counts)
    return ChromaHealth(
        status="degraded" if missing else "healthy",
        mode=services.settings.chroma_mode,
        document_count=sum(probe.counts.values()),
        # names of tenants' collections are nobody else's business, and this route needs no key
        collections={name: count for name, count in probe.counts.items() if services.retriever.serves(name)},
        missing=missing,
        latency_ms=round(probe.latency_seconds * 1000, 3),
    )
