"""One connection to a Chroma: made when first used, made again when it proved useless, its errors put into words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pydantic import SecretStr

from app.core.chroma.client import ChromaClient
from app.core.chroma.failures import Purpose, Target, is_not_found, is_panic, translate
from app.core.errors import (
    ChromaRefusedToken,
    ChromaTimeout,
    ChromaUnavailable,
    ConnectionBroken,
    ServiceError,
    UnknownCollection,
)

T = TypeVar("T")
Work = Callable[[ChromaClient], T]

# After a timeout everybody else is told at once for this long, instead of queueing up to wait as well.
SILENCE_SECONDS = 2.0


class Session:
    """A Chroma, and how it was last heard of.

    All methods block, may be called from any thread, and raise ServiceError only.
    """

    def __init__(
        self,
        connect: Callable[[], ChromaClient],
        target: Target,
        token: Callable[[], SecretStr | None] = lambda: None,
    ) -> None:
        self.target = target
        self._connect = connect
        self._token = token
        self._lock = threading.Lock()
        self._client: ChromaClient | None = None
        self._outdated: list[ChromaClient] = []
        self._silent_until = float("-inf")
        # told of each call: whether Chroma answered, and after how many seconds
        self.called: Callable[[bool, float], None] = lambda answered, seconds: None

    def run(self, work: Work[T], purpose: Purpose = Purpose.LOOK) -> T:
        """Like `answer`, but says no at once for a while after Chroma kept somebody waiting."""
        if time.monotonic() < self._silent_until:
            raise ChromaTimeout(
                f"{self.target} did not answer a moment ago.", hint="It is asked again in a few seconds."
            )
        return self.answer(work, purpose)

    def answer(self, work: Work[T], purpose: Purpose = Purpose.LOOK) -> T:
        """Do it with the client, a second time where that may help: work must be the same done twice."""
        started = time.perf_counter()
        answered = True
        try:
            return self._answer(work, purpose)
        except ChromaUnavailable:
            answered = False
            raise
        finally:
            self.called(answered, time.perf_counter() - started)

    def _answer(self, work: Work[T], purpose: Purpose) -> T:
        client = self._ready()
        try:
            try:
                answer = self._attempt(client, work, purpose)
            except ConnectionBroken:  # as when the server closed a pooled connection while it was idle
                answer = self._attempt(client, work, purpose)
            except ChromaRefusedToken:
                if not self._replace(client):
                    raise
                answer = self._attempt(self._ready(), work, purpose)
        except ChromaTimeout:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            raise
        self._silent_until = float("-inf")
        return answer

    def close(self) -> None:
        """Close the client, if there is one."""
        with self._lock:
            clients = [*self._outdated, *([self._client] if self._client else [])]
            self._client = None
            self._outdated.clear()
        for client in clients:
            client.close()

    def _attempt(self, client: ChromaClient, work: Work[T], purpose: Purpose) -> T:
        try:
            return work(client)
        except ServiceError:
            raise
        except Exception as error:
            if is_not_found(error):
                raise UnknownCollection(str(error)) from error
            raise translate(error, self.target, purpose) from error
        except BaseException as error:
            if is_panic(error):
                raise translate(error, self.target, purpose) from error
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
