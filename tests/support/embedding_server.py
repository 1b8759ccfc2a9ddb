"""An OpenAI-compatible /v1/embeddings on loopback. Its model is the hashing embedder, and it can answer wrongly."""

from __future__ import annotations

import base64
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import orjson

from chromactl.embedding import hashing_embeddings

MODEL = "hash-by-http"

Spoil = Callable[[dict[str, Any]], Any]
"""Makes of a good answer the one that is given; bytes are sent as they are."""
Judge = Callable[[dict[str, Any]], tuple[int, Any] | None]
"""Status and answer to a request that is not to be answered well."""


@dataclass
class EmbeddingServer:
    """Where it listens, what it was asked, and how it answers."""

    url: str
    dimension: int
    key: str | None = None
    texts: list[str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    """Statuses to answer the next requests with."""
    spoil: Spoil | None = None
    judge: Judge | None = None
    retry_after: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer to one request."""
        self.requests.append((path, headers))
        self.bodies.append(body)
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": "Incorrect API key provided"}}
        if self.refuse:
            return self.refuse.pop(0), {"error": {"message": "the model is on fire"}}
        if path != "/v1/embeddings" or body["model"] != MODEL:
            return 404, {"error": {"message": f"no model {body['model']} at {path}"}}
        if self.judge is not None and (judged := self.judge(body)) is not None:
            return judged
        self.texts += body["input"]
        vectors = hashing_embeddings(body["input"], self.dimension)
        as_text = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": place, "embedding": _base64(one) if as_text else one.tolist()}
            for place, one in enumerate(vectors)
        ]
        good = {"object": "list", "model": MODEL, "data": data[::-1]}
        return 200, good if self.spoil is None else self.spoil(good)


def _base64(vector: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that hung up, which many a test has them do."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Told on stderr, but for that."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def embedding_server(dimension: int, key: str | None = None) -> Iterator[EmbeddingServer]:
    """The server, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = state.answer(self.path, headers, body)
            content = answer if isinstance(answer, bytes) else orjson.dumps(answer)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            if state.retry_after is not None:
                self.send_header("retry-after", state.retry_after)
            with suppress(BrokenPipeError):  # who asked may be gone by now
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = _Quiet(("127.0.0.1", 0), Handler)
    state = EmbeddingServer(f"http://127.0.0.1:{server.server_address[1]}/v1", dimension, key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
