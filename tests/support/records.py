"""Records for tests: plain ones, and those that careless tools bend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromactl.stores.base import Batch, CollectionSpec

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
FULL_PRECISION = [0.1 + 0.2, 1 / 3, 2 / 7, 1e-17 / 3, 123456789.123456789, 5e-324, 1.7976931348623157e308]


@dataclass(frozen=True, slots=True)
class Record:
    """One record, as a person would write it down."""

    id: str
    embedding: NDArray[np.float32]
    document: str | None = None
    uri: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A collection to be put somewhere: what it is and what it holds."""

    name: str
    space: str
    records: list[Record]
    metadata: dict[str, Any] | None = None
    hnsw: dict[str, int | float] = field(default_factory=dict)

    def only(self, records: Sequence[Record]) -> Made:
        return replace(self, records=list(records))


def vectors(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """Random vectors of various lengths, float32[count, dimension]."""
    random = np.random.default_rng(seed)
    scale = random.uniform(0.1, 30, size=(count, 1))
    return (random.normal(size=(count, dimension)) * scale).astype(np.float32)


def plain(count: int, dimension: int = 8, *, prefix: str = "r", seed: int = 0) -> list[Record]:
    """Ordinary records."""
    return [
        Record(f"{prefix}{number:05d}", vector, f"document {number} of {prefix}", None, {"number": number, "odd": True})
        for number, vector in enumerate(vectors(count, dimension, seed))
    ]


def nasty(dimension: int = 8, *, lists: bool, seed: int = 1) -> list[Record]:
    """Records with everything that a copy may bend. `lists` as metadata values need Chroma 1.5."""
    long = "x" * 100_000
    cases: list[tuple[str, str | None, str | None, dict[str, Any] | None]] = [
        ("none", None, None, None),
        ("empty document", "", None, {"a": ""}),
        ("no metadata", "text", None, None),
        ("uri only", None, "file:///tmp/ä b.png", None),
        ("uri and text", "text", "https://example.org/?q=1#x", {"k": "v"}),
        (
            "unicode ☃ \U0001f600",
            "naïve café 日本語 \U0001f600 e\u0301",
            None,
            {"schlüssel": "wert", "emoji": "\U0001f600"},
        ),
        ("nul", "a\x00b", None, {"nul": "c\x00d"}),
        ("quotes'\"\\", "'; DROP TABLE collections; -- \"\\\n\t", None, {"q": "'\"\\\n"}),
        ("a/b?c#d %20", "slashes", None, {"dotted.key": 1, "key with space": 2}),
        ("ints", "i", None, {"zero": 0, "one": 1, "minus": -1, "max": INT64_MAX, "min": INT64_MIN, "safe": 2**53 + 1}),
        ("floats", "f", None, {f"f{number}": value for number, value in enumerate(FULL_PRECISION)}),
        ("whole floats", "f", None, {"zero": 0.0, "one": 1.0, "big": 1e15, "minus": -2.0}),
        ("bools", "b", None, {"yes": True, "no": False, "one": 1, "onef": 1.0}),
        ("long", long, None, {"long": "y" * 10_000}),
        ("i" * 500, "long id", None, {"n": 1}),
    ]
    if lists:
        cases += [
            ("list str", "l", None, {"l": ["a", "b", "a", "", "ü"]}),
            ("list int", "l", None, {"l": [3, 1, 2, INT64_MAX]}),
            ("list float", "l", None, {"l": [1.0, 0.5, 1 / 3]}),
            ("list bool", "l", None, {"l": [True, False, True], "one": ["x"]}),
        ]
    return [
        Record(name, vector, document, uri, metadata)
        for (name, document, uri, metadata), vector in zip(cases, vectors(len(cases), dimension, seed), strict=True)
    ]


def batch_of(records: Sequence[Record], dimension: int = 8) -> Batch:
    """The records as chromactl's stores take them."""
    embeddings = np.stack([record.embedding for record in records]) if records else np.empty((0, dimension))
    return Batch(
        ids=[record.id for record in records],
        embeddings=embeddings.astype(np.float32),
        documents=[record.document for record in records],
        uris=[record.uri for record in records],
        metadatas=[record.metadata for record in records],
    )


def spec_of(made: Made) -> CollectionSpec:
    """The collection as chromactl describes it."""
    dimension = len(made.records[0].embedding) if made.records else None
    return CollectionSpec(made.name, made.space, made.metadata, dict(made.hnsw), dimension=dimension)


def menagerie(*, lists: bool) -> list[Made]:
    """A few hundred records in four collections: every metric, index settings, nothing at all."""
    settings: dict[str, int | float] = {"ef_construction": 150, "ef_search": 50, "max_neighbors": 24}
    return [
        Made("empty.one", "cosine", [], {"why": "nothing yet"}, {"ef_search": 77}),
        Made("nasty-ip", "ip", nasty(lists=lists), None, settings),
        Made("nasty_cosine", "cosine", nasty(lists=lists) + plain(60), {"owner": "ü", "n": 1, "f": 0.5}),
        Made("plain-l2", "l2", plain(120)),
    ]
