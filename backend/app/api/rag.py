"""Documents and the retriever over HTTP."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Body, Path, Response

from app.api.auth import Caller
from app.api.examples import FILTERS, LOCATION
from app.problems import BODY, CALLER, CHROMA, responses
from app.schemas import Cursor, Document, DocumentPage, NewDocument, PageLimit, WholeDocument, position
from app.searches import RagAnswer, RagQuery
from app.services import Services

router = APIRouter(prefix="/rag", tags=["rag"])

DocumentId = Annotated[UUID, Path(description="The document's id.", examples=["7c9e6679-7425-40de-944b-e07fc1f90ae7"])]
_New = Body(
    openapi_examples={
        "with metadata": {
            "value": {
                "content": "Rain on Tuesday, and again on Friday.\n\nThe harvest is late.",
                "source": "almanac.md",
                "metadata": {"language": "en"},
            }
        },
        "text alone": {"value": {"content": "Rain on Tuesday, and again on Friday.", "source": "almanac.md"}},
    }
)
_Query = Body(
    openapi_examples={
        "everywhere": {"value": {"query": "when will it rain", "limit": 3}},
        "in your own documents alone": {"value": {"query": "when will it rain", "collections": [], "own": True}},
        "in one document": {
            "value": {
                "query": "when will it rain",
                "collections": [],
                "own": True,
                "where": {"document_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7"},
            }
        },
        "in a shared collection": {"value": {"query": "when will it rain", "collections": ["sergio_corpus"]}},
        **FILTERS,
    }
)


@router.post("/documents", status_code=201, responses=LOCATION | responses(*CALLER, *BODY))
async def add_document(
    document: Annotated[NewDocument, _New], caller: Caller, services: Services, response: Response
) -> Document:
    """Cut a text into passages that a query can find. All of them are stored when this is answered, or none."""
    document_id = uuid4()
    passages = await services.splitting.run(partial(services.splitter.passages, document, document_id))
    records = await services.passages.add(caller, passages, document_id)
    response.headers["Location"] = f"/rag/documents/{document_id}"
    return Document(
        id=document_id,
        source=document.source,
        metadata=document.metadata,
        passages=len(records),
        created_at=records[0].created_at,
    )


@router.get("/documents", responses=responses(*CALLER, "invalid-cursor", "invalid-request"))
async def list_documents(
    caller: Caller, services: Services, limit: PageLimit = 50, cursor: Cursor = None
) -> DocumentPage:
    """The documents, newest first."""
    return DocumentPage.of(await services.documents.page(caller, limit + 1, position(cursor)), limit)


@router.get("/documents/{document_id}", responses=responses(*CALLER, "unknown-document", "invalid-request"))
async def get_document(document_id: DocumentId, caller: Caller, services: Services) -> WholeDocument:
    """One document, with the texts of its passages."""
    return WholeDocument.whole(*await services.documents.get(caller, document_id))


@router.delete(
    "/documents/{document_id}",
    status_code=204,
    responses=responses(*CALLER, "unknown-document", "invalid-request"),
)
async def remove_document(document_id: DocumentId, caller: Caller, services: Services) -> None:
    """Remove a document and all its passages."""
    await services.documents.remove(caller, document_id)


@router.post(
    "/query",
    responses=responses(
        *CALLER,
        *BODY,
        "filter-refused",
        "text-refused",
        "unknown-collection",
        "dimension-mismatch",
        "mixed-metrics",
        "collection-missing",
        "embedding-unavailable",
        *CHROMA,
    ),
)
async def query(request: Annotated[RagQuery, _Query], caller: Caller, services: Services) -> RagAnswer:
    """The passages nearest to the query: of your own documents, and of the collections that all tenants share."""
    started = time.perf_counter()
    found = await services.retriever.search(caller, request.question())
    services.metrics.searched("passage", degraded=found.degraded)
    return RagAnswer.of(found, time.perf_counter() - started)
