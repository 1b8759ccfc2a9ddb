"""HTTP to one server, mostly a Chroma: deadlines, retries, and errors an operator understands."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import orjson
import tenacity
from pydantic import SecretStr

from chromactl.errors import (
    AuthenticationError,
    ChromactlError,
    NotChromaError,
    PreconditionError,
    RequestError,
    UnreachableError,
)

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
LONGEST_PAUSE = 120.0
"""Seconds that a server may ask us to wait before the next try; who asks for more is better tried another day."""

Decode = Callable[[bytes], Any]
_LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")
_PASSING = frozenset({408, 425, 429, *range(502, 600)})


@dataclass(frozen=True, slots=True)
class Network:
    """How patient to be with a server, and which certificate authority to trust beside the well-known ones.

    `timeout_seconds` is what one request may take from its first byte to the last one of the answer, `max_retries` how
    often it is sent again, `ca_file` a file of certificates in PEM form.

    Raises (when made):
        ValueError: a time that is none, or a number below zero.
    """

    timeout_seconds: float = 120.0
    max_retries: int = 5
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise ValueError(f"a timeout of {self.timeout_seconds} s")
        if self.max_retries < 0:
            raise ValueError(f"{self.max_retries} retries")

    def trust(self) -> ssl.SSLContext:
        """Whom to trust on TLS connections.

        Raises:
            PreconditionError: the file cannot be read, or holds no certificate.

        """
        if self.ca_file is None:
            return _well_known()
        context = httpx.create_ssl_context()
        try:
            context.load_verify_locations(cafile=self.ca_file)
        except ssl.SSLError as error:
            raise PreconditionError(
                f"{self.ca_file}: holds no certificate in PEM form; give the private CA's (--ca-file)"
            ) from error
        except OSError as error:
            raise PreconditionError(
                f"{self.ca_file}: this CA file cannot be read ({error.strerror}); check path and mode (--ca-file)"
            ) from error
        return context


@cache
def _well_known() -> ssl.SSLContext:
    """The well-known authorities; reading their certificates takes longer than a request."""
    return httpx.create_ssl_context()


class _Passing(Exception):
    """A failure that may be over at the next try; `pause` is what the server asks to wait, in seconds."""

    def __init__(self, error: ChromactlError, pause: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """Requests to one server. `side` is the word that the names of this server's options begin with, or empty.

    A server that is no `chroma` gets the token as a bearer's only, and a 500 of it is tried again: it is its own.
    Threads may share it.
    """

    def __init__(
        self, url: str, token: SecretStr | None, side: str, network: Network | None = None, *, chroma: bool = True
    ) -> None:
        self.url = url
        self.side = side
        self.network = network or Network()
        self._chroma = chroma
        self._answered = False
        self._turn: AbstractContextManager[object] = nullcontext()
        headers = {"content-type": "application/json", "accept": "application/json"}
        if token is not None:
            # Servers up to 0.6.3 and gateways read one of these two, by their configuration.
            headers["authorization"] = f"Bearer {token.get_secret_value()}"
            if chroma:
                headers["x-chroma-token"] = token.get_secret_value()
        seconds = self.network.timeout_seconds
        self._client = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=16),
            # A proxy of the environment is for other hosts; it could not reach this one's loopback.
            mounts=dict.fromkeys(_LOOPBACK),
            headers=headers,
            verify=self.network.trust(),
        )

    def take_turns(self) -> None:
        """From now on one request at a time; while one thread decodes its answer, the next one's is under way."""
        self._turn = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, *, tries: int | None = None) -> Any:
        """The decoded answer to a GET."""
        return self.request("GET", path, tries=tries)

    def post(self, path: str, body: dict[str, Any], *, tries: int | None = None, decode: Decode = orjson.loads) -> Any:
        """The decoded answer to a POST."""
        return self.request("POST", path, orjson.dumps(body), tries=tries, decode=decode)

    def request(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        tries: int | None = None,
        stores: bool = False,
        decode: Decode = orjson.loads,
    ) -> Any:
        """The answer as `decode` makes it; passing failures are tried again with growing, jittered pauses.

        A request that `stores` something is tried again after a 500 too: a server with a full disk answers so. Of
        reading, a 500 is about a record, and stays.

        Raises:
            UnreachableError: nothing answers, or not in time, and never did.
            AuthenticationError: 401 or 403.
            RequestError: any other refusal; its message is the server's.
            NotChromaError: the answer is not JSON.
            ChromactlError: the server answered once, and does not any more.

        """
        most = self.network.max_retries + 1 if tries is None else tries
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(most),
            wait=_pause,
            retry=tenacity.retry_if_exception_type(_Passing),
            before_sleep=self._log_retry,
            reraise=True,
        )
        refused: RequestError | None = None
        try:
            for attempt in retrying:
                with attempt:
                    try:
                        return self._once(method, path, content, stores, decode)
                    except _Passing as failure:
                        refused = failure.error if isinstance(failure.error, RequestError) else refused
                        raise
        except _Passing as failure:
            final = self._final(failure.error, most)
            if refused is not None and not isinstance(final, RequestError):
                # 1.5.9 says once or twice that its disk is full, and then nothing any more: the words are the cause.
                words = f"{final}; before that it answered {refused.status}: {refused.words}"
                raise RequestError(words, refused.status, refused.words) from failure.__cause__
            raise final from failure.__cause__
        raise AssertionError("tenacity ends by an answer or an error")  # pragma: no cover

    def _final(self, error: ChromactlError, tries: int) -> ChromactlError:
        if isinstance(error, UnreachableError) and not self._answered:
            return error
        words = f"{error}; given up after {tries} tries (--max-retries)" if tries > 1 else str(error)
        if isinstance(error, RequestError):
            return RequestError(words, error.status, error.words)
        # Once it has answered, it is not a question of addresses and firewalls any more, and something was begun.
        return ChromactlError(words)

    def _once(self, method: str, path: str, content: bytes | None, stores: bool, decode: Decode) -> Any:
        try:
            answer = self._exchange(method, path, content)
        except httpx.TimeoutException as error:
            raise _Passing(
                UnreachableError(
                    f"{self.url}: no answer in time ({type(error).__name__}, --timeout "
                    f"{self.network.timeout_seconds:g}); is it overloaded, its disk full, or a firewall in between?"
                )
            ) from error
        except httpx.TransportError as error:
            raise _Passing(UnreachableError(_connection_sentence(self.url, error))) from error
        if answer.status in _PASSING:
            raise self._busy(answer)
        self._raise_refusal(answer, path, stores)
        try:
            decoded = decode(answer.content) if answer.content else None
        except orjson.JSONDecodeError as error:
            if not self._answered:
                raise NotChromaError(
                    f"{self.url}: what answers is not a ChromaDB (no JSON from {path}); check the address and port"
                ) from error
            raise _Passing(
                ChromactlError(
                    f"{self.url}: the answer from {path} is cut short, or no JSON; is there a proxy between?"
                )
            ) from error
        self._answered = True
        return decoded

    def _exchange(self, method: str, path: str, content: bytes | None) -> _Answer:
        with self._turn:
            deadline = time.monotonic() + self.network.timeout_seconds
            parts: list[bytes] = []
            with self._client.stream(method, self.url + path, content=content) as response:
                for part in response.iter_bytes():
                    parts.append(part)
                    # The client's own limit starts anew with every piece: an answer that drips would never end.
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("the answer began, and did not end")
                return _Answer(response.status_code, response.headers, b"".join(parts))

    def _busy(self, answer: _Answer) -> _Passing | ChromactlError:
        words = f"{self.url}: the server answers {answer.status} ({_message(answer)})"
        pause = _retry_after(answer.headers.get("retry-after"))
        if pause > LONGEST_PAUSE:
            return ChromactlError(f"{words} and asks to wait {pause:.0f} s; run the same command again then")
        return _Passing(ChromactlError(f"{words}; try again when it is well"), pause)

    def _raise_refusal(self, answer: _Answer, path: str, stores: bool) -> None:
        if answer.status in (401, 403):
            option = f"--{self.side}-token-file".replace("---", "--")
            twin = f"CHROMACTL_{self.side.upper().replace('-', '_')}_TOKEN".replace("__", "_")
            raise AuthenticationError(
                f"{self.url}: the server refuses this token or the lack of one (HTTP {answer.status}); "
                f"give the right one in a file ({option}) or in {twin}"
            )
        if answer.status >= 300:
            words = _message(answer)
            error = RequestError(f"{self.url}: HTTP {answer.status} from {path}: {words}", answer.status, words)
            if answer.status == 500 and (stores or not self._chroma):
                raise _Passing(error)
            raise error

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        log.warning("%s; try %d of the same request follows", failure, state.attempt_number + 1)


