"""Two tenants, and one of them means harm: whatever it sends, it sees and changes nothing of the other's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.core.memory.tenant import Tenant
from support.postgres import Postgres
from support.stack import Stack, stack

# Pairs that a careless way to join user and project would take for one another.
PAIRS = [
    (Tenant("ann", "first"), Tenant("bob", "first")),
    (Tenant("a", "bc"), Tenant("ab", "c")),
    (Tenant("a", "b/c"), Tenant("a/b", "c")),
    (Tenant("A", "x"), Tenant("a", "x")),
    (Tenant("é", "x"), Tenant("e\u0301", "x")),
    (Tenant("a-b", "c"), Tenant("a", "b-c")),
    (Tenant("%", "x"), Tenant("_", "x")),
]
SECRET = "xyzzy"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Stack]:
    """Every tenant has two memories and a document, all with the same words, told apart by the owner's mark."""
    with stack(tmp_path_factory.mktemp("tenants"), postgres, {"RAG_COLLECTIONS": "*"}) as made:
        for tenant in {tenant for pair in PAIRS for tenant in pair}:
            client = made.of(tenant)
            for content in ("rain", "snow"):
                body = {"content": f"{content} {SECRET} {tenant.mark}", "metadata": {"owner": tenant.mark}}
                client.post("/memories", json=body).raise_for_status()
            body = {"content": f"rain {SECRET} {tenant.mark}", "source": "s", "metadata": {"owner": tenant.mark}}
            client.post("/rag/documents", json=body).raise_for_status()
        made.index()
        yield made


def state(running: Stack, tenant: Tenant) -> list[tuple[Any, ...]]:
    """All that the database has of a tenant."""
    return running.rows(
        "SELECT id, revision, raw_data, updated_at, document_id FROM memory_logs "
        "WHERE user_id = %s AND project_id = %s ORDER BY id",
        *(tenant.user_id, tenant.project_id),
    )


def ids_of(running: Stack, tenant: Tenant, kind: str = "memory") -> list[int]:
    query = "SELECT id FROM memory_logs WHERE user_id = %s AND project_id = %s AND kind = %s ORDER BY id"
    return [row[0] for row in running.rows(query, tenant.user_id, tenant.project_id, kind)]


def document_of(running: Stack, tenant: Tenant) -> str:
    query = "SELECT DISTINCT document_id FROM memory_logs WHERE user_id = %s AND project_id = %s AND kind = 'passage'"
    return str(running.rows(query, tenant.user_id, tenant.project_id)[0][0])


def unknown(response: httpx.Response, other: Tenant) -> None:
    assert response.status_code == 404, response.text
    assert other.mark not in response.text
    assert SECRET not in response.text


def told(response: httpx.Response) -> str:
    problem = response.json()
    return f"{problem['type']} {problem['detail']} {problem.get('hint')}"


@pytest.mark.parametrize(("thief", "victim"), [*PAIRS, *[(second, first) for first, second in PAIRS]], ids=str)
def test_nothing_is_seen_or_changed(running: Stack, thief: Tenant, victim: Tenant) -> None:
    before = state(running, victim)
    client = running.of(thief)
    for memory_id in (*ids_of(running, victim), *ids_of(running, victim, "passage")):
        for path in (f"/memories/{memory_id}", f"/memories/%{ord(str(memory_id)[0]):x}{str(memory_id)[1:]}"):
            unknown(client.get(path), victim)
            unknown(client.patch(path, json={"content": "mine now"}), victim)
            unknown(client.delete(path), victim)
    document = document_of(running, victim)
    for spelled in (document, document.upper(), document.replace("-", ""), f"%7B{document}%7D", f"urn:uuid:{document}"):
        unknown(client.get(f"/rag/documents/{spelled}"), victim)
        unknown(client.delete(f"/rag/documents/{spelled}"), victim)
    for kind in ("memory", "passage"):
        name = victim.collection(kind)
        for names in ([name], [name.upper()], [f"{name}\x00"], ["*"]):
            there = client.post("/rag/query", json={"query": "rain", "collections": names})
            made_up = [one.replace(victim.mark, "0" * 12) for one in names]
            nowhere = client.post("/rag/query", json={"query": "rain", "collections": made_up})
            assert (there.status_code, nowhere.status_code) == (404, 404)
            # what was asked for is repeated, and nothing tells whether it exists
            assert told(there).replace(victim.mark, "0" * 12) == told(nowhere)
    assert state(running, victim) == before


