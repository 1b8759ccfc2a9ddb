"""The bodies of requests and responses about memories and documents."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Query as Query_
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic.json_schema import SkipJsonSchema

from app.core.errors import InvalidCursor
from app.core.memory.record import CREATED, OF_PASSAGES, Record, of_caller
from app.core.rag.documents import Summary

MAX_PAGE = 200
MAX_CONTENT_CHARACTERS = 262_144
MAX_SOURCE_CHARACTERS = 512
MAX_KEY_CHARACTERS = 128
MAX_VALUE_CHARACTERS = 8192
MAX_KEYS = 64
MAX_CURSOR_CHARACTERS = 64

_INT64 = range(-(2**63), 2**63)


class Request(BaseModel):
    """A body: a field that it does not know is a mistake, not something to be ignored."""

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
        raise ValueError("the index keeps this name for itself, as it does chroma:…, #…, $… and created_at")
    return key


def _scalar(value: Any) -> Any:
    # not a union of types: an integer beyond 64 bits would pass as a float
    if value is None:
        raise ValueError("null is no value; leave the key out")
    if isinstance(value, str):
        if len(value) > MAX_VALUE_CHARACTERS:
            raise ValueError(f"a text may have at most {MAX_VALUE_CHARACTERS} characters")
        return _storable(value)
    if not isinstance(value, (bool, int, float)):
        raise ValueError("a value is a text, a number, true or false")
    if isinstance(value, int) and value not in _INT64:
        raise ValueError("an integer may have at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number has to be finite")
    return value


_SCALAR_SCHEMA = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_VALUE_CHARACTERS},
        {"type": "integer", "minimum": _INT64.start, "maximum": _INT64.stop - 1},
        {"type": "number"},
        {"type": "boolean"},
    ]
}

Text = Annotated[str, AfterValidator(_storable)]
Scalar = Annotated[Any, PlainValidator(_scalar), WithJsonSchema(_SCALAR_SCHEMA)]
Key = Annotated[Text, Field(min_length=1, max_length=MAX_KEY_CHARACTERS), AfterValidator(_key)]
Content = Annotated[
    Text,
    Field(min_length=1, max_length=MAX_CONTENT_CHARACTERS, description="The text.", examples=["Rain on Tuesday."]),
    AfterValidator(_content),
]
Metadata = Annotated[
    dict[Key, Scalar],
    Field(
        max_length=MAX_KEYS,
        description="Fields to filter by: texts, numbers, true or false. The names `created_at`, `chroma:…`, `#…` and "
        "`$…` are taken.",
        examples=[{"task": "weather", "priority": 2}],
    ),
]
PageLimit = Annotated[int, Query_(ge=1, le=MAX_PAGE, description="How many at most.", examples=[50])]
Cursor = Annotated[
    str | None,
    Query_(
        max_length=MAX_CURSOR_CHARACTERS,
        description="`next` of the page before; the first page without.",
        json_schema_extra={"pattern": "^[1-9][0-9]{0,18}$"},
    ),
]


def position(cursor: str | None) -> int | None:
    """The place in a list that a page's cursor stands for; InvalidCursor."""
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and 0 < int(cursor) < 2**63):
        raise InvalidCursor
    return int(cursor)


class NewMemory(Request):
    """Something to remember."""

    content: Content
    metadata: Metadata = {}

    def raw_data(self) -> dict[str, Any]:
        """As it is stored."""
        return {"content": self.content, "metadata": self.metadata}


