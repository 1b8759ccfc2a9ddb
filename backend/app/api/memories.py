"""The semantic memory over HTTP."""

from __future__ import annotations

import time

from fastapi import APIRouter

from app.problems import responses
from app.schemas import MemorySearch, SearchResponse
from app.services import Services

router = APIRouter(prefix="/memories", tags=["memories"])


@router.post("/search", responses=responses(400, 409, 413, 422, 503))
async def search(request: MemorySearch, services: Services) -> SearchResponse:
    """The memories nearest to the query; none while nothing was ever remembered."""
    started = time.perf_counter()
    hits = await services.threads.run(lambda: services.memory.search(request.query, request.limit, request.where))
    return SearchResponse.of(hits, time.perf_counter() - started)
