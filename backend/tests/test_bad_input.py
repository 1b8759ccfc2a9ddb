"""Rubbish in, clean refusals out: always a problem with a stable type, never a 5xx, never the input echoed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from support.service import Records, fill, in_process

PATHS = ("/rag/query", "/memories/search")
RECORDS: Records = {"a": ("some rain", {"k": 1, "f": 0.5, "s": "x", "b": True}), "b": ("no sun", {"k": 2})}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("bad-input")
    fill(folder / "rag", "passages", RECORDS)
    fill(folder / "memory", "memories", RECORDS)
    with in_process(folder) as running:
        yield running


def post(client: TestClient, path: str, body: bytes | str) -> Any:
    return client.post(path, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 422, "invalid-request"),
        (b"{", 422, "invalid-request"),
        (b"null", 422, "invalid-request"),
        (b"[]", 422, "invalid-request"),
        (b"\xff\xfe", 422, "invalid-request"),
        (b'{"query": 1}', 422, "invalid-request"),
        (b'{"query": ""}', 422, "invalid-request"),
        (b'{"query": " \\n"}', 422, "invalid-request"),
        (b'{"query": "' + b"x" * 8193 + b'"}', 422, "invalid-request"),
        (b'{"query": "\\ud800"}', 422, "invalid-request"),
        (b'{"query": "x", "limit": 0}', 422, "invalid-request"),
        (b'{"query": "x", "limit": 101}', 422, "invalid-request"),
        (b'{"query": "x", "limit": "5"}', 422, "invalid-request"),
        (b'{"query": "x", "limit": 1e400}', 422, "invalid-request"),
        (b'{"query": "x", "limit": ' + b"9" * 5000 + b"}", 400, "bad-request"),
        (b'{"query": "x", "\\ud800": 1}', 422, "invalid-request"),
        (b'{"query": "x", "colection": ["a"]}', 422, "invalid-request"),
        (b'{"query": "x", "where": []}', 422, "invalid-request"),
        (b'{"query": "x", "where": {"k": {"$foo": 1}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$where": "1"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": null}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$gt": true}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"": 1}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": NaN}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": 1e999}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": 99999999999999999999}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": "\\ud800"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"\\udfff": 1}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"$and": []}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": [1, "a"]}}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": 1, "s": "x"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": "' + b"x" * 8193 + b'"}}', 400, "filter-refused"),
        (b'{"query": "x", "where": ' + b'{"$and":[' * 20 + b"1" + b"]}" * 20 + b"}", 400, "filter-refused"),
        (b'{"query": "x", "where": {"k": {"$in": [' + b"1," * 2000 + b"1]}}}", 400, "filter-refused"),
        (b'{"query": "x", "where": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", 400, "bad-request"),
        (b'{"query": "' + b"x" * 1_100_000 + b'"}', 413, "body-too-large"),
    ],
)
def test_refuses_cleanly(client: TestClient, path: str, body: bytes, status: int, kind: str) -> None:
    response = post(client, path, body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:chroma-stack:problem:{kind}"
    assert problem["status"] == status
    assert problem["detail"]
    assert len(response.content) < 2500


@pytest.mark.parametrize("names", [[], ["x" * 513], ["a"] * 65, "passages", [1], [None]])
def test_refuses_rubbish_for_names(client: TestClient, names: object) -> None:
    response = client.post("/rag/query", json={"query": "x", "collections": names})
    assert response.status_code == 422


@pytest.mark.parametrize(
    "query", ["a\x00b", "\x00", "' OR 1=1; DROP TABLE collections; --", "…", "x" * 8192, "\U0001f327", "\ufeff"]
)
@pytest.mark.parametrize("path", PATHS)
def test_odd_but_valid_texts_are_searched(client: TestClient, path: str, query: str) -> None:
    response = client.post(path, json={"query": query, "where": {"s\x00": query[:100]}})
    assert response.status_code == 200
    assert response.json()["results"] == []
    assert len(client.post(path, json={"query": query}).json()["results"]) == 2


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/rag/query", 405)])
def test_unknown_routes_are_problems_too(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


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
FIELDS = {"limit": JSON | st.just(3), "where": JSON, "collections": JSON}


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
OPERATORS = one_entry(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains", "$not_contains"], SCALARS | BIG)
KEYS = ["k", "f", "s", "b", "none", "#document", "chroma:document", "a\x00", "é"]
WHERE = st.recursive(
    one_entry(KEYS, SCALARS | BIG | OPERATORS | one_entry(["$in", "$nin"], SETS)),
    lambda inner: one_entry(["$and", "$or"], st.lists(inner, min_size=2, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(where=WHERE)
def test_no_filter_of_the_right_form_gets_a_5xx(client: TestClient, where: dict[str, Any]) -> None:
    response = client.post("/rag/query", json={"query": "rain", "where": where})
    assert response.status_code in (200, 400), (response.status_code, response.text)
