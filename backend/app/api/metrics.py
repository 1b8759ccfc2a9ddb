"""What Prometheus asks for."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.metrics import Metrics
from app.metrics_backlog import metrics_of
from app.services import Services

router = APIRouter(tags=["health"])


class _Exposition(Response):
    media_type = CONTENT_TYPE_LATEST


@router.get("/metrics", response_class=_Exposition)
async def metrics(request: Request, services: Services) -> _Exposition:
    """Counts and times in Prometheus's text format. No key is needed; it names no tenant and no text."""
    backlog = await services.backlog.backlog()
    numbers: Metrics = request.app.state.metrics
    return _Exposition(await asyncio.to_thread(numbers.exposition, metrics_of(backlog)))
