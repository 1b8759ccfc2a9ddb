"""What is asked of both sides: the operators' own queries, and stored vectors of every collection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from chromactl.embedding.provider import Embedder
from chromactl.errors import EmbeddingError, PreconditionError, UsageError
from chromactl.migrate.plan import Plan, PlannedCollection, PlannedTarget
from chromactl.smoke import read_entries
from chromactl.stores.base import Source


class TestQuery(BaseModel):
    """One entry of a test query file: a text, or its vector. Without a collection it is asked of all of them.

    `where` belongs to the smoke test: the old side has other metadata, so that it is not asked with here.
    """

    __test__ = False  # for pytest: this is no test
    model_config = ConfigDict(extra="forbid", frozen=True)
    text: str = ""
    collection: str | None = None
    category: str = ""
    where: dict[str, Any] | None = None
    vector: Annotated[tuple[FiniteFloat, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> TestQuery:
        if not self.text and self.vector is None:
            raise ValueError("neither a text nor a vector")
        return self


def read_queries(path: Path) -> list[TestQuery]:
    """The queries in a file: a JSON list of {"text" or "vector", "collection" (or null), "category"}.

    Raises:
        UsageError: there is no such file, it is not of that form, or empty.
    """
    return read_entries(path, TestQuery)


@dataclass(frozen=True, slots=True)
class Group:
    """Collections of both sides between which records go, so that they answer a query together.

    Mostly one of each side; more where a profile merges or splits.
    """

    sources: list[PlannedCollection]
    targets: list[PlannedTarget]

    @property
    def name(self) -> str:
        """The new side's names."""
        return " + ".join(target.name for target in self.targets)

    @property
    def dimension(self) -> int | None:
        """The dimension of its vectors, if it has any."""
        return next((target.spec.dimension for target in self.targets if target.spec.dimension), None)

    @property
    def space(self) -> str | None:
        """The one metric of all its collections; None if they have several, and distances mean nothing together."""
        spaces = {source.spec.space for source in self.sources} | {target.spec.space for target in self.targets}
        return spaces.pop() if len(spaces) == 1 else None

    @property
    def names(self) -> set[str]:
        """The names of its collections on either side."""
        return {source.name for source in self.sources} | {target.name for target in self.targets}


def groups(plan: Plan) -> list[Group]:
    """The collections of a plan in groups that records do not leave."""
    found: list[Group] = []
    by_name = {planned.name: planned for planned in plan.collections}
    for target in plan.targets:
        sources = {name: by_name[name] for name in target.sources}
        targets = [target]
        for group in [one for one in found if sources.keys() & {planned.name for planned in one.sources}]:
            found.remove(group)
            sources = {planned.name: planned for planned in group.sources} | sources
            targets = group.targets + targets
        found.append(Group(list(sources.values()), targets))
    return found


@dataclass(frozen=True, slots=True)
class Question:
    """One vector to be asked of one group, float32[dim], and where it comes from."""

    kind: str
    text: str
    category: str
    vector: NDArray[np.float32]


def stored_questions(group: Group, store: Source, count: int) -> list[Question]:
    """Vectors of `count` records of each source collection, evenly spaced over it."""
    found: list[Question] = []
    for planned in group.sources:
        ids = [record for piece in planned.pieces for record in piece]
        some = [ids[number * len(ids) // count] for number in range(count)] if len(ids) > count else ids
        batch, _ = store.read(planned.source, some)
        found += [
            Question("stored", f"{planned.name}/{record}", "", vector)
            for record, vector in zip(batch.ids, batch.embeddings, strict=True)
            if np.isfinite(vector).all() and vector.any()
        ]
    return found


@dataclass(frozen=True, slots=True)
class Posed:
    """A query with its vector, float32[dim]; a text embedded by hashing has one of each dimension that is asked."""

    query: TestQuery
    vectors: dict[int, NDArray[np.float32]]


def check_names(queries: list[TestQuery], plan: Plan, asked: list[Group], *, limited: bool) -> None:
    """Refuse queries of collections that are not there; with `limited` collections others are passed over.

    Raises:
        PreconditionError: a query names a collection that is not there.
    """
    known = set(plan.skipped).union(*(group.names for group in asked))
    for query in queries:
        if query.collection is not None and query.collection not in known and not limited:
            raise PreconditionError(
                f"--test-queries: no collection {query.collection} to ask {query.text!r}; "
                f"there are {', '.join(sorted(known)) or 'none'}"
            )


def pose(queries: list[TestQuery], asked: list[Group], embedder: Embedder) -> list[Posed]:
    """The queries with their vectors; those that no group is asked have none, and no embedder is asked for them.

    Raises:
        UsageError: a given vector has a dimension that no collection asked has.
        EmbeddingError: the embedder does not give the vectors, or of such a dimension.
    """
    found = [Posed(query, {}) for query in queries]
    by_dimension: dict[int, list[Posed]] = {}
    for posed in found:
        for dimension in {group.dimension for group in _groups_of(posed.query, asked)} - {None}:
            assert dimension is not None  # noqa: S101 (for the type checker)
            if posed.query.vector is None:
                by_dimension.setdefault(dimension, []).append(posed)
            else:
                posed.vectors[len(posed.query.vector)] = np.asarray(posed.query.vector, np.float32)
    for dimension, some in by_dimension.items():
        for posed, vector in zip(some, embedder.embed([one.query.text for one in some], dimension), strict=True):
            posed.vectors[len(vector)] = vector
    for posed in found:
        _check_dimension(posed, _groups_of(posed.query, asked), embedder)
    return found


def _groups_of(query: TestQuery, asked: list[Group]) -> list[Group]:
    return [group for group in asked if query.collection is None or query.collection in group.names]


def _check_dimension(posed: Posed, asked: list[Group], embedder: Embedder) -> None:
    if not asked or posed.vectors.keys() & {group.dimension for group in asked}:
        return
    has = ", ".join(map(str, posed.vectors))
    there = ", ".join(f"{group.name} of {group.dimension}" for group in asked)
    name = posed.query.text or posed.query.category
    if posed.query.vector is None:
        raise EmbeddingError(
            f"{embedder.name}: the vector of {name!r} has dimension {has}; asked are collections of other dimensions: "
            f"{there}; name the model that made their vectors (--embedding-model)"
        )
    raise UsageError(f"--test-queries: the vector of {name!r} has dimension {has}; asked are {there}")


def file_questions(group: Group, queries: list[Posed]) -> list[Question]:
    """Those of the file's queries that are for this group, and have a vector of its dimension."""
    return [
        Question("test", posed.query.text, posed.query.category, posed.vectors[group.dimension])
        for posed in queries
        if _groups_of(posed.query, [group]) and group.dimension in posed.vectors
    ]