_backoff = tenacity.wait_exponential_jitter(multiplier=0.2, max=10.0, jitter=0.5)


def _pause(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.pause if isinstance(failure, _Passing) else 0.0
    return asked + float(_backoff(state)) if asked else float(_backoff(state))


def _retry_after(header: str | None) -> float:
    """The seconds that a Retry-After header asks to wait, as a number or a date; 0 for none and for nonsense."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _connection_sentence(url: str, error: httpx.TransportError) -> str:
    words = str(error)
    if "refused" in words:
        return f"{url}: connection refused; is the server running, and are host and port right?"
    if "Name or service not known" in words or "name resolution" in words or "nodename" in words:
        return f"{url}: the host name is not known here; check the address"
    if "CERTIFICATE" in words:
        return (
            f"{url}: the server's certificate is not trusted ({words}); give the CA that signed it (--ca-file), or the "
            "host name that it is for"
        )
    if "SSL" in words.upper():
        return f"{url}: the TLS connection failed ({words}); check the certificate, or http against https"
    return f"{url}: the connection broke ({words or type(error).__name__}); check the address, the server and its log"


def _message(answer: _Answer) -> str:
    """The server's own words: Chroma's `message` or `error`, OpenAI's `message` in `error`, else the body's start."""
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        text = " ".join(answer.content.decode(errors="replace").split())[:200]
        return text or httpx.codes.get_reason_phrase(answer.status)
    if isinstance(body, dict):
        body = body["error"] if isinstance(body.get("error"), dict) else body
        for key in ("message", "error", "detail"):
            if body.get(key):
                return str(body[key])[:500]
    return str(body)[:200]
