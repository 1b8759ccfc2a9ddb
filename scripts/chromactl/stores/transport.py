"""HTTP to one Chroma server: deadlines, retries, and errors an operator understands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import tenacity
from pydantic import SecretStr

from chromactl.errors import (
    AuthenticationError,
    ChromactlError,
    NotChromaError,
    RequestError,
    UnreachableError,
)

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0
TRIES = 6
_LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")
_PASSING = frozenset({429, 502, 503, 504})


class _Passing(Exception):
    """A failure that may be over at the next try."""

    def __init__(self, message: str, *, unreachable: bool) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class Transport:
    """Requests to one server. `side` is the word that the names of this server's options begin with, or empty."""

    def __init__(self, url: str, token: SecretStr | None, side: str, client: httpx.Client | None = None) -> None:
        self.url = url
        self.side = side
        headers = {"content-type": "application/json", "accept": "application/json"}
        if token is not None:
            # Servers up to 0.6.3 and gateways read one of these two, by their configuration.
            headers["authorization"] = f"Bearer {token.get_secret_value()}"
            headers["x-chroma-token"] = token.get_secret_value()
        self._client = client or httpx.Client(
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=16),
            # A proxy of the environment is for other hosts; it could not reach this one's loopback.
            mounts=dict.fromkeys(_LOOPBACK),
        )
        self._client.headers.update(headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, *, tries: int = TRIES) -> Any:
        """The decoded answer to a GET."""
        return self.request("GET", path, tries=tries)

    def post(
        self, path: str, body: dict[str, Any], *, tries: int = TRIES, decode: Callable[[bytes], Any] = orjson.loads
    ) -> Any:
        """The decoded answer to a POST."""
        return self.request("POST", path, orjson.dumps(body), tries=tries, decode=decode)

    def request(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        tries: int = TRIES,
        decode: Callable[[bytes], Any] = orjson.loads,
    ) -> Any:
        """The answer as `decode` makes it; passing failures are tried again with growing, jittered pauses.

        Raises:
            UnreachableError: nothing answers, or not in time.
            AuthenticationError: 401 or 403.
            RequestError: any other refusal; its message is the server's.
            NotChromaError: the answer is not JSON.

        """
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(tries),
            wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=10.0, jitter=0.5),
            retry=tenacity.retry_if_exception_type(_Passing),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            return retrying(self._once, method, path, content, decode)
        except _Passing as failure:
            if failure.unreachable:
                raise UnreachableError(str(failure)) from failure.__cause__
            raise ChromactlError(str(failure)) from failure.__cause__

    def _once(self, method: str, path: str, content: bytes | None, decode: Callable[[bytes], Any]) -> Any:
        try:
            response = self._client.request(method, self.url + path, content=content)
        except httpx.TimeoutException as error:
            raise _Passing(
                f"{self.url}: no answer in time ({type(error).__name__}); "
                "is the server overloaded, or a firewall in between?",
                unreachable=True,
            ) from error
        except httpx.TransportError as error:
            raise _Passing(_connection_sentence(self.url, error), unreachable=True) from error
        if response.status_code in _PASSING:
            raise _Passing(
                f"{self.url}: the server answers {response.status_code} ({_message(response)}); "
                "try again when it is well",
                unreachable=False,
            )
        self._raise_refusal(response, path)
        try:
            return decode(response.content) if response.content else None
        except orjson.JSONDecodeError as error:
            raise NotChromaError(
                f"{self.url}: what answers is not a ChromaDB (no JSON from {path}); check the address and port"
            ) from error

    def _raise_refusal(self, response: httpx.Response, path: str) -> None:
        if response.status_code in (401, 403):
            option = f"--{self.side}-token-file".replace("---", "--")
            twin = f"CHROMACTL_{self.side.upper()}_TOKEN".replace("__", "_")
            raise AuthenticationError(
                f"{self.url}: the server refuses this token or the lack of one (HTTP {response.status_code}); "
                f"give the right one in a file ({option}) or in {twin}"
            )
        if response.status_code >= 300:
            raise RequestError(
                f"{self.url}: HTTP {response.status_code} from {path}: {_message(response)}",
                response.status_code,
            )

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        log.warning("%s; try %d of the same request follows", failure, state.attempt_number + 1)


def _connection_sentence(url: str, error: httpx.TransportError) -> str:
    words = str(error)
    if "refused" in words:
        return f"{url}: connection refused; is the server running, and are host and port right?"
    if "Name or service not known" in words or "name resolution" in words or "nodename" in words:
        return f"{url}: the host name is not known here; check the address"
    if "CERTIFICATE" in words or "SSL" in words.upper():
        return f"{url}: the TLS connection failed ({words}); check the certificate, or http against https"
    return f"{url}: the connection broke ({words or type(error).__name__}); check the address, the server and its log"


def _message(response: httpx.Response) -> str:
    """The server's own words: Chroma's `message` or `error`, else the start of the body."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return " ".join(response.text.split())[:200] or response.reason_phrase
    if isinstance(body, dict):
        for key in ("message", "error", "detail"):
            if body.get(key):
                return str(body[key])[:500]
    return str(body)[:200]
