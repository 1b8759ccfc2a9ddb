"""A model behind an OpenAI-compatible API: POST /v1/embeddings, as its reference describes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from chromactl.errors import (
    AuthenticationError,
    ChromactlError,
    EmbeddingError,
    NotChromaError,
    UsageError,
)
from chromactl.stores.transport import Network, Transport

AT_ONCE = 32
"""Texts a request: what the smallest of the usual servers take."""

_PATH = "/embeddings"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An API and a model of it. The address may end in `/v1` or in `/v1/embeddings`; a key goes into a header only.

    Raises (when made):
        UsageError: the address is none.
    """

    url: str
    model: str
    key: SecretStr | None = None
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound or parts.username is not None or parts.query or parts.fragment:
            raise UsageError(
                "--embedding-url: give http://host:port/v1 or https://…, without key, user or query in it; "
                "a key comes from --embedding-key-file"
            )

    @property
    def base(self) -> str:
        """The address that `/embeddings` comes after."""
        return self.url.rstrip("/").removesuffix(_PATH)


class OpenAIEmbedder:
    """Asks for each text once, and keeps the answer."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._transport = Transport(endpoint.base, endpoint.key, "embedding", endpoint.network, chroma=False)
        self._known: dict[str, NDArray[np.float32]] = {}

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self._endpoint.base}: {self._endpoint.model}"

    def embed(self, texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
        """The model's vectors, float32[n, d], whatever dimension was asked for.

        Raises:
            EmbeddingError: no answer, a refusal, or an answer that is not one finite vector a text.
        """
        asked = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            self._known |= dict(zip(some, self._vectors(self._ask(some), len(some)), strict=True))
        if len({len(vector) for vector in self._known.values()}) > 1:
            raise self._error("vectors of several dimensions come back")
        return np.stack([self._known[text] for text in texts]) if texts else np.empty((0, dimension), np.float32)

    def _ask(self, texts: list[str]) -> Any:
        body = {"model": self._endpoint.model, "input": texts, "encoding_format": "float"}
        try:
            return self._transport.post(_PATH, body)
        except AuthenticationError as error:
            raise self._error(
                "the key, or the lack of one, is refused; give the right one in a file (--embedding-key-file) or in "
                "CHROMACTL_EMBEDDING_KEY"
            ) from error
        except NotChromaError as error:
            raise self._error("what answers is no JSON; check --embedding-url") from error
        except ChromactlError as error:
            raise EmbeddingError(f"{error} (--embedding-url, --embedding-model {self._endpoint.model})") from error

    def _vectors(self, answer: Any, count: int) -> list[NDArray[np.float32]]:
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._error("the answer has no list `data`; is --embedding-url an OpenAI-compatible API?")
        if len(entries) != count:
            raise self._error(f"{len(entries)} vectors come back for {count} texts")
        in_order = {entry.get("index", place): entry.get("embedding") for place, entry in enumerate(entries)}
        if in_order.keys() != set(range(count)):
            raise self._error("the numbering of the vectors that come back is not that of the texts")
        return [self._vector(in_order[place]) for place in range(count)]

    def _vector(self, numbers: Any) -> NDArray[np.float32]:
        if (
            not isinstance(numbers, list)
            or not numbers
            or not all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        ):
            raise self._error("what comes back as a vector is no list of finite numbers")
        with np.errstate(over="ignore"):
            vector = np.array(numbers, np.float32)
        if not np.isfinite(vector).all() or not vector.any():
            raise self._error("a vector comes back that is zero, or too large for 32 bits")
        return vector

    def _error(self, words: str) -> EmbeddingError:
        return EmbeddingError(f"{self.name}: {words}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._transport.close()
