"""What a server answers to a `get`, from JSON to columns.

Nine tenths of an answer are embeddings. They are cut out of it row by row, because then only one row at a time is
Python floats: 0.35 s instead of 0.60 s of CPU for 9,832 x 768, and the interpreter is free for other threads in
between (docs/decisions.md has what else was tried).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from chromactl.errors import ChromactlError
from chromactl.stores.base import Batch

# Only a field of the answer itself can look like this: within a string the quote would be escaped, and a metadata
# value is never a list of lists.
_FIELD = b'"embeddings":'
_START = _FIELD + b"[["
_COMMA, _END = b",]"


def decode(content: bytes) -> Any:
    """The answer as JSON, with its embeddings as float32[n, dim] wherever they are a list.

    Raises:
        orjson.JSONDecodeError: this is not JSON.
        ChromactlError: the embeddings are not all of one dimension.
    """
    try:
        return _decode_by_rows(content)
    except (TypeError, ValueError):
        # Something that no Chroma was seen to write: white space, a null in a vector, no JSON at all.
        answer = orjson.loads(content)
        if isinstance(answer, dict) and answer.get("embeddings") is not None:
            answer["embeddings"] = _matrix(answer["embeddings"])
        return answer


def _decode_by_rows(content: bytes) -> Any:
    field = content.index(_START)
    start = field + len(_START) - 1
    view = memoryview(content)
    rows: list[NDArray[np.float32]] = []
    while True:
        end = content.index(b"]", start) + 1
        rows.append(np.fromiter(orjson.loads(view[start:end]), np.float32))
        if content[end] == _END:
            break
        if content[end] != _COMMA:
            raise ValueError("more than a comma between two rows")
        start = end + 1
    answer = orjson.loads(b"%bnull%b" % (content[: field + len(_FIELD)], content[end + 1 :]))
    answer["embeddings"] = np.stack(rows)
    return answer


def _matrix(rows: list[list[float] | None]) -> NDArray[np.float32]:
    if not rows:
        return np.empty((0, 0), np.float32)
    if len({len(row) if row is not None else None for row in rows}) > 1:
        raise ChromactlError(
            "the records of one collection have embeddings of different dimensions; "
            "this source is damaged: find them with a get of ids and embeddings, and repair it first"
        )
    return np.asarray(rows, dtype=np.float32)


def batch(answer: dict[str, Any]) -> Batch:
    """The columns of a decoded answer; what it does not include is None, or embeddings of dimension 0."""
    ids: list[str] = answer["ids"]
    empty: list[Any] = [None] * len(ids)
    embeddings = answer.get("embeddings")
    return Batch(
        ids=ids,
        embeddings=np.empty((len(ids), 0), np.float32) if embeddings is None else embeddings,
        documents=answer.get("documents") or empty,
        uris=answer.get("uris") or empty,
        metadatas=[metadata or None for metadata in answer.get("metadatas") or empty],
    )
