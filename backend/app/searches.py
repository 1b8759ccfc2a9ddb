"""The bodies of searches: what is asked, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.core.found import Found, Match
from app.core.rag.retriever import Question
from app.schemas import Request

MAX_QUERY_CHARACTERS = 8192
MAX_LIMIT = 100
MAX_NAMES = 64
MAX_NAME_CHARACTERS = 512

NOTE = "Chroma cannot be asked at the moment: of the passages only your own were searched."


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
    Field(
        description="A filter on metadata, in Chroma's form: `{field: value}`, `{field: {operator: value}}` with $eq, "
        "$ne, $gt, $gte, $lt, $lte, $in, $nin, $contains or $not_contains, and `{$and: [filter, …]}`, `{$or: …}`. "
        "Of your own records `created_at` (seconds since 1970) is a field as well, and of passages `source`, "
        "`document_id` and `passage`.",
        examples=[{"language": "en"}],
    ),
]
Names = Annotated[
    list[Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)]] | None,
    Field(max_length=MAX_NAMES, description="Shared collections to search; all of them without, none if empty."),
]


class MemorySearch(Request):
    """A search of the semantic memory."""

    query: Query
    limit: Limit = 5
    where: Where = None


class RagQuery(Request):
    """A question to the retriever."""

    query: Query
    limit: Limit = 5
    collections: Names = None
    own: Annotated[
        bool | None,
        Field(
            strict=True, description="Whether your own documents are searched: by default unless collections are named."
        ),
    ] = None
    where: Where = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.collections == [] and not self.own:
            raise ValueError("nothing is to be searched; name collections, or set own to true")
        return self

    def question(self) -> Question:
        """As the retriever takes it."""
        own = self.collections is None if self.own is None else self.own
        return Question(self.query, self.limit, self.collections, own, self.where)


class _Result(BaseModel):
    content: str | None = Field(description="The text.")
    metadata: dict[str, Any] = Field(description="As it was given, without what the service wrote beside it.")
    distance: float = Field(description="In the metric; smaller is nearer.")
    metric: str = Field(description="cosine, l2 (squared) or ip.", examples=["cosine"])
    score: float = Field(
        description="Similarity, greater is nearer: 1 - distance for cosine and ip, 1 / (1 + distance) for l2."
    )


class MemoryResult(_Result):
    """A memory that was found."""

    memory_id: int = Field(description="For `GET /memories/{memory_id}`.")
    created_at: datetime | None = Field(description="To the second.")

    @classmethod
    def of(cls, match: Match) -> MemoryResult:
        """The result for this match."""
        return cls(memory_id=int(match.id), created_at=match.created_at, **_common(match))


class PassageResult(_Result):
    """A passage that was found, of your own documents or of a shared collection."""

    id: str = Field(description="The record's id in its collection.")
    collection: str | None = Field(description="The shared collection; null for a passage of your own documents.")
    source: str | None = Field(description="Where it is from, as far as that is known.")
    document_id: UUID | None = Field(description="For `GET /rag/documents/{document_id}`; null in shared collections.")
    passage: int | None = Field(description="Which of the document's passages, from 0; null in shared collections.")
    created_at: datetime | None = Field(description="To the second; null in shared collections.")

    @classmethod
    def of(cls, match: Match) -> PassageResult:
        """The result for this match."""
        return cls(
            id=match.id,
            collection=match.collection,
            source=match.source,
            document_id=match.document_id,
            passage=match.passage,
            created_at=match.created_at,
            **_common(match),
        )


def _common(match: Match) -> dict[str, Any]:
    return {
        "content": match.content,
        "metadata": dict(match.metadata),
        "distance": match.distance,
        "metric": match.metric,
        "score": match.score,
    }


class _Answer(BaseModel):
    degraded: bool = Field(description="Chroma could not be asked; the results are PostgreSQL's, exact but slower.")
    took_ms: float


_NEARNESS: Mapping[str, Any] = {"distance": 0.38, "metric": "cosine", "score": 0.62}
_OF_MEMORY = {
    "memory_id": 42,
    "content": "Rain on Tuesday.",
    "metadata": {"task": "weather", "priority": 2},
    "created_at": "2026-11-20T10:15:00Z",
    **_NEARNESS,
}
_OF_PASSAGE = {
    "id": "118",
    "collection": None,
    "content": "Rain on Tuesday, and again on Friday.",
    "metadata": {"language": "en"},
    "source": "almanac.md",
    "document_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "passage": 3,
    "created_at": "2026-11-20T10:15:00Z",
    **_NEARNESS,
}


class MemoryAnswer(_Answer):
    """The memories that were found, nearest first."""

    results: list[MemoryResult]

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [_OF_MEMORY], "degraded": False, "took_ms": 4.2}]}
    )

    @classmethod
    def of(cls, found: Found, seconds: float) -> MemoryAnswer:
        """The answer for what was found."""
        results = [MemoryResult.of(match) for match in found.matches]
        return cls(results=results, degraded=found.degraded, took_ms=round(seconds * 1000, 3))


class RagAnswer(_Answer):
    """The passages that were found, nearest first."""

    results: list[PassageResult]
    note: str | None = Field(description="What was left out, and why; null when nothing was.")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [_OF_PASSAGE], "degraded": False, "note": None, "took_ms": 6.1}]}
    )

    @classmethod
    def of(cls, found: Found, seconds: float) -> RagAnswer:
        """The answer for what was found."""
        results = [PassageResult.of(match) for match in found.matches]
        note = NOTE if found.partial else None
        return cls(results=results, degraded=found.degraded, note=note, took_ms=round(seconds * 1000, 3))
