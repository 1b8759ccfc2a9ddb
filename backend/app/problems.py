"""Errors as problem details (RFC 9457). The `type` of each is stable; texts may change."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from app.core import errors
from app.logs import request_id

log = logging.getLogger(__name__)

TYPE_PREFIX = "urn:chroma-stack:problem:"
RETRY_AFTER_SECONDS = 5

# From the service's errors to HTTP; the first class that fits counts.
_KINDS: tuple[tuple[type[errors.ServiceError], int, str], ...] = (
    (errors.FilterRefused, 400, "filter-refused"),
    (errors.InvalidCursor, 400, "invalid-cursor"),
    (errors.InvalidKey, 401, "invalid-key"),
    (errors.UnknownMemory, 404, "unknown-memory"),
    (errors.UnknownTenant, 404, "unknown-tenant"),
    (errors.UnknownCollection, 404, "unknown-collection"),
    (errors.DimensionMismatch, 409, "dimension-mismatch"),
    (errors.MixedMetrics, 409, "mixed-metrics"),
    (errors.CollectionMissing, 503, "collection-missing"),
    (errors.Overloaded, 503, "overloaded"),
    (errors.DatabaseUnavailable, 503, "database-unavailable"),
    (errors.EmbeddingUnavailable, 503, "embedding-unavailable"),
    (errors.TextRefused, 422, "text-refused"),
    (errors.ChromaTimeout, 503, "chroma-timeout"),
    (errors.ChromaRefusedToken, 503, "chroma-refused-token"),
    (errors.NotAChroma, 503, "not-a-chroma"),
    (errors.ChromaUnavailable, 503, "chroma-unavailable"),
)


class Problem(BaseModel):
    """A problem as it is answered, for the OpenAPI page."""

    type: str = Field(examples=[f"{TYPE_PREFIX}chroma-unavailable"])
    title: str = Field(examples=["Service Unavailable"])
    status: int = Field(examples=[503])
    detail: str = Field(examples=["Chroma at http://localhost:8000 cannot be reached: connection refused."])
    hint: str | None = Field(None, description="What to do about it, where something can be done.")
    request_id: str | None = Field(None, description="The request's X-Request-ID, which is in the log lines as well.")
    errors: list[dict[str, str]] | None = Field(None, description="With 422: what is wrong, and where.")


class ProblemResponse(JSONResponse):
    """A response of type application/problem+json."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        """ASCII only: a name that a client sent may hold what UTF-8 cannot."""
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def problem_response(
    status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> ProblemResponse:
    """The answer for one problem. `kind` ends its type; empty extras are left out."""
    content = {
        "type": TYPE_PREFIX + kind,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **{key: value for key, value in {**extra, "request_id": request_id()}.items() if value},
    }
    if status == 401:
        headers = {**(headers or {}), "WWW-Authenticate": "Bearer"}
    if status == 503:
        headers = {**(headers or {}), "Retry-After": str(RETRY_AFTER_SECONDS)}
    return ProblemResponse(content, status, dict(headers) if headers else None)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for its OpenAPI page."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {ProblemResponse.media_type: {"schema": Problem.model_json_schema()}},
        }
        for status in statuses
    }


def install_problem_handlers(app: FastAPI) -> None:
    """Have every error of the application answered as a problem."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


async def _service_error(_request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, errors.ServiceError):
        raise error
    for kind, status, slug in _KINDS:
        if isinstance(error, kind):
            if status >= 500:
                log.warning("%s", error)
            return problem_response(status, slug, error.message, hint=error.hint)
    raise error


async def _validation_error(_request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    # Only where and what: the input itself is neither echoed nor logged.
    mistakes = [
        {"where": ".".join(str(part) for part in mistake["loc"])[:200], "message": str(mistake["msg"])[:300]}
        for mistake in error.errors()[:20]
    ]
    detail = "; ".join(f"{m['where']}: {m['message']}" for m in mistakes[:3])
    return problem_response(422, "invalid-request", detail, errors=mistakes)


async def _http_error(request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, HTTPException):
        raise error
    slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    if error.status_code == 400:
        return problem_response(400, "bad-request", "The request body cannot be read as JSON.")
    detail = f"{request.method} {request.url.path}: {HTTPStatus(error.status_code).phrase}"
    return problem_response(error.status_code, slug, detail, error.headers)


async def _unexpected_error(_request: Request, error: Exception) -> ProblemResponse:
    log.error("unexpected %s", type(error).__name__)
    return problem_response(500, "unexpected", "The service made a mistake; its log says which.")
