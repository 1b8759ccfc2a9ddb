"""The service: it knows the live Chroma and answers searches from it."""

from __future__ import annotations

import re
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


def test_service_is_ready(ask: Ask, expected: dict[str, Any]) -> None:
    """PostgreSQL answers, its schema fits, and Chroma is there."""
    answer = ask(f"{expected['api_url']}/health/ready")
    assert answer.status == 200
    assert answer.json()["status"] == "ready"


@pytest.mark.parametrize("gauge", ["outbox_events", "outbox_oldest_event_age_seconds", "dead_letters", "postgres_up"])
def test_metrics_tell_of_the_backlog(ask: Ask, expected: dict[str, Any], gauge: str) -> None:
    """Who watches the service sees how much waits for the index."""
    answer = ask(f"{expected['api_url']}/metrics")
    assert answer.status == 200
    assert re.search(rf"^chroma_stack_{gauge} [0-9.e+]+$", answer.text, re.MULTILINE)


def test_metrics_are_those_of_all_workers(ask: Ask, expected: dict[str, Any]) -> None:
    """Whichever worker answers, a count does not go back."""

    def requests() -> float:
        text = ask(f"{expected['api_url']}/metrics").text
        return sum(map(float, re.findall(r"^chroma_stack_http_requests_total{.*} (.+)$", text, re.MULTILINE)))

    counts = [requests() for _ in range(12)]
    assert counts == sorted(counts)
    assert counts[0] > 0


def test_index_worker_tells_its_metrics(ask: Ask, index_metrics: str) -> None:
    """Each index worker tells what it did."""
    answer = ask(index_metrics)
    assert answer.status == 200
    assert "chroma_stack_index_batches_total" in answer.text
