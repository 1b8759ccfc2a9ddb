"""One Chroma (a server's database, or a directory): its client, its names, and searching it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from chromadb.api.types import Where
from chromadb.errors import NotFoundError
from chromadb.types import Collection
from numpy import float32
from numpy.typing import NDArray
from pydantic import SecretStr

from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import Target, is_not_found, is_panic, translate
from app.core.chroma.filters import checked_where
from app.core.chroma.hits import Hit, read_hits
from app.core.chroma.resolver import Resolver
from app.core.errors import (
    ChromaRefusedToken,
    ChromaTimeout,
    ChromaUnavailable,
    ConnectionBroken,
    DimensionMismatch,
    ServiceError,
    UnknownCollection,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[ChromaClient], T]

# After a timeout everybody else is told at once for this long, instead of queueing up to wait as well.
SILENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Probe:
    """A look at a store: documents per collection, and how long the listing took."""

    counts: dict[str, int]
    latency_seconds: float


class ChromaStore:
    """Searches one Chroma. The client is made on first use and made again when it proved useless.

    All methods block, may be called from any thread, and raise ServiceError only.
    """

    def __init__(
        self,
        connect: Callable[[], ChromaClient],
        target: Target,
        resolve_seconds: float,
        token: Callable[[], SecretStr | None] = lambda: None,
    ) -> None:
        self.target = target
        self._connect = connect
        self._token = token
        self._lock = threading.Lock()
        self._client: ChromaClient | None = None
        self._outdated: list[ChromaClient] = []
        self._silent_until = float("-inf")
        self._resolver = Resolver(resolve_seconds)

    def collections(self) -> Mapping[str, Collection]:
        """The collections by name, work collections of migrations left out; at most the clock old."""
        return self._resolver.known(lambda: self._run(_list))

    def collections_now(self) -> Mapping[str, Collection]:
        """The same, asked of Chroma at this moment."""
        return self._resolver.refreshed(lambda: self._run(_list))

    def query(
        self, name: str, vector: NDArray[float32], limit: int, where: Mapping[str, Any] | None = None
    ) -> list[Hit]:
        """The `limit` records nearest to vector (float32[dim]), nearest first.

        Raises UnknownCollection, DimensionMismatch, FilterRefused, ChromaUnavailable.
        """
        conditions = checked_where(where)
        collection = self.collections().get(name)
        if collection is not None:
            try:
                return self._query(collection, vector, limit, conditions)
            except UnknownCollection:
                log.info("the id of collection %s is gone; its name is resolved again", name)
        collection = self.collections_now().get(name)
        if collection is None:
            raise UnknownCollection(f"There is no collection {name}.")
        return self._query(collection, vector, limit, conditions)

    def probe(self, wanted: Callable[[str], bool]) -> Probe:
        """Ask Chroma now, whatever happened a moment ago, and count the wanted collections."""
        started = time.perf_counter()
        live = self._resolver.refreshed(lambda: self._answer(_list))
        latency = time.perf_counter() - started
        counts = {}
        for name in sorted(filter(wanted, live)):
            try:
                counts[name] = self._answer(partial(_count, live[name]))
            except UnknownCollection:
                continue  # deleted since it was listed
        return Probe(counts, latency)

    def close(self) -> None:
        """Close the client, if there is one."""
        with self._lock:
            clients = [*self._outdated, *([self._client] if self._client else [])]
            self._client = None
            self._outdated.clear()
        for client in clients:
            client.close()

    def _query(self, collection: Collection, vector: NDArray[float32], limit: int, where: Where | None) -> list[Hit]:
        if collection.dimension is not None and collection.dimension != vector.shape[0]:
            raise DimensionMismatch(
                f"Collection {collection.name} has vectors of dimension {collection.dimension}, "
                f"the query's has {vector.shape[0]}.",
                hint="Set EMBEDDING_PROVIDER and EMBEDDING_DIMENSION to what the collection was made with, "
                "or leave it out of RAG_COLLECTIONS.",
            )

        def ask(client: ChromaClient) -> list[Hit]:
            answer = client.bind(collection).query(
                query_embeddings=vector[None, :],
                n_results=limit,
                where=where,
                include=["documents", "metadatas", "distances"],
            )
            return read_hits(collection, answer)

        return self._run(ask, filtered=where is not None)

    def _run(self, work: Work[T], filtered: bool = False) -> T:
        """Like `_answer`, but says no at once for a while after Chroma kept somebody waiting."""
        if time.monotonic() < self._silent_until:
            raise ChromaTimeout(
                f"{self.target} did not answer a moment ago.", hint="It is asked again in a few seconds."
            )
        return self._answer(work, filtered)

    def _answer(self, work: Work[T], filtered: bool = False) -> T:
        """Do it with the client, a second time where that may help. Work only reads, so it may be repeated."""
        client = self._ready()
        try:
            try:
                answer = self._attempt(client, work, filtered)
            except ConnectionBroken:  # as when the server closed a pooled connection while it was idle
                answer = self._attempt(client, work, filtered)
            except ChromaRefusedToken:
                if not self._replace(client):
                    raise
                answer = self._attempt(self._ready(), work, filtered)
        except ChromaTimeout:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            raise
        self._silent_until = float("-inf")
        return answer

    def _attempt(self, client: ChromaClient, work: Work[T], filtered: bool) -> T:
        try:
            return work(client)
        except ServiceError:
            raise
        except Exception as error:
            if is_not_found(error):
                raise UnknownCollection(str(error)) from error
            raise translate(error, self.target, filtered) from error
        except BaseException as error:
            if is_panic(error):
                raise translate(error, self.target) from error
            raise

    def _ready(self) -> ChromaClient:
        with self._lock:
            if self._client is None:
                try:
                    self._client = self._connect()
                except Exception as error:
                    raise translate(error, self.target) from error
                except BaseException as error:
                    if is_panic(error):
                        raise translate(error, self.target) from error
                    raise
            return self._client

    def _replace(self, client: ChromaClient) -> bool:
        """Put a client aside when the token it was made with is no longer the configured one."""
        try:
            current = self._token() == client.token
        except ValueError as error:
            raise ChromaRefusedToken(f"{self.target} refused the token, and {error}.") from None
        if current:
            return False
        with self._lock:
            if self._client is client:
                self._client = None
                self._outdated.append(client)  # others may be using it; closed at the end
        return True


def _list(client: ChromaClient) -> list[Collection]:
    collections = client.list()
    if not collections:
        try:
            client.check_database()  # a database that does not exist lists as an empty one
        except Exception as error:
            if not isinstance(error, NotFoundError):
                raise
            raise ChromaUnavailable(
                f"Chroma has no database {client.database} of tenant {client.tenant}.",
                hint="Correct CHROMA_TENANT and CHROMA_DATABASE.",
            ) from error
    return collections


def _count(collection: Collection, client: ChromaClient) -> int:
    return int(client.bind(collection).count())
