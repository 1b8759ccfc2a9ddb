"""The retriever over HTTP."""

from __future__ import annotations

import time

from fastapi import APIRouter

from app.problems import responses
from app.schemas import RagQuery, SearchResponse
from app.services import Services

router = APIRouter(prefix="/rag", tags=["rag"])


@router.post("/query", responses=responses(400, 404, 409, 413, 422, 503))
async def query(request: RagQuery, services: Services) -> SearchResponse:
    """The passages nearest to the query, from the named or from all served collections."""
    started = time.perf_counter()
    hits = await services.threads.run(
        lambda: services.retriever.search(request.query, request.limit, request.collections, request.where)
    )
    return SearchResponse.of(hits, time.perf_counter() - started)
