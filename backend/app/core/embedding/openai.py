"""A model behind an OpenAI-compatible API: POST <url>/embeddings, as OpenAI, TEI, vLLM and Ollama have it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
import numpy as np
import orjson
from numpy import float32
from numpy.typing import NDArray
from pydantic import SecretStr
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from app.core.chroma.deadline import set_deadline
from app.core.embedding.answer import NotAnAnswer, UselessVector, read_vectors, said
from app.core.errors import EmbeddingUnavailable, ServiceError, TextRefused, WrongDimension

log = logging.getLogger(__name__)

ATTEMPTS = 4
# After it failed everybody else is told at once for this long, instead of queueing up to find out as well.
SILENCE_SECONDS = 2.0
# What nobody can take offence at: whoever refuses this refuses everything, and no text is to blame.
_HARMLESS = "The sky is blue."
_REFUSALS = (400, 413, 422)
_PASSING = (408, 425, 429)
_KEY_HINT = "Check EMBEDDING_API_KEY or EMBEDDING_API_KEY_FILE."
_PLACE_HINT = "Check EMBEDDING_URL and EMBEDDING_MODEL."
_jitter = wait_random_exponential(multiplier=0.25, max=5)


@dataclass(frozen=True)
class Endpoint:
    """An API and a model of it. `key` is asked for each request, so that a rotated key is picked up."""

    url: str
    model: str
    key: Callable[[], SecretStr | None] = lambda: None
    send_dimension: bool = False

    @property
    def base(self) -> str:
        """The address that `/embeddings` comes after."""
        return self.url.rstrip("/").removesuffix("/embeddings")


class _Passing(Exception):
    """It may be over in a moment. `over_text`: or else it is what was sent that it cannot cope with."""

    def __init__(self, reason: str, wait_seconds: float = 0.0, *, over_text: bool = False) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.over_text = over_text


class _Refused(Exception):
    """It does not take what was sent, or makes nothing useful of it."""


class OpenAIEmbedder:
    """Embeds by asking, `batch` texts at a time.

    `seconds` bound a request; it is tried again within that time where that may help.
    """

    name = "openai"

    def __init__(self, endpoint: Endpoint, dimension: int, batch: int, seconds: float) -> None:
        self.dimension = dimension
        self.model = f"openai:{endpoint.model}:{dimension}"
        self._endpoint = endpoint
        self._target = f"The embedding provider at {endpoint.base} (model {endpoint.model})"
        self._batch = batch
        self._seconds = seconds
        self._silent_until = float("-inf")
        # base64 is a third of the bytes of JSON's numbers, and exact; not everybody has it
        self._format = "base64"
        self._format_is_sure = False
        self._client = httpx.Client(limits=httpx.Limits(max_connections=None, max_keepalive_connections=20))
        set_deadline(self._client, seconds)

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        """Unit vectors, float32[n, dimension]. Raises EmbeddingUnavailable, TextRefused."""
        if time.monotonic() < self._silent_until:
            raise EmbeddingUnavailable(
                f"{self._target} did not answer a moment ago.", hint="It is asked again in a few seconds."
            )
        rows = np.empty((len(texts), self.dimension), dtype=float32)
        start = 0
        while start < len(texts):
            some = list(texts[start : start + self._batch])
            rows[start : start + len(some)] = self._embed(some)
            start += len(some)
        return rows

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _embed(self, texts: list[str]) -> NDArray[float32]:
        try:
            return self._ask(texts)
        except _Refused as refusal:
            if len(texts) == 1:
                self._blame(refusal)
            half = len(texts) // 2
            rows = np.concatenate([self._embed(texts[:half]), self._embed(texts[half:])])
            # each half is fine, so it was their number
            if self._batch >= len(texts):
                self._batch = half
                log.warning("%s takes less than %d texts at once; it gets %d now", self._target, len(texts), half)
            return rows

    def _blame(self, refusal: _Refused) -> NoReturn:
        """Tell a text that is refused from a provider that refuses everything."""
        try:
            self._ask([_HARMLESS])
        except _Refused as every:
            raise EmbeddingUnavailable(f"{self._target} refuses every text: {every}.", hint=_PLACE_HINT) from None
        raise TextRefused(f"{self._target} refused the text: {refusal}.")

    def _ask(self, texts: list[str]) -> NDArray[float32]:
        """The vectors, tried again while it may help. Raises _Refused, EmbeddingUnavailable."""
        attempts = Retrying(
            stop=stop_after_attempt(ATTEMPTS) | stop_before_delay(self._seconds),
            wait=_pause,
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        )
        try:
            return attempts(self._ask_in_some_format, texts)
        except _Passing as trouble:
            if trouble.over_text and self._is_there():
                raise _Refused(str(trouble)) from None
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            raise EmbeddingUnavailable(
                f"{self._target} cannot be used: {trouble}.", hint="See whether it runs; EMBEDDING_URL names it."
            ) from None

    def _is_there(self) -> bool:
        """Whether it embeds at all: some answer 500 to a text that is too long, or take too long for too many."""
        try:
            self._ask_in_some_format([_HARMLESS])
        except (_Passing, _Refused, EmbeddingUnavailable):
            return False
        return True

    def _ask_in_some_format(self, texts: list[str]) -> NDArray[float32]:
        try:
            rows = self._ask_once(texts, self._format)
        except _Refused:
            if self._format_is_sure:
                raise
            rows = self._ask_once(texts, "float")
            self._format = "float"
        self._format_is_sure = True
        return rows

    def _ask_once(self, texts: list[str], encoding: str) -> NDArray[float32]:
        body: dict[str, Any] = {"model": self._endpoint.model, "input": texts, "encoding_format": encoding}
        if self._endpoint.send_dimension:
            body["dimensions"] = self.dimension
        response = self._post(orjson.dumps(body))
        if response.status_code != 200:
            raise self._no(response, texts)
        try:
            return read_vectors(response.content, len(texts), self.dimension)
        except UselessVector as error:
            raise _Refused(str(error)) from None
        except NotAnAnswer as error:
            raise EmbeddingUnavailable(f"{self._target} answers, but {error}.", hint=_PLACE_HINT) from None
        except WrongDimension as error:
            raise WrongDimension(f"{self._target} {error.message}", hint=error.hint) from None

    def _post(self, content: bytes) -> httpx.Response:
        headers = {"content-type": "application/json"}
        try:
            key = self._endpoint.key()
        except ValueError as error:
            raise EmbeddingUnavailable(f"There is no key for {self._target}: {error}.") from None
        if key is not None:
            headers["authorization"] = f"Bearer {key.get_secret_value()}"
        try:
            return self._client.post(f"{self._endpoint.base}/embeddings", content=content, headers=headers)
        except httpx.TimeoutException:
            raise _Passing(f"it did not answer within {self._seconds:g} s", over_text=True) from None
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise _Passing(" ".join(str(error).split()) or type(error).__name__) from None
        except httpx.HTTPError as error:
            raise EmbeddingUnavailable(f"{self._target} cannot be asked: {error}.", hint=_PLACE_HINT) from None

    def _no(self, response: httpx.Response, texts: list[str]) -> ServiceError | _Passing | _Refused:
        status = response.status_code
        if status in (401, 403):  # without its words: they may quote the key
            return EmbeddingUnavailable(f"{self._target} refuses the key, or the lack of one.", hint=_KEY_HINT)
        key = self._endpoint.key()
        secrets = [*texts, *([key.get_secret_value()] if key else [])]
        words = f"HTTP {status}{said(response.content, secrets)}"
        if status in _REFUSALS:
            return _Refused(words)
        if status in _PASSING or status >= 500:
            return _Passing(words, _retry_after(response), over_text=status >= 500 and status != 503)
        return EmbeddingUnavailable(f"{self._target} answers {words}.", hint=_PLACE_HINT)


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the provider asks for, or else longer each time, with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.wait_seconds if isinstance(error, _Passing) else 0.0
    return max(asked, _jitter(state))


def _retry_after(response: httpx.Response) -> float:
    """The seconds of Retry-After; 0 where there is none, or a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else 0.0
