"""Memories over HTTP."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.api.auth import Caller
from app.problems import responses
from app.schemas import Memory, MemoryChange, MemoryPage, MemorySearch, NewMemory, PageLimit, SearchResponse
from app.services import Services

router = APIRouter(prefix="/memories", tags=["memories"], responses=responses(401, 404, 413, 503))

MemoryId = Annotated[int, Path(ge=1, lt=2**63, description="The memory's id.")]


@router.post("", status_code=201, responses=responses(400, 422))
async def remember(memory: NewMemory, caller: Caller, services: Services, response: Response) -> Memory:
    """Remember it. It is safe in PostgreSQL when this is answered, and found by a search moments later."""
    (record,) = await services.memories.add(caller, [memory.raw_data()])
    response.headers["Location"] = f"/memories/{record.id}"
    return Memory.of(record)


@router.get("", responses=responses(400, 422))
async def list_memories(
    caller: Caller,
    services: Services,
    limit: PageLimit = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> MemoryPage:
    """The memories, newest first."""
    before = MemoryPage.position(cursor) if cursor else None
    records = await services.memories.page(caller, limit + 1, before)
    return MemoryPage.of(records, limit)


@router.get("/{memory_id}", responses=responses(422))
async def get_memory(memory_id: MemoryId, caller: Caller, services: Services) -> Memory:
    """One memory."""
    return Memory.of(await services.memories.get(caller, memory_id))


@router.patch("/{memory_id}", responses=responses(400, 422))
async def change_memory(memory_id: MemoryId, change: MemoryChange, caller: Caller, services: Services) -> Memory:
    """Put content, metadata or both in the place of the old; metadata is replaced as a whole."""
    return Memory.of(await services.memories.change(caller, memory_id, change.raw_data()))


@router.delete("/{memory_id}", status_code=204, responses=responses(422))
async def forget(memory_id: MemoryId, caller: Caller, services: Services) -> None:
    """Forget it."""
    await services.memories.remove(caller, memory_id)


@router.post("/search", responses=responses(400, 409, 422))
async def search(request: MemorySearch, caller: Caller, services: Services) -> SearchResponse:
    """The memories nearest to the query; none while nothing was ever remembered."""
    started = time.perf_counter()
    found = await services.semantic_memory.search(caller, request.query, request.limit, request.where)
    services.metrics.searched("memory", degraded=found.degraded)
    return SearchResponse.of(found, time.perf_counter() - started)
