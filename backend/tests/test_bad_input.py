"""Rubbish in, clean refusals out: always a problem with a stable type, never a 5xx, never the input echoed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from support.service import Records, fill, in_process, remember

PATHS = ("/rag/query", "/memories/search")
RECORDS: Records = {"a": ("some rain", {"k": 1, "f": 0.5, "s": "x", "b": True}), "b": ("no sun", {"k": 2})}
DOCUMENT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("bad-input")
    fill(folder / "rag", "passages", RECORDS)
    remember(folder / "memory", "memory", [{"content": text, "metadata": dict(one)} for text, one in RECORDS.values()])
    with in_process(folder) as running:
        yield running


def post(client: TestClient, path: str, body: bytes | str, kind: str = "application/json") -> Any:
    return client.post(path, content=body, headers={"content-type": kind})


def is_problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:chroma-stack:problem:{kind}"
    assert problem["status"] == status
    assert problem["detail"]
    assert len(response.content) < 2500
    return problem


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 422, "invalid-request"),
        (b"{", 400, "bad-request"),
        (b"null", 422, "invalid-request"),
        (b"[]", 422, "invalid-request"),
        (b"\xff\xfe", 400, "bad-request"),
        (b'{"query": "\xff"}', 400, "bad-request"),
        (b"{'query': 'x'}", 400, "bad-request"),
        (b'{"query": "x"} {}', 400, "bad-request"),
        (b'{"query": "x"', 400, "bad-request"),
        (b'{"query": 1}', 422, "invalid-request"),
        (b'{"query": ""}', 422, "invalid-request"),
        (b'{"query": " \\n"}', 422, "invalid-request"),
        (b'{"query": "' + b"x" * 8193 + b'"}', 422, "invalid-request"),
        (b'{"query": "\\ud800"}', 422, "invalid-request"),
        (b'{"query": "x", "limit": 0}', 422, "invalid-request"),
        (b'{"query": "x", "limit": 101}', 422, "invalid-request"),
        (b'{"query": "x", "limit": "5"}', 422, "invalid-request"),
        (b'{"query": "x", "limit": true}', 422, "invalid-request"),
        (b'{"query": "x", "limit": 1e400}', 422, "invalid-request"),
        (b'{"query": "x", "limit": ' + b"9" * 5000 + b"}", 400, "bad-request"),
        (b'{"query": "x", "\\ud800": 1}', 422, "invalid-request"),
        (b'{"query": "x", "colection": ["a"]}', 422, "invalid-request"),
        (b'{"query": "x", "tenant": "bob"}', 422, "invalid-request"),
        (b'{"query": "x", "where": []}', 422, "invalid-request"),
        (b'{"query": "x", "where": {"k": {"$foo": 1}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$where": "1"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$contains": "x"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$in": [1]}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$not": {"k": 1}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"#document": {"$contains": "a"}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"chroma:document": "some rain"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": null}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": [1]}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$eq": [1]}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$eq": {"$eq": 1}}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$gt": true}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$gt": "1"}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$gt": 1, "$lt": 2}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"": 1}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": NaN}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": 1e999}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": 99999999999999999999}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": "\\ud800"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"\\udfff": 1}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$and": []}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$or": [{"k": 1}]}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$and": {"k": 1}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$and": [1, 2]}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": []}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": "x"}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": [1, "a"]}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": [1, true]}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": [1, 1.0]}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": 1, "s": "x"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": "' + b"x" * 8193 + b'"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"' + b"k" * 8193 + b'": 1}}', 400, "filter-refused"),
        (b'{"query": "x", "where": ' + b'{"$and":[' * 20 + b"1" + b"]}" * 20 + b"}", 400, "filter-refused"),
        (b'{"query": "x", "where": ' + b'{"$or":[{"k":1},' * 9 + b'{"k":1}' + b"]}" * 9 + b"}", 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": [' + b"1," * 2000 + b"1]}}}", 400, "filter-refused"),
        (b'{"query": "x", "where": {"$or": [' + b'{"k":1},' * 100 + b'{"k":1}]}}', 400, "filter-refused"),
        (b'{"query": "x", "where": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", 400, "bad-request"),
        (b'{"query": "x", "where": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "bad-request"),
        (b'{"query": "' + b"x" * 1_100_000 + b'"}', 413, "body-too-large"),
    ],
)
def test_refuses_cleanly(client: TestClient, path: str, body: bytes, status: int, kind: str) -> None:
    is_problem(post(client, path, body), status, kind)


INVALID_METADATA = [
    b'{"k": null}',
    b'{"k": [1]}',
    b'{"k": {}}',
    b'{"k": 9223372036854775808}',
    b'{"k": -9223372036854775809}',
    b'{"k": 1e999}',
    b'{"k": NaN}',
    b'{"k": "a\\u0000b"}',
    b'{"k": "\\ud800"}',
    b'{"k": "' + b"x" * 8193 + b'"}',
    b'{"": 1}',
    b'{"\\u0000": 1}',
    b'{"\\udfff": 1}',
    b'{"' + b"k" * 129 + b'": 1}',
    b'{"created_at": 1}',
    b'{"chroma:document": "x"}',
    b'{"#document": "x"}',
    b'{"$and": "x"}',
    b"{" + b",".join(b'"k%d": 1' % n for n in range(65)) + b"}",
    b"[]",
    b"null",
    b'"x"',
]


@pytest.mark.parametrize("metadata", INVALID_METADATA)
@pytest.mark.parametrize(
    ("method", "path", "source"),
    [("POST", "/memories", b""), ("PATCH", "/memories/1", b""), ("POST", "/rag/documents", b', "source": "s"')],
)
def test_refuses_what_an_index_cannot_hold(
    client: TestClient, method: str, path: str, source: bytes, metadata: bytes
) -> None:
    body = b'{"content": "x", "metadata": ' + metadata + source + b"}"
    response = client.request(method, path, content=body, headers={"content-type": "application/json"})
    problem = is_problem(response, 422, "invalid-request")
    assert any("metadata" in mistake["where"] + mistake["message"] for mistake in problem["errors"])


@pytest.mark.parametrize(
    "content", [b'""', b'" \\n\\t"', b"null", b"1", b'"a\\u0000b"', b'"\\ud800"', b'"' + b"x" * 262_145 + b'"', b"[]"]
)
@pytest.mark.parametrize(
    ("method", "path", "rest"),
    [("POST", "/memories", b""), ("PATCH", "/memories/1", b""), ("POST", "/rag/documents", b', "source": "s"')],
)
def test_refuses_what_is_no_text(client: TestClient, method: str, path: str, rest: bytes, content: bytes) -> None:
    body = b'{"content": ' + content + rest + b"}"
    response = client.request(method, path, content=body, headers={"content-type": "application/json"})
    is_problem(response, 422, "invalid-request")


@pytest.mark.parametrize("source", ["", "x" * 513, "a\x00", None, 1, ["x"]])
def test_refuses_what_is_no_source(client: TestClient, source: object) -> None:
    is_problem(client.post("/rag/documents", json={"content": "x", "source": source}), 422, "invalid-request")


@pytest.mark.parametrize("key", ["source", "passage", "document_id"])
def test_what_the_service_writes_for_a_passage_never_takes_the_place_of_the_callers(
    client: TestClient, key: str
) -> None:
    body = {"content": "x", "source": "s", "metadata": {key: "mine", "other": 1}}
    problem = is_problem(client.post("/rag/documents", json=body), 422, "invalid-request")
    assert f"the service writes {key}" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "nothing is to be changed"),
        ({"content": None}, "content: null is no value"),
        ({"metadata": None}, "metadata: null is no value"),
        ({"content": "x", "metadata": None}, "metadata: null is no value"),
        ({"revision": 2}, "revision"),
    ],
)
def test_a_change_says_what_it_changes(client: TestClient, body: dict[str, object], says: str) -> None:
    problem = is_problem(client.patch("/memories/1", json=body), 422, "invalid-request")
    assert says in problem["detail"]


@pytest.mark.parametrize("names", [["x" * 513], ["a"] * 65, "passages", [1], [None]])
def test_refuses_rubbish_for_names(client: TestClient, names: object) -> None:
    is_problem(client.post("/rag/query", json={"query": "x", "collections": names}), 422, "invalid-request")


IDS = ["0", "-1", "x", "1.5", "1e3", str(2**63), "9" * 5000, "%00", "%31%00", "\uff11", "0x1", "..%2f1", "%2e%2e", " "]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("id_", IDS)
def test_refuses_ids_that_are_none(client: TestClient, method: str, id_: str) -> None:
    response = client.request(method, f"/memories/{id_}", json={"content": "x"} if method == "PATCH" else None)
    if response.status_code == 404:  # it is another path then, which there is none of
        is_problem(response, 404, "not-found")
    else:
        is_problem(response, 422, "invalid-request")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("id_", ["1", "x", f"{DOCUMENT}x", "%00", "' OR true --"])
def test_refuses_ids_of_documents_that_are_none(client: TestClient, method: str, id_: str) -> None:
    is_problem(client.request(method, f"/rag/documents/{id_}"), 422, "invalid-request")


@pytest.mark.parametrize("path", ["/memories", "/rag/documents"])
@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ({"limit": "0"}, 422, "invalid-request"),
        ({"limit": "201"}, 422, "invalid-request"),
        ({"limit": "x"}, 422, "invalid-request"),
        ({"limit": "9" * 5000}, 422, "invalid-request"),
        ({"cursor": "x"}, 400, "invalid-cursor"),
        ({"cursor": "0"}, 400, "invalid-cursor"),
        ({"cursor": "-5"}, 400, "invalid-cursor"),
        ({"cursor": "\uff15"}, 400, "invalid-cursor"),
        ({"cursor": str(2**63)}, 400, "invalid-cursor"),
        ({"cursor": "1; DROP TABLE memory_logs"}, 400, "invalid-cursor"),
        ({"cursor": "1\x00"}, 400, "invalid-cursor"),
        ({"cursor": "1" * 65}, 422, "invalid-request"),
    ],
)
def test_refuses_made_up_places_in_a_list(
    client: TestClient, path: str, query: dict[str, str], status: int, kind: str
) -> None:
    is_problem(client.get(path, params=query), status, kind)


@pytest.mark.parametrize(
    "query", ["a\x00b", "\x00", "' OR 1=1; DROP TABLE collections; --", "…", "x" * 8192, "\U0001f327", "\ufeff"]
)
@pytest.mark.parametrize("path", PATHS)
def test_odd_but_valid_texts_are_searched(client: TestClient, path: str, query: str) -> None:
    response = client.post(path, json={"query": query, "where": {"s\x00": query[:100]}})
    assert response.status_code == 200
    assert response.json()["results"] == []
    assert len(client.post(path, json={"query": query}).json()["results"]) == 2


@pytest.mark.parametrize("path", PATHS)
def test_of_a_repeated_key_the_last_counts(client: TestClient, path: str) -> None:
    for body, expected in (
        (b'{"query": "rain", "where": {"k": 1}, "where": {"k": 7}}', 0),
        (b'{"query": "rain", "where": {"k": 7}, "where": {"k": 1}}', 1),
        (b'{"query": "rain", "where": {"k": 7, "k": 1}}', 1),
    ):
        assert len(post(client, path, body).json()["results"]) == expected


@pytest.mark.parametrize("path", [*PATHS, "/memories", "/rag/documents"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json", ""])
def test_a_body_of_another_kind_is_told_what_to_be(client: TestClient, path: str, kind: str) -> None:
    problem = is_problem(post(client, path, '{"query": "x", "content": "x"}', kind), 422, "invalid-request")
    assert "content-type: application/json" in problem["detail"]


@pytest.mark.parametrize("path", ["/nowhere", "/memories/1/2", "/memories/", "//memories", "/rag"])
def test_unknown_paths_are_problems_too(client: TestClient, path: str) -> None:
    is_problem(client.get(path, follow_redirects=False), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/rag/query", "POST"),
        ("GET", "/memories/search", "POST"),
        ("PATCH", "/memories/search", "POST"),
        ("DELETE", "/memories/search", "POST"),
        ("PUT", "/memories/1", "DELETE, GET, PATCH"),
        ("OPTIONS", "/memories/1", "DELETE, GET, PATCH"),
        ("HEAD", "/memories", "GET, POST"),
        ("TRACE", "/memories", "GET, POST"),
        ("BREW", "/memories", "GET, POST"),
        ("PUT", f"/rag/documents/{DOCUMENT}", "DELETE, GET"),
        ("HEAD", "/health", "GET"),
    ],
)
def test_unknown_methods_are_told_the_known_ones(client: TestClient, method: str, path: str, allowed: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["allow"] == allowed


def test_a_body_is_refused_before_it_is_read_to_its_end(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 65536
            yield b" " * 65536

    response = client.post("/rag/query", content=endless())
    assert response.status_code == 413


def test_neither_texts_nor_filters_reach_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = "xyzzy-plugh"
    for where in ({"k": {"$foo": secret}}, {"k": secret}, {"k": {"$gt": secret}}, None):
        client.post("/rag/query", json={"query": secret, "where": where, "collections": ["passages"]})
    client.post("/rag/query", json={"query": [secret]})
    # there is no PostgreSQL here, so this fails on the way to it
    assert client.post("/memories", json={"content": secret, "metadata": {"k": secret}}).status_code == 503
    assert client.post("/rag/documents", json={"content": secret, "source": secret}).status_code == 503
    assert secret not in caplog.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(), max_size=8)
            | st.sampled_from(["k", "s", "$and", "$or", "$in", "$nin", "$gt", "$eq", "$contains", "#document"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
FIELDS = {"limit": JSON | st.just(3), "where": JSON, "collections": JSON, "own": JSON}


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=100, deadline=None)
@given(body=st.fixed_dictionaries({"query": JSON | st.just("rain")}, optional=FIELDS) | JSON)
def test_no_json_gets_a_5xx(client: TestClient, path: str, body: object) -> None:
    response = post(client, path, json.dumps(body))
    assert response.status_code in (200, 400, 404, 422), (response.status_code, response.text)


def one_entry(keys: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), values, min_size=1, max_size=1)


SCALARS = st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3) | st.booleans()
BIG = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SETS = st.lists(st.integers(-3, 3), min_size=1, max_size=4) | st.lists(st.text(max_size=2), min_size=1, max_size=3)
EQUALITY = one_entry(["$eq", "$ne", "$contains", "$not_contains"], SCALARS | BIG)
ORDER = one_entry(["$gt", "$gte", "$lt", "$lte"], st.integers(-5, 5) | st.floats(-2, 2) | BIG)
KEYS = ["k", "f", "s", "b", "none", "a\x00", "é"]
WHERE = st.recursive(
    one_entry(KEYS, SCALARS | BIG | EQUALITY | ORDER | one_entry(["$in", "$nin"], SETS)),
    lambda inner: one_entry(["$and", "$or"], st.lists(inner, min_size=2, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(where=WHERE)
def test_a_filter_of_the_right_form_is_never_refused(client: TestClient, where: dict[str, Any]) -> None:
    response = client.post("/rag/query", json={"query": "rain", "where": where})
    assert response.status_code == 200, (response.status_code, response.text)