class MemoryChange(Request):
    """What is to be different; at least one of both."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    content: Content | SkipJsonSchema[None] = None
    metadata: Metadata | SkipJsonSchema[None] = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing is to be changed; send content, metadata or both")
        if nulls := [name for name in sorted(self.model_fields_set) if getattr(self, name) is None]:
            raise ValueError(f"{' and '.join(nulls)}: null is no value; leave it out and it stays as it is")
        return self

    def raw_data(self) -> dict[str, Any]:
        """The parts of the stored record that are replaced."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Memory(BaseModel):
    """A memory as it is stored."""

    id: int
    content: str
    metadata: dict[str, Any]
    revision: int = Field(description="1, and one more with each change.")
    created_at: datetime
    updated_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 42,
                    "content": "Rain on Tuesday.",
                    "metadata": {"task": "weather", "priority": 2},
                    "revision": 1,
                    "created_at": "2026-11-20T10:15:00.123456Z",
                    "updated_at": "2026-11-20T10:15:00.123456Z",
                }
            ]
        }
    )

    @classmethod
    def of(cls, record: Record) -> Memory:
        """The memory of this record."""
        return cls(
            id=record.id,
            # other writers may have left it out, and then it is not in the index either
            content=str(record.raw_data.get("content", "")),
            metadata=of_caller(record.raw_data, record.kind),
            revision=record.revision,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class MemoryPage(BaseModel):
    """Some memories, newest first."""

    memories: list[Memory]
    next: str | None = Field(description="The cursor of the next page; null on the last.", examples=["42"])

    @classmethod
    def of(cls, records: list[Record], limit: int) -> MemoryPage:
        """The page of at most `limit` records; one more than that tells that there is another page."""
        shown = records[:limit]
        more = len(records) > limit
        return cls(memories=[Memory.of(record) for record in shown], next=str(shown[-1].id) if more else None)


class NewDocument(Request):
    """A text to be found passage by passage."""

    content: Content
    source: Annotated[
        Text,
        Field(min_length=1, max_length=MAX_SOURCE_CHARACTERS, description="Where it is from.", examples=["almanac.md"]),
    ]
    metadata: Annotated[
        Metadata, Field(description=f"The same for each passage. {', '.join(OF_PASSAGES)} are taken as well.")
    ] = {}

    @model_validator(mode="after")
    def _keeps_apart(self) -> Self:
        if taken := sorted(self.metadata.keys() & set(OF_PASSAGES)):
            raise ValueError(f"metadata: the service writes {', '.join(taken)} for each passage; choose another name")
        return self


class Document(BaseModel):
    """A document: how many passages it is, and what was said of it."""

    id: UUID
    source: str
    metadata: dict[str, Any]
    passages: int = Field(description="How many.")
    created_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                    "source": "almanac.md",
                    "metadata": {"language": "en"},
                    "passages": 12,
                    "created_at": "2026-11-20T10:15:00.123456Z",
                }
            ]
        }
    )

    @classmethod
    def of(cls, summary: Summary) -> Document:
        """The document of this summary."""
        return cls(
            id=summary.id,
            source=summary.source,
            metadata=dict(summary.metadata),
            passages=summary.passages,
            created_at=summary.created_at,
        )


class WholeDocument(Document):
    """A document with the texts of its passages, in order. Neighbours may overlap."""

    texts: list[str]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                    "source": "almanac.md",
                    "metadata": {"language": "en"},
                    "passages": 1,
                    "created_at": "2026-11-20T10:15:00.123456Z",
                    "texts": ["Rain on Tuesday, and again on Friday."],
                }
            ]
        }
    )

    @classmethod
    def whole(cls, summary: Summary, texts: list[str]) -> WholeDocument:
        """The document of this summary and these texts."""
        return cls(**Document.of(summary).model_dump(), texts=texts)


class DocumentPage(BaseModel):
    """Some documents, newest first."""

    documents: list[Document]
    next: str | None = Field(description="The cursor of the next page; null on the last.", examples=["42"])

    @classmethod
    def of(cls, summaries: list[Summary], limit: int) -> DocumentPage:
        """The page of at most `limit` documents; one more than that tells that there is another page."""
        shown = summaries[:limit]
        more = len(summaries) > limit
        return cls(documents=[Document.of(one) for one in shown], next=str(shown[-1].position) if more else None)
