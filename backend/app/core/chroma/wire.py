"""A server's REST API in bulk, where Chroma's own client spends more time than the wire.

Embeddings go as base64 of their bytes (as numbers to servers from before 1.0), and come as JSON numbers, which are nine
tenths of an answer: they are cut out of it row by row, because then only one row at a time is Python floats. chromactl
reads in the same way (scripts/chromactl/stores/answer.py); docs/decisions.md has what else was tried.
"""

from __future__ import annotations

import urllib.parse
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np
import orjson
from chromadb.api.base_http_client import BaseHTTPClient
from chromadb.api.fastapi import FastAPI
from numpy import float32
from numpy.typing import NDArray

# Only a field of the answer itself can look like this: within a string the quotes would be escaped.
_FIELD = b'"embeddings":'
_START = _FIELD + b"[["
_COMMA, _END = b",]"


class Columns(NamedTuple):
    """Records as Chroma gives them, in no order. `vectors` is float32[n, dim], NaN where a record has none."""

    ids: list[str]
    vectors: NDArray[float32]
    documents: Sequence[str | None]
    metadatas: Sequence[Mapping[str, Any] | None]


def joined(pages: Sequence[Columns]) -> Columns:
    """The pages as one; those without records count for nothing."""
    full = [page for page in pages if page.ids]
    if len(full) < 2:
        return full[0] if full else Columns([], np.empty((0, 0), float32), [], [])
    return Columns(
        [id_ for page in full for id_ in page.ids],
        np.concatenate([page.vectors for page in full]),
        [document for page in full for document in page.documents],
        [metadata for page in full for metadata in page.metadatas],
    )


def put(
    api: FastAPI,
    path: str,
    ids: Sequence[str],
    vectors: NDArray[float32],
    documents: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]],
) -> None:
    """Send records to the path of a collection's `add` or `upsert`.

    Raises ValueError for what JSON has no form for, TypeError when what answers does not answer in JSON.
    """
    body = {"ids": ids, "documents": documents, "metadatas": metadatas}
    if _takes_base64(api):
        encoded = [b64encode(row).decode() for row in np.ascontiguousarray(vectors, dtype="<f4")]
        try:
            _put(api, path, body | {"embeddings": encoded})
        except httpx.HTTPError:
            raise
        except Exception:
            if _still_takes_base64(api):
                raise
        else:
            return
    _put(api, path, body | {"embeddings": vectors.tolist()})


def _takes_base64(api: FastAPI) -> bool:
    """Whether the server does, as it said when it was first asked."""
    try:
        return api.supports_base64_encoding()
    except ValueError as error:  # as above
        raise TypeError(str(error)) from error


def _still_takes_base64(api: FastAPI) -> bool:
    """Whether it is not a server from before 1.0 now, behind the same address, that has refused what it was sent."""
    api.pre_flight_checks = None
    try:
        return _takes_base64(api)
    except Exception:  # it is somebody else's trouble, and that was told before
        return True


def get(api: FastAPI, path: str, ids: Sequence[str]) -> Columns:
    """Those of these records that are there, from the path of a collection's `get`."""
    # with a limit, since a server with a quota leaves out what is over it without a word
    body = {"ids": ids, "limit": len(ids), "include": ["embeddings", "documents", "metadatas"]}
    answer = decode(_post(api, path, orjson.dumps(body)))
    return Columns(answer["ids"], answer["embeddings"], answer["documents"], answer["metadatas"])


def decode(content: bytes) -> dict[str, Any]:
    """An answer as JSON, with its embeddings as float32[n, dim]."""
    try:
        return _decode_by_rows(content)
    except (TypeError, ValueError):  # no record, one without a vector, or JSON that is written in another way
        answer: dict[str, Any] = orjson.loads(content)
        answer["embeddings"] = _matrix(answer.get("embeddings") or [])
        return answer


def _put(api: FastAPI, path: str, body: dict[str, Any]) -> None:
    try:
        content = orjson.dumps(body)
    except orjson.JSONEncodeError as error:  # a TypeError, which says nothing of whose fault it is
        raise ValueError(str(error)) from error
    answer = _post(api, path, content)
    try:
        orjson.loads(answer)
    except orjson.JSONDecodeError as error:  # a page of some proxy, and nothing was written
        raise TypeError(str(error)) from error


def _post(api: FastAPI, path: str, content: bytes) -> bytes:
    # as FastAPI._make_request, which makes a str of every answer before it parses it
    response = api._session.request("post", api.get_api_url() + urllib.parse.quote(path), content=content)
    BaseHTTPClient._raise_chroma_error(response)
    return response.content


def _decode_by_rows(content: bytes) -> dict[str, Any]:
    field = content.index(_START)
    start = field + len(_START) - 1
    view = memoryview(content)
    rows: list[NDArray[float32]] = []
    while True:
        end = content.index(b"]", start) + 1
        rows.append(np.fromiter(orjson.loads(view[start:end]), float32))
        if content[end] == _END:
            break
        if content[end] != _COMMA:
            raise ValueError("more than a comma between two rows")
        start = end + 1
    answer: dict[str, Any] = orjson.loads(b"%bnull%b" % (content[: field + len(_FIELD)], content[end + 1 :]))
    answer["embeddings"] = np.stack(rows)
    return answer


def _matrix(rows: Sequence[Sequence[float] | None]) -> NDArray[float32]:
    dimension = next((len(row) for row in rows if row is not None), 0)
    missing = [float("nan")] * dimension
    return np.asarray([row if row is not None else missing for row in rows], float32).reshape(len(rows), dimension)