def filters(running: Stack, victim: Tenant) -> list[dict[str, Any]]:
    """Filters that would find the victim's records, wherever they were applied to all."""
    return [
        {"owner": victim.mark},
        {"owner": {"$ne": "nobody"}},
        {"owner": {"$nin": ["nobody"]}},
        {"$or": [{"owner": victim.mark}, {"owner": {"$ne": "x"}}]},
        {"user_id": victim.user_id},
        {"user_id": {"$ne": "nobody"}},
        {"document_id": document_of(running, victim)},
        {"owner' OR user_id IS NOT NULL --": {"$ne": 1}},
        {"owner": {"$ne": "') OR true --"}},
        {"created_at": {"$gte": 0}},
    ]


@pytest.mark.parametrize("degraded", [False, True])
@pytest.mark.parametrize(("thief", "victim"), PAIRS, ids=str)
def test_no_filter_finds_what_is_anothers(
    running: Stack, without_chroma: None, thief: Tenant, victim: Tenant, degraded: bool
) -> None:
    for where in filters(running, victim):
        for path in ("/memories/search", "/rag/query"):
            response = running.of(thief).post(path, json={"query": SECRET, "limit": 100, "where": where})
            answer = response.raise_for_status().json()
            assert answer["degraded"] is degraded
            assert victim.mark not in response.text
            assert {one["metadata"]["owner"] for one in answer["results"]} <= {thief.mark}


@pytest.fixture
def without_chroma(running: Stack, degraded: bool) -> Iterator[None]:
    """Chroma is away during the test, if it is to be."""
    if degraded:
        running.chroma.kill()
    yield
    if degraded:
        running.chroma.process.start()
        running.chroma.process.wait_until(lambda: running.api.chroma_health().status_code == 200)


@pytest.mark.parametrize(("thief", "victim"), PAIRS, ids=str)
def test_lists_hold_ones_own_whatever_the_cursor(running: Stack, thief: Tenant, victim: Tenant) -> None:
    everybodys = [row[0] for row in running.rows("SELECT id FROM memory_logs ORDER BY id")]
    for cursor in (None, 1, everybodys[-1] + 1, 2**63 - 1, *(id_ + 1 for id_ in ids_of(running, victim))):
        place = {} if cursor is None else {"cursor": cursor}
        for path, name in (("/memories", "memories"), ("/rag/documents", "documents")):
            response = running.of(thief).get(path, params={**place, "limit": 200}).raise_for_status()
            assert victim.mark not in response.text
            assert {one["metadata"]["owner"] for one in response.json()[name]} <= {thief.mark}


@pytest.mark.parametrize(("thief", "victim"), PAIRS, ids=str)
def test_the_tenant_is_the_keys_whatever_is_claimed(running: Stack, thief: Tenant, victim: Tenant) -> None:
    client = running.of(thief)
    for claimed in (str(victim), f"{victim.user_id}/", victim.project_id, "", "*"):
        response = client.get("/memories", headers={b"X-Tenant": claimed.encode()})
        if claimed == str(thief):  # "a/b/c" is what both are called; the key decides
            assert victim.mark not in response.raise_for_status().text
        else:
            unknown(response, victim)
    assert client.get("/memories", headers={b"X-Tenant": str(thief).encode()}).status_code == 200
    for body in ({"user_id": victim.user_id}, {"tenant": str(victim)}, {"project_id": victim.project_id}):
        assert client.post("/memories", json={"content": "x", **body}).status_code == 422
        assert client.post("/memories/search", json={"query": "x", **body}).status_code == 422
    claims: dict[str, Any] = {"user_id": victim.user_id, "project_id": victim.project_id, "limit": 200}
    assert victim.mark not in client.get("/memories", params=claims).raise_for_status().text


def test_a_key_that_is_wrong_opens_nothing(running: Stack) -> None:
    key = running.key()
    wrong = [
        "",
        "x",
        key[:-1],
        key + "x",
        key.upper(),
        key.replace("cs_", "cs-"),
        f"{key[:20]}{'A' * 43}",
        running.key(Tenant("bob", "first"))[:20] + key[20:],
        "cs_" + "0" * 16 + "_" + "A" * 43,
        "' OR true --",
        "%" * 100,
    ]
    for text in wrong:
        for headers in (
            {"Authorization": f"Bearer {text}".strip()},
            {"X-API-Key": text},
            {"Authorization": f"Basic {text}".strip()},
        ):
            response = running.api.http.get("/memories", headers=headers)
            assert response.status_code == 401, (headers, response.text)
            assert response.headers["www-authenticate"] == "Bearer"
            assert SECRET not in response.text
    for name in ("api_key", "key", "token"):
        assert running.api.http.get("/memories", params={name: key}).status_code == 401


def test_names_of_tenants_are_shown_to_nobody(running: Stack) -> None:
    for path in ("/health", "/health/ready", "/health/chromadb", "/metrics", "/openapi.json"):
        text = running.api.http.get(path).raise_for_status().text
        for tenant in {tenant for pair in PAIRS for tenant in pair}:
            assert tenant.mark not in text
            assert tenant.collection("memory") not in text
