"""Digests of collections: the same records give the same digest, whatever their order."""

from __future__ import annotations

import hashlib

import numpy as np
import orjson

from chromactl.stores.base import Batch, Collection, Source

_SIZE = 32
_RECORDS_AT_ONCE = 500
_MODULUS = 1 << (8 * _SIZE)


class CollectionDigest:
    """The sum of the digests of a collection's records, modulo 2^256: order-free, and a lost or doubled record shows.

    A record's digest is BLAKE2b over id, document, uri, metadata (sorted keys; JSON tells 1 from 1.0 and
    null from "") and the little-endian float32 bytes of the embedding.
    """

    def __init__(self) -> None:
        self._sum = 0
        self.count = 0

    def add(self, batch: Batch) -> None:
        """Take in the records of a batch."""
        embeddings = np.ascontiguousarray(batch.embeddings, dtype="<f4")
        columns = zip(batch.ids, batch.documents, batch.uris, batch.metadatas, embeddings, strict=True)
        for record, document, uri, metadata, embedding in columns:
            text = orjson.dumps([record, document, uri, metadata], option=orjson.OPT_SORT_KEYS)
            digest = hashlib.blake2b(text, digest_size=_SIZE)
            digest.update(embedding.tobytes())
            self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % _MODULUS
        self.count += len(batch)

    def add_digest(self, hexdigest: str, count: int) -> None:
        """Take in the digest of other records of the same collection."""
        self._sum = (self._sum + int(hexdigest, 16)) % _MODULUS
        self.count += count

    def hexdigest(self) -> str:
        """The digest so far, 64 hex digits."""
        return f"{self._sum:064x}"


def digest_of(store: Source, collection: Collection, *, without: frozenset[str] = frozenset()) -> CollectionDigest:
    """The digest of what the collection holds now, of every record that can be read but those of the ids `without`."""
    digest = CollectionDigest()
    ids = [record for record in store.ids(collection) if record not in without]
    for start in range(0, len(ids), _RECORDS_AT_ONCE):
        batch, _ = store.read(collection, ids[start : start + _RECORDS_AT_ONCE])
        digest.add(batch)
    return digest
