"""What Chroma found, with a score that means the same for every collection of one metric; and whose it is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from chromadb.api.types import QueryResult
from chromadb.types import Collection

from app.core.found import Match
from app.core.memory.record import CREATED, DOCUMENT_ID, PASSAGE, SOURCE, memory_id, moment, of_caller
from app.core.memory.tenant import Kind

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """One record. `distance` is Chroma's, in the collection's metric; `score` grows with similarity."""

    id: str
    collection: str
    document: str | None
    metadata: Mapping[str, Any] | None
    distance: float
    metric: str
    score: float


def metric_of(collection: Collection) -> str:
    """The metric in use: cosine, l2 (squared) or ip.

    The metadata key of older versions wins where it is present: collections made by 0.4 to 0.6 carry
    configuration that says l2 whatever the metric is.
    """
    legacy = (collection.metadata or {}).get("hnsw:space")
    if isinstance(legacy, str):
        return legacy
    configuration = collection.configuration_json or {}
    for part in ("hnsw", "spann", "hnsw_configuration"):
        section = configuration.get(part)
        if isinstance(section, Mapping) and isinstance(section.get("space"), str):
            return str(section["space"])
    return "l2"


def score_of(metric: str, distance: float) -> float:
    """The similarity for a distance.

    cosine and ip: 1 - distance, which is the cosine or the inner product (Chroma's distance is 1 minus
    it); l2: 1 / (1 + distance), between 0 and 1, since squared distances have no upper bound.
    """
    return 1.0 / (1.0 + distance) if metric == "l2" else 1.0 - distance


def read_hits(collection: Collection, answer: QueryResult) -> list[Hit]:
    """The hits of a query with one vector; an answer of another shape raises like any other rubbish."""
    ids = answer["ids"][0]
    documents: Sequence[str | None] = (answer["documents"] or [[]])[0]
    metadatas: Sequence[Mapping[str, Any] | None] = (answer["metadatas"] or [[]])[0]
    distances = (answer["distances"] or [[]])[0]
    metric = metric_of(collection)
    return [
        Hit(id_, collection.name, document, metadata, float(distance), metric, score_of(metric, distance))
        for id_, document, metadata, distance in zip(ids, documents, metadatas, distances, strict=True)
    ]


def shared_match(hit: Hit) -> Match:
    """The match for a record of a collection that all tenants share: as it is."""
    metadata = hit.metadata or {}
    source = metadata.get(SOURCE)
    return Match(
        id=hit.id,
        collection=hit.collection,
        content=hit.document,
        metadata=metadata,
        metric=hit.metric,
        distance=hit.distance,
        score=hit.score,
        source=source if isinstance(source, str) else None,
    )


def own_matches(hits: Iterable[Hit], kind: Kind) -> list[Match]:
    """The matches for records of a tenant's collection. Their document is the whole record as JSON.

    What the index worker did not write is left out: it is nobody's record.
    """
    matches = []
    for hit in hits:
        try:
            matches.append(_own_match(hit, kind))
        except (ValueError, KeyError, TypeError):
            log.warning("collection %s holds a record that is no memory of this service", hit.collection)
    return matches


def _own_match(hit: Hit, kind: Kind) -> Match:
    raw_data = orjson.loads(hit.document or "")
    metadata = hit.metadata or {}
    of_passage = metadata if kind == "passage" else {}
    return Match(
        id=str(memory_id(hit.id)),
        collection=None,
        content=raw_data["content"],
        metadata=of_caller(raw_data, kind),
        metric=hit.metric,
        distance=hit.distance,
        score=hit.score,
        created_at=moment(metadata[CREATED]),
        document_id=UUID(of_passage[DOCUMENT_ID]) if DOCUMENT_ID in of_passage else None,
        source=of_passage.get(SOURCE),
        passage=of_passage.get(PASSAGE),
    )
