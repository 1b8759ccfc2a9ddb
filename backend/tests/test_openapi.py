"""The OpenAPI page: complete, with examples that the service takes, and no status that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.config import Settings
from app.core.chroma.filters import checked_where
from app.problems import _KNOWN, TYPE_PREFIX
from app.schemas import MemoryChange, NewDocument, NewMemory
from app.searches import MemorySearch, RagQuery
from support.service import NO_DATABASE

BODIES: dict[str, type[BaseModel]] = {
    "POST /memories": NewMemory,
    "PATCH /memories/{memory_id}": MemoryChange,
    "POST /memories/search": MemorySearch,
    "POST /rag/documents": NewDocument,
    "POST /rag/query": RagQuery,
}
OPEN = {"GET /health", "GET /health/ready", "GET /health/chromadb", "GET /metrics"}


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    from app.application import create_app

    app: FastAPI = create_app(Settings.model_validate({"database_url": NO_DATABASE}))
    return app.openapi()


def operations(page: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in page["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_but_health_needs_a_key(page: dict[str, Any]) -> None:
    keys: list[dict[str, list[str]]] = [{"Bearer": []}, {"X-API-Key": []}]
    for name, operation in operations(page):
        assert operation.get("security") == (None if name in OPEN else keys), name
        assert ("401" in operation["responses"]) == (name not in OPEN), name


def test_every_body_has_examples_that_are_taken(page: dict[str, Any]) -> None:
    seen = set()
    for name, operation in operations(page):
        if "requestBody" not in operation:
            continue
        seen.add(name)
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            made = BODIES[name].model_validate(example["value"])
            if isinstance(made, (MemorySearch, RagQuery)):
                checked_where(made.where)
    assert seen == BODIES.keys()


def test_every_answer_is_described_and_has_an_example(page: dict[str, Any]) -> None:
    schemas = page["components"]["schemas"]
    for name, operation in operations(page):
        assert operation["description"], name
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items():
                if kind == "application/problem+json":
                    for slug, example in content["examples"].items():
                        assert example["value"]["type"] == TYPE_PREFIX + slug
                        assert str(example["value"]["status"]) == status
                elif kind == "application/json":
                    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
                    assert _exemplified(schema), (name, schema["title"])


def _exemplified(schema: dict[str, Any]) -> bool:
    """Whether there is an example of the whole, or of each field; a list's are those of its items."""
    known = {"examples", "const", "enum", "default", "items"}
    return "examples" in schema or all(field.keys() & known for field in schema["properties"].values())


def test_every_parameter_is_described(page: dict[str, Any]) -> None:
    for name, operation in operations(page):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])


def test_every_kind_of_problem_stands_at_the_routes_that_have_it(page: dict[str, Any]) -> None:
    documented: set[str] = set()
    for _, operation in operations(page):
        for response in operation["responses"].values():
            documented |= response.get("content", {}).get("application/problem+json", {}).get("examples", {}).keys()
    assert documented == _KNOWN.keys()


def test_a_status_stands_only_where_it_can_be(page: dict[str, Any]) -> None:
    with_body = {name for name, operation in operations(page) if "requestBody" in operation}
    for name, operation in operations(page):
        statuses = operation["responses"].keys()
        assert ("413" in statuses) == (name in with_body), name
        assert "500" not in statuses, name
        assert ("409" in statuses) == (name in ("POST /memories/search", "POST /rag/query")), name
