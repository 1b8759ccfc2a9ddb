"""A real HTTP forwarder between chromactl and a Chroma server, that can spoil, hold up and refuse what passes."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import httpx
import orjson

Spoil = Callable[[str, dict[str, Any]], bool]
"""Given the path and body of a write, changes the body in place; True when it did, and it is not asked again."""

Guard = Callable[[str, dict[str, Any]], tuple[int, Any] | None]
"""Given the path and body of any request, may change the body in place; status and JSON to answer with, or None."""

WRITES = ("/add", "/upsert", "/update")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the next request whose path ends with one of `on`.

    answer: refused with a status. hang: never answered. reset: cut off before it gets to the server. lost: cut off
    after the server did it. cut: half an answer, then the end. short: half an answer that says it is whole. drip: an
    answer that comes a byte at a time, and never ends.
    """

    kind: Literal["answer", "hang", "reset", "lost", "cut", "short", "drip"]
    on: tuple[str, ...] = WRITES
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Forwarder:
    """Where it listens, and what passed."""

    url: str
    spoil: Spoil | None = None
    passed: list[tuple[str, str]] = field(default_factory=list)
    spoiled: int = 0
    refuse: list[int] = field(default_factory=list)
    """Statuses to answer the next record writes with, instead of passing them on."""
    faults: list[Fault] = field(default_factory=list)
    guard: Guard | None = None
    token: str | None = None
    """What x-chroma-token has to be, else 401."""
    ended: threading.Event = field(default_factory=threading.Event)

    def fault(self, path: str) -> Fault | None:
        """The fault for a request to this path, which has come true then."""
        for found in self.faults:
            if path.partition("?")[0].endswith(found.on):
                self.faults.remove(found)
                return found
        return None

    def times(self, *endings: str) -> int:
        """How many requests went to paths that end so."""
        return sum(path.endswith(endings) for _, path in self.passed)


@contextmanager
def forwarder(
    target: str,
    spoil: Spoil | None = None,
    *,
    guard: Guard | None = None,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
) -> Iterator[Forwarder]:
    """Forward to the server at `target` until the block ends."""
    with _listening(_handler, tls) as server, httpx.Client(base_url=target, trust_env=False, timeout=60) as client:
        scheme = "http" if tls is None else "https"
        state = Forwarder(f"{scheme}://127.0.0.1:{server.server_address[1]}", spoil, guard=guard, token=token)
        server.state, server.client = state, client  # type: ignore[attr-defined]
        try:
            yield state
        finally:
            state.ended.set()


@contextmanager
def answering(status: int, content_type: str, body: bytes) -> Iterator[str]:
    """Something that is HTTP but no Chroma: the same answer to everything. Gives its URL."""

    class Same(_Quiet):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.answer(status, content_type, body)

        do_GET = do_POST = do_PUT = do_DELETE = _any

    with _listening(Same) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that hangs up, or does not trust us, is what the tests are about."""


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        # The handshake comes with the first read, in the thread of the connection.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(BaseHTTPRequestHandler):
    """One answer a connection, no log."""

    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests' output is not a log."""

    def answer(
        self,
        status: int,
        content_type: str,
        body: bytes,
        headers: tuple[tuple[str, str], ...] = (),
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.send_header("connection", "close")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _handler(_Quiet):
    @property
    def state(self) -> Forwarder:
        state: Forwarder = self.server.state  # type: ignore[attr-defined]
        return state

    def _any(self) -> None:
        state = self.state
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        state.passed.append((self.command, self.path))
        if state.token is not None and self.headers.get("x-chroma-token") != state.token:
            self.answer(401, "application/json", b'{"error": "Unauthorized"}')
            return
        fault = state.fault(self.path)
        writes = self.path.endswith(WRITES)
        if writes and state.refuse:
            fault = Fault("answer", status=state.refuse.pop(0))
        if fault is not None and self._before(fault):
            return
        if state.guard is not None:
            body = orjson.loads(content) if content else {}
            refused = state.guard(self.path, body)
            if refused is not None:
                self.answer(refused[0], "application/json", orjson.dumps(refused[1]))
                return
            content = orjson.dumps(body) if content else content
        if writes and state.spoil is not None:
            body = orjson.loads(content)
            if state.spoil(self.path, body):
                state.spoiled += 1
                state.spoil = None
            content = orjson.dumps(body)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")
        }
        client: httpx.Client = self.server.client  # type: ignore[attr-defined]
        got = client.request(self.command, self.path, content=content, headers=headers)
        kind = got.headers.get("content-type", "application/json")
        if fault is None:
            self.answer(got.status_code, kind, got.content)
        elif fault.kind == "lost":
            self._reset()
        else:
            half = got.content[: len(got.content) // 2] or b"{"
            self.answer(got.status_code, kind, half, length=len(half) if fault.kind == "short" else 2 * len(half) + 1)

    def _before(self, fault: Fault) -> bool:
        """What a fault does instead of forwarding; False where it comes afterwards."""
        if fault.kind == "answer":
            self.answer(fault.status, "application/json", b'{"message": "not now"}', fault.headers)
        elif fault.kind == "hang":
            self.state.ended.wait()
        elif fault.kind == "reset":
            self._reset()
        elif fault.kind == "drip":
            self.answer(200, "application/json", b"", length=10**6)
            while not self.state.ended.wait(0.05):
                self.wfile.write(b" ")
        else:
            return False
        return True

    def _reset(self) -> None:
        # No lingering: closing sends RST, as a peer that dies does.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = _any
