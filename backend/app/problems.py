"""Errors as problem details (RFC 9457). The `type` of each is stable; texts may change."""

from __future__ import annotations

import inspect
import json
import logging
import re
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
MAX_SHOWN = 200

# From the service's errors to HTTP; the first class that fits counts.
_KINDS: tuple[tuple[type[errors.ServiceError], int, str], ...] = (
    (errors.FilterRefused, 400, "filter-refused"),
    (errors.InvalidCursor, 400, "invalid-cursor"),
    (errors.InvalidKey, 401, "invalid-key"),
    (errors.UnknownMemory, 404, "unknown-memory"),
    (errors.UnknownDocument, 404, "unknown-document"),
    (errors.UnknownTenant, 404, "unknown-tenant"),
    (errors.UnknownCollection, 404, "unknown-collection"),
    (errors.DimensionMismatch, 409, "dimension-mismatch"),
    (errors.MixedMetrics, 409, "mixed-metrics"),
    (errors.TextRefused, 422, "text-refused"),
    (errors.CollectionMissing, 503, "collection-missing"),
    (errors.Overloaded, 503, "overloaded"),
    (errors.DatabaseUnavailable, 503, "database-unavailable"),
    (errors.DatabaseTooSlow, 503, "database-too-slow"),
    (errors.SchemaUnfit, 503, "schema-unfit"),
    (errors.EmbeddingUnavailable, 503, "embedding-unavailable"),
    (errors.ChromaTimeout, 503, "chroma-timeout"),
    (errors.ChromaRefusedToken, 503, "chroma-refused-token"),
    (errors.NotAChroma, 503, "not-a-chroma"),
    (errors.ChromaUnavailable, 503, "chroma-unavailable"),
)
# Those that no class stands for.
_OTHERS = {
    "bad-request": (400, "The request body cannot be read as JSON."),
    "body-too-large": (413, "The request body is larger than 1048576 bytes."),
    "invalid-request": (422, "body.limit: Input should be less than or equal to 100"),
}
_KNOWN = {slug: (status, inspect.cleandoc(kind.__doc__ or "")) for kind, status, slug in _KINDS} | _OTHERS

CHROMA = ("chroma-unavailable", "chroma-timeout", "chroma-refused-token", "not-a-chroma")
DATABASE = ("database-unavailable", "database-too-slow", "schema-unfit", "overloaded")
# What every route can answer that needs a key: looking it up takes PostgreSQL.
CALLER = ("invalid-key", "unknown-tenant", *DATABASE)
BODY = ("bad-request", "body-too-large", "invalid-request")


class Problem(BaseModel):
    """A problem as it is answered, for the OpenAPI page."""

    type: str = Field(description="Which problem it is; stable.", examples=[f"{TYPE_PREFIX}chroma-unavailable"])
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
    if status == 401:
        headers = {**(headers or {}), "WWW-Authenticate": "Bearer"}
    if status == 503:
        headers = {**(headers or {}), "Retry-After": str(RETRY_AFTER_SECONDS)}
    return ProblemResponse(_content(status, kind, detail, **extra), status, dict(headers) if headers else None)


def _content(status: int, kind: str, detail: str, **extra: Any) -> dict[str, Any]:
    return {
        "type": TYPE_PREFIX + kind,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **{key: value for key, value in {**extra, "request_id": request_id()}.items() if value},
    }


def responses(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for its OpenAPI page: an example of each of these kinds, by status."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in dict.fromkeys(kinds):
        status, detail = _KNOWN[kind]
        found = by_status.setdefault(status, _documented(status))
        value = _content(status, kind, detail)
        if kind == "invalid-request":
            where, _, message = detail.partition(": ")
            value["errors"] = [{"where": where, "message": message}]
        found["content"][ProblemResponse.media_type]["examples"][kind] = {"summary": detail, "value": value}
    return by_status


def _documented(status: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    documented: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {ProblemResponse.media_type: {"schema": schema, "examples": {}}},
    }
    if status == 401:
        documented["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "example": "Bearer"}}
    if status == 503:
        seconds = {"schema": {"type": "integer"}, "description": "Seconds.", "example": RETRY_AFTER_SECONDS}
        documented["headers"] = {"Retry-After": seconds}
    return documented


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
    found = error.errors()[:20]
    if any(mistake["type"] == "json_invalid" for mistake in found):
        return _no_json()
    mistakes = [
        {"where": ".".join(str(part) for part in mistake["loc"])[:MAX_SHOWN], "message": _message(mistake)}
        for mistake in found
    ]
    if isinstance(error.body, bytes):  # of another content type, and so not read
        mistakes = [{"where": "body", "message": "send JSON, with content-type: application/json"}]
    detail = "; ".join(f"{m['where']}: {m['message']}" for m in mistakes[:3])
    return problem_response(422, "invalid-request", detail, errors=mistakes)


def _message(mistake: Mapping[str, Any]) -> str:
    return str(mistake["msg"]).removeprefix("Value error, ")[:300]


def _no_json() -> ProblemResponse:
    return problem_response(400, "bad-request", _OTHERS["bad-request"][1])


async def _http_error(request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 400:
        return _no_json()
    phrase = HTTPStatus(error.status_code).phrase
    detail = f"{request.method} {request.url.path[:MAX_SHOWN]}: {phrase}"
    headers = error.headers
    if error.status_code == 405 and (allowed := _allowed(request)):
        headers = {"Allow": allowed}
    return problem_response(error.status_code, phrase.lower().replace(" ", "-"), detail, headers)


def _allowed(request: Request) -> str | None:
    """The methods of a path, all of them: the framework names those of one of its routes."""
    for path, methods in sorted(request.app.openapi()["paths"].items(), key=lambda item: "{" in item[0]):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.scope["path"]):
            return ", ".join(sorted(method.upper() for method in methods))
    return None


async def _unexpected_error(_request: Request, error: Exception) -> ProblemResponse:
    log.error("unexpected %s", type(error).__name__)
    return problem_response(500, "unexpected", "The service made a mistake; its log says which.")
