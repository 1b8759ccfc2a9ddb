"""Memories over HTTP."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Path, Response

from app.api.auth import Caller
from app.api.examples import FILTERS, LOCATION
from app.problems import BODY, CALLER, CHROMA, responses
from app.schemas import Cursor, Memory, MemoryChange, MemoryPage, NewMemory, PageLimit, position
from app.searches import MemoryAnswer, MemorySearch
from app.services import Services

router = APIRouter(prefix="/memories", tags=["memories"])

MemoryId = Annotated[int, Path(ge=1, lt=2**63, description="The memory's id.", examples=[42])]
_New = Body(
    openapi_examples={
        "with metadata": {"value": {"content": "Rain on Tuesday.", "metadata": {"task": "weather", "priority": 2}}},
        "text alone": {"value": {"content": "The umbrella is in the hall."}},
    }
)
_Change = Body(
    openapi_examples={
        "the text": {"value": {"content": "Rain on Wednesday."}},
        "the metadata": {"value": {"metadata": {"task": "weather", "done": True}}},
        "no metadata any more": {"value": {"metadata": {}}},
    }
)
_Search = Body(openapi_examples={"plain": {"value": {"query": "when will it rain"}}, **FILTERS})


@router.post("", status_code=201, responses=LOCATION | responses(*CALLER, *BODY))
async def remember(
    memory: Annotated[NewMemory, _New], caller: Caller, services: Services, response: Response
) -> Memory:
    """Remember it. It is safe in PostgreSQL when this is answered, and found by a search moments later."""
    (record,) = await services.memories.add(caller, [memory.raw_data()])
    response.headers["Location"] = f"/memories/{record.id}"
    return Memory.of(record)


@router.get("", responses=responses(*CALLER, "invalid-cursor", "invalid-request"))
async def list_memories(caller: Caller, services: Services, limit: PageLimit = 50, cursor: Cursor = None) -> MemoryPage:
    """The memories, newest first."""
    records = await services.memories.page(caller, limit + 1, position(cursor))
    return MemoryPage.of(records, limit)


@router.post(
    "/search",
    responses=responses(
        *CALLER, *BODY, "filter-refused", "text-refused", "dimension-mismatch", "embedding-unavailable", *CHROMA
    ),
)
async def search(request: Annotated[MemorySearch, _Search], caller: Caller, services: Services) -> MemoryAnswer:
    """The memories nearest to the query; none while nothing was ever remembered."""
    started = time.perf_counter()
    found = await services.semantic_memory.search(caller, request.query, request.limit, request.where)
    services.metrics.searched("memory", degraded=found.degraded)
    return MemoryAnswer.of(found, time.perf_counter() - started)


@router.api_route("/search", methods=["GET", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def search_otherwise() -> None:
    """`search` is no memory's id."""
    raise HTTPException(405)


@router.get("/{memory_id}", responses=responses(*CALLER, "unknown-memory", "invalid-request"))
async def get_memory(memory_id: MemoryId, caller: Caller, services: Services) -> Memory:
    """One memory."""
    return Memory.of(await services.memories.get(caller, memory_id))


@router.patch("/{memory_id}", responses=responses(*CALLER, "unknown-memory", *BODY))
async def change_memory(
    memory_id: MemoryId, change: Annotated[MemoryChange, _Change], caller: Caller, services: Services
) -> Memory:
    """Replace content, metadata or both; what is left out stays. Metadata is replaced as a whole."""
    return Memory.of(await services.memories.change(caller, memory_id, change.raw_data()))


@router.delete("/{memory_id}", status_code=204, responses=responses(*CALLER, "unknown-memory", "invalid-request"))
async def forget(memory_id: MemoryId, caller: Caller, services: Services) -> None:
    """Forget it."""
    await services.memories.remove(caller, memory_id)
