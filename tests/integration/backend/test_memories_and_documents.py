"""Memories and documents from writing to finding, with what is odd but valid, on real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from app.core.memory.tenant import Tenant
from support.postgres import Postgres
from support.stack import Stack, stack


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("memories"), postgres) as made:
        yield made


@pytest.fixture
def tenant() -> Tenant:
    return Tenant(f"user-{uuid4().hex[:8]}", "project")


METADATA: dict[str, Any] = {
    "text": "x",
    "empty": "",
    "whole": 1,
    "least": -(2**63),
    "most": 2**63 - 1,
    "float": 1.0,
    "tiny": 1e-300,
    "huge": 1e300,
    "true": True,
    "false": False,
    "é ": "\U0001f327",
    "a.b": 1,
    "' OR true --": "'; DROP TABLE memory_logs; --",
    "source": "my own",
    "passage": "my own",
    "user_id": "my own",
}


def exact(value: Any) -> str:
    """JSON, in which 1 and 1.0 differ."""
    return json.dumps(value, sort_keys=True)


def test_a_memory_is_kept_found_changed_and_forgotten(running: Stack, tenant: Tenant) -> None:
    client = running.of(tenant)
    made = client.post("/memories", json={"content": "rain on Tuesday", "metadata": METADATA})
    assert made.status_code == 201
    memory = made.json()
    path = made.headers["location"]
    assert path == f"/memories/{memory['id']}"
    assert exact(memory["metadata"]) == exact(METADATA)
    assert memory["revision"] == 1
    assert client.get(path).json() == memory
    running.index()
    (found,) = client.post("/memories/search", json={"query": "rain"}).json()["results"]
    assert (found["memory_id"], found["content"]) == (memory["id"], "rain on Tuesday")
    assert exact(found["metadata"]) == exact(METADATA)
    assert found["created_at"] == f"{memory['created_at'][:19]}Z"

    changed = client.patch(path, json={"metadata": {"only": 1}}).json()
    assert (changed["content"], changed["metadata"], changed["revision"]) == ("rain on Tuesday", {"only": 1}, 2)
    changed = client.patch(path, json={"content": "snow"}).json()
    assert (changed["content"], changed["metadata"], changed["revision"]) == ("snow", {"only": 1}, 3)
    running.index()
    (found,) = client.post("/memories/search", json={"query": "snow", "where": {"only": 1}}).json()["results"]
    assert (found["content"], found["metadata"]) == ("snow", {"only": 1})
    assert client.post("/memories/search", json={"query": "snow", "where": {"whole": 1}}).json()["results"] == []
    assert client.patch(path, json={"metadata": {}}).json()["metadata"] == {}

    assert client.delete(path).status_code == 204
    for method in ("GET", "DELETE"):
        assert client.request(method, path).status_code == 404
    assert client.patch(path, json={"content": "x"}).status_code == 404
    running.index()
    assert client.post("/memories/search", json={"query": "snow"}).json()["results"] == []


def test_a_change_leaves_what_it_does_not_name_to_the_last_digit(running: Stack, tenant: Tenant) -> None:
    """Also what another writer put there, and no number of Python's has room for."""
    client = running.of(tenant)
    path = client.post("/memories", json={"content": "x"}).headers["location"]
    long = "0.1234567890123456789012345"
    running.rows(
        "UPDATE memory_logs SET raw_data = %s WHERE id = %s RETURNING id",
        *(f'{{"content": "x", "metadata": {{"n": {long}}}, "more": 1.10}}', int(path.rpartition("/")[2])),
    )
    client.patch(path, json={"content": "y"}).raise_for_status()
    (row,) = running.rows("SELECT raw_data::text FROM memory_logs WHERE id = %s", int(path.rpartition("/")[2]))
    assert long in row[0]
    assert "1.10" in row[0]


def test_a_record_of_another_writer_is_shown_as_far_as_it_is_a_memory(running: Stack, tenant: Tenant) -> None:
    client = running.of(tenant)
    client.post("/memories", json={"content": "x"}).raise_for_status()
    for raw in ("{}", '{"content": 5}', '{"content": "x", "metadata": []}', '{"content": "x", "metadata": null}'):
        running.rows(
            "INSERT INTO memory_logs (user_id, project_id, raw_data) VALUES (%s, %s, %s) RETURNING id",
            *(tenant.user_id, tenant.project_id, raw),
        )
    page = client.get("/memories").raise_for_status().json()
    assert [memory["metadata"] for memory in page["memories"]] == [{}] * 5
    assert [memory["content"] for memory in page["memories"]] == ["x", "x", "5", "", "x"]
    running.execute("DELETE FROM outbox")  # nothing that an index can take


def test_pages_hold_everything_once_while_others_write(running: Stack, tenant: Tenant) -> None:
    client = running.of(tenant)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.post("/memories", json={"content": f"rain {n}"}).raise_for_status(), range(45)))
    seen: list[int] = []
    cursor = None
    while True:
        page = client.get("/memories", params={"limit": 10, **({"cursor": cursor} if cursor else {})}).json()
        seen += [memory["id"] for memory in page["memories"]]
        client.post("/memories", json={"content": "written meanwhile"}).raise_for_status()
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == 45
    assert seen == sorted(set(seen), reverse=True)


