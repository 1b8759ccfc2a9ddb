"""The bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.core.chroma.hits import Hit

MAX_QUERY_CHARACTERS = 8192
MAX_LIMIT = 100
MAX_NAMES = 64


def _with_words(text: str) -> str:
    if not text.strip():
        raise ValueError("the query is blank")
    return text


Query = Annotated[
    str,
    Field(min_length=1, max_length=MAX_QUERY_CHARACTERS, description="What to look for.", examples=["rain"]),
    AfterValidator(_with_words),
]
Limit = Annotated[int, Field(strict=True, ge=1, le=MAX_LIMIT, description="How many results at most.")]
Where = Annotated[
    dict[str, Any] | None,
    Field(description="A filter on metadata, in Chroma's form.", examples=[{"language": "en"}]),
]
Names = Annotated[
    list[Annotated[str, Field(max_length=512)]] | None,
    Field(min_length=1, max_length=MAX_NAMES, description="Collections to search; all served ones without."),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MemorySearch(_Request):
    """A search of the semantic memory."""

    query: Query
    limit: Limit = 5
    where: Where = None


class RagQuery(_Request):
    """A question to the retriever."""

    query: Query
    limit: Limit = 5
    collections: Names = None
    where: Where = None


class SearchResult(BaseModel):
    """One record that was found."""

    id: str
    collection: str
    document: str | None
    metadata: dict[str, Any] | None
    distance: float = Field(description="Chroma's distance in the collection's metric.")
    metric: str = Field(description="cosine, l2 (squared) or ip.", examples=["cosine"])
    score: float = Field(
        description="Similarity, greater is nearer: 1 - distance for cosine and ip, 1 / (1 + distance) for l2."
    )


class SearchResponse(BaseModel):
    """What a search found, nearest first."""

    results: list[SearchResult]
    took_ms: float

    @classmethod
    def of(cls, hits: list[Hit], seconds: float) -> SearchResponse:
        """The response for these hits."""
        results = [
            SearchResult(
                id=hit.id,
                collection=hit.collection,
                document=hit.document,
                metadata=dict(hit.metadata) if hit.metadata is not None else None,
                distance=hit.distance,
                metric=hit.metric,
                score=hit.score,
            )
            for hit in hits
        ]
        return cls(results=results, took_ms=round(seconds * 1000, 3))


class Health(BaseModel):
    """The process is up."""

    status: str = "healthy"
    service: str
    version: str
    embedding_provider: str


class ChromaHealth(BaseModel):
    """Chroma answers, and this is what it serves."""

    status: Literal["healthy", "degraded"] = Field(description="degraded: a configured collection is missing.")
    mode: str
    document_count: int = Field(description="Records in the served collections together.")
    collections: dict[str, int] = Field(description="Records by collection.")
    missing: list[str] = Field(description="Names in RAG_COLLECTIONS that Chroma does not have.")
    latency_ms: float = Field(description="How long the listing of the collections took.")
