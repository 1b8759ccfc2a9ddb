"""A deadline for an httpx client that was made without one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx

_KEY = "chroma_stack.deadline"


def set_deadline(client: httpx.Client, seconds: float) -> None:
    """Bound every request of the client.

    httpx's own timeout bounds each wait for the socket. A server that sends a byte now and then would
    pass that for ever, so the body is bounded as a whole too: httpx.ReadTimeout at most `seconds` late.
    """

    def begin(request: httpx.Request) -> None:
        request.extensions[_KEY] = time.monotonic() + seconds

    def limit(response: httpx.Response) -> None:
        stream = response.stream
        if isinstance(stream, httpx.SyncByteStream):
            response.stream = _LimitedStream(stream, response.request)

    client.timeout = httpx.Timeout(seconds)
    client.event_hooks = {"request": [begin], "response": [limit]}


class _LimitedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, request: httpx.Request) -> None:
        self._stream = stream
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        until: float = self._request.extensions[_KEY]
        for chunk in self._stream:
            if time.monotonic() > until:
                raise httpx.ReadTimeout("the answer took too long", request=self._request)
            yield chunk

    def close(self) -> None:
        self._stream.close()
