"""What can land in a Chroma 1.x server as it is: the rules of its metadata, ids and vectors (tested on 1.5.9)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from chromactl.reject import Reject
from chromactl.stores.base import Batch, Metadata

_INT_MAX = 2**63 - 1
_INT_MIN = -(2**63)


def misfits(batch: Batch, dimension: int | None) -> list[Reject]:
    """What in these records a server would refuse, drop or change. `dimension` is the collection's, if known."""
    found: list[Reject] = []
    finite = np.asarray(np.isfinite(batch.embeddings).all(axis=1))
    for row, record in enumerate(batch.ids):
        if not record:
            found.append(Reject(record, "id", "invalid_id", "''"))
        if not finite[row]:
            found.append(Reject(record, "embedding", "invalid_embedding", "NaN or infinite"))
        found += [Reject(record, key, reason, value) for key, reason, value in _metadata(batch.metadatas[row] or {})]
    if dimension is not None and len(batch) and batch.dimension != dimension:
        words = f"dimension {batch.dimension}, others have {dimension}"
        found += [Reject(record, "embedding", "invalid_dimension", words) for record in batch.ids]
    return found


def _metadata(metadata: Metadata) -> Iterator[tuple[str, str, str]]:
    for key, value in metadata.items():
        if not key or key[0] in "#$" or key.startswith("chroma:"):
            yield key, "reserved_key", key[:80]
        # Chroma's own types promise no more than this, but legacy servers and hand-made files keep no promises.
        members: Sequence[object] = value if isinstance(value, list) else [value]
        if isinstance(value, list) and (not value or len({type(member) for member in value}) > 1):
            yield key, "invalid_list", repr(value)[:80]
        for member in members:
            if not isinstance(member, str | int | float):
                yield key, "nested_value", repr(member)[:80]
            elif isinstance(member, float) and not math.isfinite(member):
                yield key, "not_finite", repr(member)
            elif isinstance(member, int) and not _INT_MIN <= member <= _INT_MAX:
                yield key, "integer_too_large", repr(member)
