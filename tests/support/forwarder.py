"""A real HTTP forwarder between chromactl and a Chroma server, that can spoil what passes through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import orjson

Spoil = Callable[[str, dict[str, Any]], bool]
"""Given the path and body of a write, changes the body in place; True when it did, and it is not asked again."""


@dataclass
class Forwarder:
    """Where it listens, and what passed."""

    url: str
    spoil: Spoil | None = None
    passed: list[tuple[str, str]] = field(default_factory=list)
    spoiled: int = 0
    refuse: list[int] = field(default_factory=list)
    """Statuses to answer the next record writes with, instead of passing them on."""


@contextmanager
def forwarder(target: str, spoil: Spoil | None = None) -> Iterator[Forwarder]:
    """Forward to the server at `target` until the block ends."""
    with _listening(_handler) as server, httpx.Client(base_url=target, trust_env=False, timeout=60) as client:
        state = Forwarder(f"http://127.0.0.1:{server.server_address[1]}", spoil)
        server.state, server.client = state, client  # type: ignore[attr-defined]
        yield state


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


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
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

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)


class _handler(_Quiet):
    def _any(self) -> None:
        state: Forwarder = self.server.state  # type: ignore[attr-defined]
        client: httpx.Client = self.server.client  # type: ignore[attr-defined]
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        state.passed.append((self.command, self.path))
        writes = self.path.endswith(("/add", "/upsert"))
        if writes and state.refuse:
            self.answer(state.refuse.pop(0), "application/json", b'{"message": "not now"}')
            return
        if writes and state.spoil is not None:
            body = orjson.loads(content)
            if state.spoil(self.path, body):
                state.spoiled += 1
                state.spoil = None
            content = orjson.dumps(body)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")
        }
        answer = client.request(self.command, self.path, content=content, headers=headers)
        self.answer(answer.status_code, answer.headers.get("content-type", "application/json"), answer.content)

    do_GET = do_POST = do_PUT = do_DELETE = _any
