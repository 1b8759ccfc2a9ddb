"""The service: it knows the live Chroma and answers searches from it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Ask, Count


def test_service_is_healthy(ask: Ask, expected: dict[str, Any]) -> None:
    """The workers say that they are well."""
    assert ask(f"{expected['api_url']}/health").status == 200


def test_service_sees_every_record(host: Any, ask: Ask, count: Count, expected: dict[str, Any]) -> None:
    """The service counts all records that the live instance holds."""
    (live,) = (instance for instance in expected["instances"] if instance["name"] == expected["live"])
    token = host.file(live["token_file"]).content_string.strip() if live["token_file"] else ""
    held = {name: count(live["database"], name, token) for name in expected["collections"]}
    answer = ask(f"{expected['api_url']}/health/chromadb")
    assert answer.status == 200
    body = answer.json()
    assert body["mode"] == "http"
    assert body["collections"] == held


@pytest.mark.phase("migrated")
def test_search_returns_the_schema(ask: Ask, expected: dict[str, Any], key: str, collection: tuple[str, int]) -> None:
    """A search returns records of the collection with all twelve fields."""
    name, _ = collection
    query = {"query": "a story about trust", "limit": 5, "collections": [name]}
    answer = ask(f"{expected['api_url']}/rag/query", method="POST", body=query, token=key)
    assert answer.status == 200
    results = answer.json()["results"]
    fields = {*expected["fields"], expected["own_field"][name]}
    assert len(results) == 5
    assert [result["collection"] for result in results] == [name] * 5
    assert [fields - result["metadata"].keys() for result in results] == [set()] * 5
