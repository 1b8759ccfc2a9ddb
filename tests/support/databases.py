"""Filling Chroma servers and reading them, without chromactl: by plain REST, and by Chroma's own client.

Chroma's client of today cannot talk to 0.4.24, so this one is read by plain REST too.
"""

from __future__ import annotations

import math
import ssl
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import chromadb
import httpx
import numpy as np
import orjson
from chromadb.config import Settings
from numpy.typing import NDArray

from support.records import Made, Record
from support.servers import Server

DEFAULT = "default_database"
COSINE_ROUNDING = 3e-7
FLOAT_ULPS = 2
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the CA bundle for every request would take longest
_LEGACY_KEYS = {
    "ef_construction": "hnsw:construction_ef",
    "ef_search": "hnsw:search_ef",
    "max_neighbors": "hnsw:M",
    "sync_threshold": "hnsw:sync_threshold",
}


@dataclass(frozen=True, slots=True)
class Database:
    """One database of a running server."""

    server: Server
    name: str = DEFAULT

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def root(self) -> str:
        return f"{self.url}/api/v2/tenants/default_tenant/databases/{self.name}"

    def _address(self, path: str) -> str:
        if self.server.version == "0.4.24":
            return f"{self.url}/api/v1{path}?tenant=default_tenant&database={self.name}"
        return self.root + path

    def request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json", **self.server.credentials}
        content = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        with httpx.Client(trust_env=False, timeout=60, verify=_NO_TLS) as client:
            answer = client.request(method, self._address(path), content=content, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    # Filling

    def put(self, *collections: Made) -> None:
        """Make the collections and add their records."""
        for made in collections:
            body: dict[str, Any] = {"name": made.name, "metadata": made.metadata}
            if self.server.modern:
                body["configuration"] = {"hnsw": {"space": made.space, **made.hnsw}}
            else:
                settings = {_LEGACY_KEYS[key]: value for key, value in made.hnsw.items()}
                body["metadata"] = {**(made.metadata or {}), "hnsw:space": made.space, **settings}
            key = self.request("POST", "/collections", body)["id"]
            if made.records:
                self._write(key, "add", made.records)

    def upsert(self, collection: str, *records: Record) -> None:
        self._write(self._key(collection), "upsert", records)

    def delete(self, collection: str, *ids: str) -> None:
        self.request("POST", f"/collections/{self._key(collection)}/delete", {"ids": ids})

    def drop(self, collection: str) -> None:
        self.request("DELETE", f"/collections/{collection}")

    def _key(self, collection: str) -> str:
        key: str = self.request("GET", f"/collections/{collection}")["id"]
        return key

    def _write(self, key: str, verb: str, records: Iterable[Record]) -> None:
        rows = list(records)
        body: dict[str, Any] = {
            "ids": [row.id for row in rows],
            "embeddings": [row.embedding for row in rows],
            "documents": [row.document for row in rows],
            "metadatas": [row.metadata for row in rows],
        }
        if any(row.uri is not None for row in rows):
            body["uris"] = [row.uri for row in rows]
        self.request("POST", f"/collections/{key}/{verb}", body)

    # Reading

    @contextmanager
    def client(self) -> Iterator[chromadb.api.ClientAPI]:
        """Chroma's own client."""
        client = chromadb.HttpClient(
            host="127.0.0.1",
            port=self.server.port,
            headers=self.server.credentials,
            database=self.name,
            settings=Settings(anonymized_telemetry=False, chroma_server_ssl_verify=False),  # see _NO_TLS
        )
        try:
            yield client
        finally:
            made = cast(Any, client)
            made.close()
            for one in (made, made._admin_client):
                one._server._session.close()  # which that leaves open

    def names(self) -> list[str]:
        return sorted(entry["name"] for entry in self.request("GET", "/collections"))

    def description(self, collection: str) -> dict[str, Any]:
        body: dict[str, Any] = self.request("GET", f"/collections/{collection}")
        return body

    def counts(self) -> dict[str, int]:
        return {
            entry["name"]: int(self.request("GET", f"/collections/{entry['id']}/count"))
            for entry in self.request("GET", "/collections")
        }

    def records(self, collection: str) -> dict[str, Record]:
        """Every record, by Chroma's own client where it can."""
        answer = self._get(collection, ["embeddings", "documents", "metadatas", "uris"])
        columns = [answer[name] for name in ("ids", "embeddings", "documents", "uris", "metadatas")]
        assert all(column is not None for column in columns)
        return {
            record: Record(record, np.asarray(embedding, np.float32), document, uri, dict(metadata or {}) or None)
            for record, embedding, document, uri, metadata in zip(*columns, strict=True)
        }

    def _get(self, collection: str, include: list[str]) -> Mapping[str, Any]:
        if self.server.version == "0.4.24":
            answer: dict[str, Any] = self.request(
                "POST", f"/collections/{self._key(collection)}/get", {"include": include}
            )
            return answer
        with self.client() as client:
            found = client.get_collection(collection, embedding_function=None)
            return cast("Mapping[str, Any]", found.get(include=cast("Any", include)))

    def _query(self, collection: str, vector: NDArray[np.float64], include: list[str]) -> Mapping[str, Any]:
        if self.server.version == "0.4.24":
            body = {"query_embeddings": [vector.tolist()], "n_results": 50, "include": include}
            answer: dict[str, Any] = self.request("POST", f"/collections/{self._key(collection)}/query", body)
            return answer
        with self.client() as client:
            found = client.get_collection(collection, embedding_function=None)
            answers = found.query(query_embeddings=[vector.tolist()], n_results=50, include=cast("Any", include))
            return cast("Mapping[str, Any]", answers)

    def metric(self, collection: str) -> str:
        """The metric that the index really uses, told from its distances to one of its own vectors."""
        vectors = np.asarray(self._get(collection, ["embeddings"])["embeddings"], np.float64)
        vector = vectors[int(np.argmax(np.linalg.norm(vectors, axis=1)))]
        answer = self._query(collection, 2 * vector, ["distances", "embeddings"])
        fitting = {"l2", "ip", "cosine"}
        for distance, other in zip(
            answer["distances"][0], np.asarray(answer["embeddings"][0], np.float64), strict=True
        ):
            expected = {
                "l2": float(np.sum((2 * vector - other) ** 2)),
                "ip": 1 - float(2 * vector @ other),
                "cosine": 1 - float(vector @ other) / float(np.linalg.norm(vector) * np.linalg.norm(other)),
            }
            fitting = {name for name in fitting if math.isclose(distance, expected[name], rel_tol=1e-3, abs_tol=1e-3)}
        (name,) = fitting
        return name


def new_database(server: Server) -> Database:
    """A database of its own on the server."""
    return same_database(server, f"db_{uuid.uuid4().hex[:12]}")


def same_database(server: Server, name: str) -> Database:
    """A database of this name on the server, made now."""
    if server.version == "0.4.24":
        path = "/api/v1/databases?tenant=default_tenant"
    else:
        path = "/api/v2/tenants/default_tenant/databases"
    headers = server.credentials
    answer = httpx.post(server.url + path, json={"name": name}, headers=headers, trust_env=False, verify=_NO_TLS)
    assert answer.status_code < 300, answer.text
    return Database(server, name)


# Comparing


def assert_holds(found: dict[str, Record], wanted: Iterable[Record], space: str) -> None:
    """Exactly these records; only what Chroma itself rounds may be off by that much."""
    expected = {record.id: record for record in wanted}
    assert set(found) == set(expected)
    for record, was in expected.items():
        now = found[record]
        assert (record, now.document, now.uri) == (record, was.document, was.uri)
        assert_same_metadata(now.metadata or {}, was.metadata or {})
        if space == "cosine":
            assert np.allclose(now.embedding, was.embedding, rtol=COSINE_ROUNDING, atol=0), record
        else:
            assert now.embedding.tobytes() == was.embedding.tobytes(), record


def assert_same_metadata(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert_same_value(found[key], value)


def assert_same_value(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted), (found, wanted)
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same_value(one, other)
    elif isinstance(wanted, float):
        assert abs(found - wanted) <= FLOAT_ULPS * math.ulp(wanted), (found, wanted)
    else:
        assert found == wanted
