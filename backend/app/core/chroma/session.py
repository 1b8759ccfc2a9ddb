"""One connection to a Chroma: made when first used, made again when it proved useless, its errors put into words."""

from __future__ import annotations

import logging
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
from app.core.silence import Silence

log = logging.getLogger(__name__)

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
        self._silence = Silence(SILENCE_SECONDS)
        self._down = False
        # told of each call: whether Chroma answered, and after how many seconds
        self.called: Callable[[bool, float], None] = lambda answered, seconds: None

    def run(self, work: Work[T], purpose: Purpose = Purpose.LOOK) -> T:
        """Like `answer`, but says no at once after Chroma kept somebody waiting.

        When it was left in peace for a while one caller finds out whether it answers again, and the others are told
        no until that one knows.
        """
        if not self._silence.admits():
            raise ChromaTimeout(
                f"{self.target} did not answer a moment ago.", hint="It is asked again in a few seconds."
            )
        return self.answer(work, purpose)

    def answer(self, work: Work[T], purpose: Purpose = Purpose.LOOK) -> T:
        """Do it with the client, a second time where that may help: work must be the same done twice."""
        started = time.perf_counter()
        failure: ChromaUnavailable | None = None
        try:
            return self._answer(work, purpose)
        except ChromaUnavailable as error:
            failure = error
            raise
        finally:
            if isinstance(failure, ChromaTimeout):
                self._silence.begin()
            else:
                self._silence.end()
            self._tell(failure)
            self.called(failure is None, time.perf_counter() - started)

    def close(self) -> None:
        """Close the client, if there is one."""
        with self._lock:
            clients = [*self._outdated, *([self._client] if self._client else [])]
            self._client = None
            self._outdated.clear()
        for client in clients:
            client.close()

    def _answer(self, work: Work[T], purpose: Purpose) -> T:
        client = self._ready()
        try:
            return self._attempt(client, work, purpose)
        except ConnectionBroken:  # as when the server closed a pooled connection while it was idle
            return self._attempt(client, work, purpose)
        except ChromaRefusedToken:
            if not self._replace(client):
                raise
            return self._attempt(self._ready(), work, purpose)

    def _tell(self, error: ChromaUnavailable | None) -> None:
        """Log the first of several failures, and the end of them."""
        if (error is not None) != self._down:
            self._down = error is not None
            if error is None:
                log.info("%s answers again", self.target)
            else:
                log.warning("%s", error)

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