TEXT = "\n\n".join(f"Paragraph {n}. " + "It says something of the weather. " * 12 for n in range(12))


def test_a_document_is_cut_listed_found_and_removed(running: Stack, tenant: Tenant) -> None:
    client = running.of(tenant)
    body = {"content": TEXT, "source": "almanac.md", "metadata": {"language": "en", "n": 1.0}}
    made = client.post("/rag/documents", json=body)
    assert made.status_code == 201
    document = made.json()
    assert made.headers["location"] == f"/rag/documents/{document['id']}"
    assert exact(document["metadata"]) == exact(body["metadata"])
    assert document["source"] == "almanac.md"
    assert document["passages"] > 3
    other = client.post("/rag/documents", json={"content": "hail", "source": "short.md"}).json()
    assert (other["passages"], other["metadata"]) == (1, {})

    listed = client.get("/rag/documents").json()
    assert listed == {"documents": [other, document], "next": None}
    first = client.get("/rag/documents", params={"limit": 1}).json()
    assert first["documents"] == [other]
    assert client.get("/rag/documents", params={"limit": 1, "cursor": first["next"]}).json() == {
        "documents": [document],
        "next": None,
    }
    whole = client.get(made.headers["location"]).json()
    texts = whole.pop("texts")
    assert whole == document
    assert len(texts) == document["passages"]
    assert texts[0].startswith("Paragraph 0.")
    assert all(f"Paragraph {n}." in " ".join(texts) for n in range(12))

    running.index()
    where = {"document_id": document["id"]}
    found = client.post("/rag/query", json={"query": "weather", "limit": 100, "where": where}).json()["results"]
    assert sorted(one["passage"] for one in found) == list(range(document["passages"]))
    assert {one["document_id"] for one in found} == {document["id"]}
    assert {exact(one["metadata"]) for one in found} == {exact(body["metadata"])}
    assert [texts[one["passage"]] for one in found] == [one["content"] for one in found]

    # a passage is no memory
    assert client.get(f"/memories/{found[0]['id']}").status_code == 404
    assert client.get("/memories").json()["memories"] == []

    assert client.delete(made.headers["location"]).status_code == 204
    for method in ("GET", "DELETE"):
        gone = client.request(method, made.headers["location"])
        assert gone.status_code == 404
        assert gone.json()["type"].endswith("unknown-document")
    running.index()
    left = client.post("/rag/query", json={"query": "weather", "limit": 100}).json()["results"]
    assert [one["document_id"] for one in left] == [other["id"]]
    assert client.get("/rag/documents").json()["documents"] == [other]


@pytest.mark.parametrize(
    "content",
    [
        "x" * 262_144,
        "\u200b",
        "漢字" * 50_000,
        "a" + "\u0301" * 100_000,
        "\U0001f327" * 60_000,
        "\ufeff",
        "\\" * 100_000,
    ],
    ids=["long", "invisible", "no spaces", "one letter", "four bytes", "mark", "escaped"],
)
def test_odd_but_valid_texts_are_kept_as_they_are(running: Stack, tenant: Tenant, content: str) -> None:
    client = running.of(tenant)
    path = client.post("/memories", json={"content": content}).raise_for_status().headers["location"]
    assert client.get(path).json()["content"] == content
    document = client.post("/rag/documents", json={"content": content, "source": "odd"}).raise_for_status().json()
    texts = client.get(f"/rag/documents/{document['id']}").json()["texts"]
    assert len(texts) == document["passages"] > 0
    assert set("".join(texts)) == set(content)


@pytest.mark.parametrize("size", [1_048_576, 1_048_577, 5_000_000])
def test_a_body_may_have_a_mebibyte(running: Stack, tenant: Tenant, size: int) -> None:
    start, end = b'{"content": "', b'"}'
    body = start + b"x" * (size - len(start) - len(end)) + end
    response = running.of(tenant).post("/memories", content=body, headers={"content-type": "application/json"})
    # within the limit it is read, and then its text is too long
    assert response.status_code == (422 if size == 1_048_576 else 413)
    assert running.api.http.get("/health").status_code == 200


@pytest.mark.parametrize("encoded", [False, True])
def test_ids_may_be_percent_encoded(running: Stack, tenant: Tenant, encoded: bool) -> None:
    client = running.of(tenant)
    id_ = str(client.post("/memories", json={"content": "x"}).json()["id"])
    spelled = "".join(f"%{ord(digit):02x}" for digit in id_) if encoded else id_
    assert client.get(f"/memories/{spelled}").json()["content"] == "x"
    assert client.get(f"/memories/{id_}%00").status_code == 422
    assert client.get(f"/memories/{id_}%2f..").status_code == 404
