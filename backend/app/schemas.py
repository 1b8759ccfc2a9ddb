"""The bodies of requests and responses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query as Query_
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

from app.core.errors import InvalidCursor
from app.core.found import Found
from app.core.memory.record import CREATED, Record

MAX_QUERY_CHARACTERS = 8192
MAX_LIMIT = 100
MAX_NAMES = 64
MAX_PAGE = 200
MAX_CONTENT_CHARACTERS = 262_144
MAX_VALUE_CHARACTERS = 8192
MAX_KEYS = 64


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


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("there is a NUL character, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("there is a lone surrogate, which is not a character") from None
    return text


def _content(text: str) -> str:
    if not text.strip():
        raise ValueError("the content is blank")
    return text


def _key(key: str) -> str:
    if key.startswith(("chroma:", "#", "$")) or key == CREATED:
        raise ValueError(f"{key} is a name that the index keeps for itself")
    return key


Text = Annotated[str, AfterValidator(_storable)]
Integer = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Scalar = Annotated[StrictBool, Field()] | Integer | Number | Annotated[Text, Field(max_length=MAX_VALUE_CHARACTERS)]
Content = Annotated[
    Text,
    Field(min_length=1, max_length=MAX_CONTENT_CHARACTERS, description="The text.", examples=["Rain on Tuesday."]),
    AfterValidator(_content),
]
Metadata = Annotated[
    dict[Annotated[Text, Field(min_length=1, max_length=128), AfterValidator(_key)], Scalar],
    Field(max_length=MAX_KEYS, description="Fields to filter by.", examples=[{"task": "weather", "priority": 2}]),
]
PageLimit = Annotated[int, Query_(ge=1, le=MAX_PAGE, description="How many at most.")]


class NewMemory(_Request):
    """Something to remember."""

    content: Content
    metadata: Metadata = {}

    def raw_data(self) -> dict[str, Any]:
        """As it is stored."""
        return {"content": self.content, "metadata": self.metadata}


class MemoryChange(_Request):
    """What is to be different; at least one of both."""

    content: Content | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.content is None and self.metadata is None:
            raise ValueError("nothing is to be changed; send content, metadata or both")
        return self

    def raw_data(self) -> dict[str, Any]:
        """The parts of the stored record that are replaced."""
        parts = {"content": self.content, "metadata": self.metadata}
        return {name: part for name, part in parts.items() if part is not None}


class Memory(BaseModel):
    """A memory as it is stored."""

    id: int
    content: str
    metadata: dict[str, Any]
    revision: int = Field(description="1, and one more with each change.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: Record) -> Memory:
        """The memory of this record."""
        return cls(
            id=record.id,
            content=record.raw_data["content"],
            metadata=record.raw_data.get("metadata", {}),
            revision=record.revision,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class MemoryPage(BaseModel):
    """Some memories, newest first."""

    memories: list[Memory]
    next: str | None = Field(description="The cursor of the next page; null on the last.")

    @classmethod
    def of(cls, records: list[Record], limit: int) -> MemoryPage:
        """The page of at most `limit` records; one more than that tells that there is another page."""
        more = len(records) > limit
        shown = records[:limit]
        return cls(memories=[Memory.of(record) for record in shown], next=str(shown[-1].id) if more else None)

    @staticmethod
    def position(cursor: str) -> int:
        """The id that a page's cursor stands for; InvalidCursor."""
        if not (cursor.isascii() and cursor.isdecimal() and 0 < int(cursor) < 2**63):
            raise InvalidCursor
        return int(cursor)


class NewDocument(_Request):
    """A text to be found passage by passage."""

    content: Content
    source: Annotated[Text, Field(min_length=1, max_length=512, description="Where it is from.")]
    metadata: Metadata = {}


class Document(BaseModel):
    """A document that was taken."""

    id: UUID
    source: str
    passages: int


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
    degraded: bool = Field(description="Chroma could not be asked; the results are PostgreSQL's, exact but slower.")
    took_ms: float

    @classmethod
    def of(cls, found: Found, seconds: float) -> SearchResponse:
        """The response for what was found."""
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
            for hit in found.hits
        ]
        return cls(results=results, degraded=found.degraded, took_ms=round(seconds * 1000, 3))


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
