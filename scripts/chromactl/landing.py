"""What can land in a Chroma 1.x server as it is: the rules of its metadata, ids and vectors (tested on 1.5.9).

A server keeps keys, texts and ids of any length (a megabyte was tried), NUL in all of them, thousands of keys, and
zero vectors. It gives -0.0 back as 0.0 in metadata: the same number, so no misfit. A collection of the cosine metric
holds vectors of length 1 and, beside them, their lengths, by squares in float32: vectors whose square that cannot hold
come back as NaN or zeros, and numbers far below the vector's length come back off by more than a rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from chromactl.reject import Reject
from chromactl.stores.base import Batch

_INT_MAX = 2**63 - 1
_INT_MIN = -(2**63)
_SHOWN = 80
_LEAST = float(np.finfo(np.float32).tiny)  # below it float32 has fewer digits
_LONGEST = 1.8e19  # its square is just below the largest float32
_SHORTEST = 1.1e-19  # its square is just above _LEAST


def misfits(batch: Batch, dimension: int | None, space: str | None = None) -> list[Reject]:
    """What in these records a server would refuse, drop or change.

    `dimension` and `space` are the collection's, where known.
    Of records that share an id none can land: which of them is meant, nobody can know.
    """
    found = [*_ids(batch), *_embeddings(batch, dimension), *_texts(batch)]
    if space == "cosine":
        found += _lengths(batch)
    known: set[str] = set()  # a key that is right once is right in every record
    for record, metadata in zip(batch.ids, batch.metadatas, strict=True):
        for key, value in metadata.items() if metadata else ():
            if key not in known:
                if reason := _wrong_key(key):
                    found.append(Reject(record, _printable(key), reason, _printable(key)))
                else:
                    known.add(key)
            # Chroma's own types promise no more than this, but legacy servers and hand-made files keep no promises.
            if reason := _wrong_list(value) if isinstance(value, list) else _wrong_scalar(value):
                found.append(Reject(record, _printable(key), reason, repr(value)[:_SHOWN]))
    return found


def _ids(batch: Batch) -> Iterator[Reject]:
    if len(set(batch.ids)) == len(batch) and "" not in batch.ids:
        return
    times = Counter(batch.ids)
    for record in batch.ids:
        if not record:
            yield Reject(record, "id", "invalid_id", "''")
        if times[record] > 1:
            yield Reject(record, "id", "duplicate_id", repr(record)[:_SHOWN])


def _embeddings(batch: Batch, dimension: int | None) -> Iterator[Reject]:
    finite = np.isfinite(batch.embeddings).all(axis=1)
    for row in np.flatnonzero(~finite):
        yield Reject(batch.ids[row], "embedding", "invalid_embedding", "NaN or infinite")
    if dimension is not None and len(batch) and batch.dimension != dimension:
        words = f"dimension {batch.dimension}, others have {dimension}"
        yield from (Reject(record, "embedding", "invalid_dimension", words) for record in batch.ids)


def _lengths(batch: Batch) -> Iterator[Reject]:
    """Vectors that cannot be made ones of length 1 in float32, and back. A zero vector can."""
    size = np.abs(batch.embeddings.astype(np.float64))
    finite = np.isfinite(size).all(axis=1)
    length = np.sqrt((size**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        faint = ((size > 0) & (size / length[:, None] < _LEAST)).any(axis=1)
    off = (length > 0) & ((length > _LONGEST) | (length < _SHORTEST) | faint)
    for row in np.flatnonzero(finite & off):
        words = (
            f"length {length[row]:.3g}" if not faint[row] else f"length {length[row]:.3g}, and numbers next to nothing"
        )
        yield Reject(batch.ids[row], "embedding", "not_normalizable", words)


def _texts(batch: Batch) -> Iterator[Reject]:
    for name, column in (("id", batch.ids), ("document", batch.documents), ("uri", batch.uris)):
        for record, text in zip(batch.ids, column, strict=True):
            if text and not _encodes(text):
                yield Reject(record, name, "not_unicode", repr(text)[:_SHOWN])


def _encodes(text: str) -> bool:
    """Whether the text is Unicode: a lone surrogate, half a character, can be in no request."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong_key(key: str) -> str:
    if not key:
        return "empty_key"
    if not _encodes(key):
        return "not_unicode"
    # A server takes keys with chroma: and then gives none of them back.
    return "reserved_key" if key[0] in "#$" or key.startswith("chroma:") else ""


def _wrong_list(members: Sequence[object]) -> str:
    if not members:
        return "invalid_list"
    reason = next((reason for member in members if (reason := _wrong_scalar(member))), "")
    # bool is an int to Python; to Chroma [1, true] is a mixed list, and [1, 1.5] becomes one of floats.
    return reason or ("invalid_list" if len({type(member) for member in members}) > 1 else "")


def _wrong_scalar(value: object) -> str:
    if isinstance(value, str):
        return "" if _encodes(value) else "not_unicode"
    if isinstance(value, int):  # bool too
        return "" if _INT_MIN <= value <= _INT_MAX else "integer_too_large"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "not_finite"
    if value is None:
        return "null_value"
    if isinstance(value, dict) and value.get("#type") == "sparse_vector":
        return "sparse_vector"
    return "nested_value"


def _printable(key: str) -> str:
    return key[:_SHOWN].encode(errors="backslashreplace").decode()
