"""The service's own data: what is written is found, by its owner, until it is deleted."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from conftest import Answer, Ask, until

# The form of a key, and none that was ever issued.
STRANGE_KEY = f"cs_{'0' * 16}_{'x' * 43}"
# How the service names tenants' collections.
TENANTS = r"(mem|rag)\.[a-z0-9-]*\.[0-9a-f]{32}"
# These answer everybody who reaches the port.
OPEN = ("/health", "/metrics")


class Tenant:
    """Asks the service with one key."""

    def __init__(self, ask: Ask, url: str, key: str) -> None:
        self._ask = ask
        self._url = url
        self._key = key

    def send(self, method: str, path: str, body: Any = None) -> Answer:
        """One request."""
        return self._ask(f"{self._url}{path}", method=method, body=body, token=self._key)

    def remember(self, content: str) -> int:
        """Write a memory; its id."""
        answer = self.send("POST", "/memories", {"content": content, "metadata": {"made_by": "make verify"}})
        assert answer.status == 201, answer.text
        return int(answer.json()["id"])

    def finds(self, query: str) -> set[int]:
        """Ids of the memories that a search answers with."""
        answer = self.send("POST", "/memories/search", {"query": query, "limit": 100})
        assert answer.status == 200, answer.text
        return {result["memory_id"] for result in answer.json()["results"]}


@pytest.fixture(scope="module")
def tenant(ask: Ask, expected: dict[str, Any], key: str) -> Tenant:
    return Tenant(ask, expected["api_url"], key)


@pytest.fixture(scope="module")
def stranger(ask: Ask, expected: dict[str, Any], other_key: str) -> Tenant:
    return Tenant(ask, expected["api_url"], other_key)


@pytest.fixture(scope="module")
def word() -> str:
    """A word that nobody has written before."""
    return uuid.uuid4().hex


@pytest.fixture(scope="module")
def memory(tenant: Tenant, word: str) -> Iterator[int]:
    """A memory with the word in it, found by a search; gone after the checks."""
    number = tenant.remember(f"{word} is what make verify wrote")
    try:
        until(lambda: number in tenant.finds(word))
        yield number
    finally:
        tenant.send("DELETE", f"/memories/{number}")


def test_written_memory_is_found(tenant: Tenant, word: str, memory: int) -> None:
    """What is written through the API is found by a search."""
    assert memory in tenant.finds(word)


def test_other_tenant_finds_nothing(stranger: Tenant, word: str, memory: int) -> None:
    """Another tenant's search does not find it."""
    assert memory not in stranger.finds(word)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_other_tenant_cannot_reach_it(stranger: Tenant, memory: int, method: str) -> None:
    """By its id another tenant can neither read, change nor delete it."""
    body = {"content": "changed by a stranger"} if method == "PATCH" else None
    assert stranger.send(method, f"/memories/{memory}", body).status == 404


def test_other_tenant_does_not_list_it(stranger: Tenant, memory: int) -> None:
    """Another tenant's list does not hold it."""
    answer = stranger.send("GET", "/memories?limit=200")
    assert answer.status == 200
    assert memory not in {entry["id"] for entry in answer.json()["memories"]}


def test_deleted_memory_is_found_no_more(tenant: Tenant) -> None:
    """What is deleted goes from the searches too."""
    word = uuid.uuid4().hex
    number = tenant.remember(f"{word} is soon forgotten")
    until(lambda: number in tenant.finds(word))
    assert tenant.send("DELETE", f"/memories/{number}").status == 204
    assert tenant.send("GET", f"/memories/{number}").status == 404
    until(lambda: number not in tenant.finds(word))


def test_document_is_found_by_its_passages(tenant: Tenant, stranger: Tenant) -> None:
    """A document is found by the retriever, by its own tenant only, until it is removed."""
    word = uuid.uuid4().hex
    made = tenant.send("POST", "/rag/documents", {"content": f"{word} stands in a document.", "source": "make verify"})
    assert made.status == 201, made.text

    def passages(asker: Tenant) -> list[str]:
        answer = asker.send("POST", "/rag/query", {"query": word, "limit": 20})
        assert answer.status == 200, answer.text
        return [result["content"] for result in answer.json()["results"] if word in (result["content"] or "")]

    try:
        until(partial(passages, tenant))
        assert passages(stranger) == []
    finally:
        assert tenant.send("DELETE", f"/rag/documents/{made.json()['id']}").status == 204
    until(lambda: passages(tenant) == [])


@pytest.mark.parametrize("shown", ["", STRANGE_KEY, "nonsense"])
def test_no_route_without_a_key(ask: Ask, expected: dict[str, Any], shown: str) -> None:
    """Without a valid key every route but health and metrics answers 401."""
    routes = ask(f"{expected['api_url']}/openapi.json").json()["paths"]
    asked = {
        (method.upper(), path): ask(
            f"{expected['api_url']}{path.replace('{', '').replace('}', '')}", method=method.upper(), token=shown
        ).status
        for path, operations in routes.items()
        for method in operations
        if not path.startswith(OPEN)
    }
    assert len(asked) >= 8
    assert {route: status for route, status in asked.items() if status != 401} == {}


def test_index_holds_every_record(host: Any, ask: Ask, expected: dict[str, Any], as_service: str) -> None:
    """The live instance holds as many records of tenants as PostgreSQL, whichever instance was live when they came."""
    (live,) = (instance for instance in expected["instances"] if instance["name"] == expected["live"])
    token = host.file(live["token_file"]).content_string.strip() if live["token_file"] else ""
    database = f"{live['url']}/api/v2/tenants/default_tenant/databases/default_database/collections"
    query = "SELECT count(*) FROM memory_logs"
    command = f'{as_service} --dbname={expected["postgres"]["database"]} --command="{query}"'

    def indexed() -> int:
        collections = ask(database, token=token).json()
        mine = [entry["id"] for entry in collections if re.fullmatch(TENANTS, entry["name"])]
        return sum(int(ask(f"{database}/{each}/count", token=token).json()) for each in mine)

    until(lambda: indexed() == int(host.check_output(command)))
