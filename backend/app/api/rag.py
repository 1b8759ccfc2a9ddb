"""The retriever over HTTP."""

from __future__ import annotations

import time
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Path

from app.api.auth import Caller
from app.problems import responses
from app.schemas import Document, NewDocument, RagQuery, SearchResponse
from app.services import Services

router = APIRouter(prefix="/rag", tags=["rag"], responses=responses(401, 404, 413, 503))

DocumentId = Annotated[UUID, Path(description="The document's id.")]


@router.post("/documents", status_code=201, responses=responses(400, 422))
async def add_document(document: NewDocument, caller: Caller, services: Services) -> Document:
    """Cut a text into passages that a query can find. All of them are stored when this is answered, or none."""
    document_id = uuid4()
    records = await services.passages.add(caller, services.splitter.passages(document), document_id)
    return Document(id=document_id, source=document.source, passages=len(records))


@router.delete("/documents/{document_id}", status_code=204, responses=responses(422))
async def remove_document(document_id: DocumentId, caller: Caller, services: Services) -> None:
    """Remove a document and all its passages."""
    await services.passages.remove_document(caller, document_id)


@router.post("/query", responses=responses(400, 409, 422))
async def query(request: RagQuery, caller: Caller, services: Services) -> SearchResponse:
    """The passages nearest to the query: of the tenant's documents and of the collections that all tenants share."""
    started = time.perf_counter()
    found = await services.retriever.search(caller, request.query, request.limit, request.collections, request.where)
    services.metrics.searched("passage", degraded=found.degraded)
    return SearchResponse.of(found, time.perf_counter() - started)
