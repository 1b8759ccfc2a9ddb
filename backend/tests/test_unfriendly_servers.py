"""Everything but a healthy Chroma at the other end: raw sockets that hang, dribble, hang up, or talk nonsense."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromadb.errors import InternalError

from app.core.chroma.failures import Purpose, Target, translate
from support.service import Serve

Talk = Callable[[socket.socket, threading.Event], None]


@contextmanager
def server(talk: Talk) -> Iterator[int]:
    """Accepts connections and lets `talk` have each, in a thread of its own."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                talk(connection, over)
            except OSError:
                return  # the client hung up

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(5)
            threads.append(threading.Thread(target=one, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        acceptor.join()
        for thread in threads:
            thread.join()
        listener.close()


def hang(_connection: socket.socket, over: threading.Event) -> None:
    over.wait(30)


def dribble(connection: socket.socket, over: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
    while not over.wait(0.05):
        connection.sendall(b" ")


def hang_up(connection: socket.socket, _over: threading.Event) -> None:
    connection.recv(65536)


def no_http(connection: socket.socket, _over: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def answer(status: str, body: str, *headers: str) -> Talk:
    def talk(connection: socket.socket, _over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(_response(status, body, *headers))

    return talk


def _response(status: str, body: str, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


CASES: dict[str, tuple[Talk, str, str]] = {
    "hangs": (hang, "chroma-timeout", "did not answer in time"),
    "dribbles": (dribble, "chroma-timeout", "did not answer in time"),
    "hangs up": (hang_up, "chroma-unavailable", "broke"),
    "speaks no HTTP": (no_http, "chroma-unavailable", "broke"),
    "a proxy's 401": (answer("401 Unauthorized", "<html>401</html>"), "chroma-refused-token", "token"),
    "an old server's 403": (
        answer("403 Forbidden", '{"error":"AuthError","message":"Forbidden"}'),
        "chroma-refused-token",
        "token",
    ),
    "a web site": (answer("200 OK", "<html>hello</html>"), "not-a-chroma", "not as a Chroma server"),
    "other JSON": (answer("200 OK", '{"hello": "world"}'), "not-a-chroma", "not as a Chroma server"),
    "a JSON null": (answer("200 OK", "null"), "not-a-chroma", "not as a Chroma server"),
    "a wrong path": (answer("404 Not Found", "nothing here"), "not-a-chroma", "HTTP 404"),
    "a redirect": (answer("301 Moved", "", "location: https://x/"), "not-a-chroma", "HTTP 301"),
    "Chroma 0.4": (answer("410 Gone", '{"error":"gone"}'), "not-a-chroma", "0.5 or newer"),
    "a proxy's 502": (answer("502 Bad Gateway", "<html>502</html>"), "chroma-unavailable", "HTTP 502"),
    "too busy": (answer("429 Too Many Requests", "slow down"), "chroma-unavailable", "HTTP 429"),
    "an error of its own": (
        answer("500 Internal Server Error", '{"error":"InternalError","message":"disk full"}'),
        "chroma-unavailable",
        "disk full",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_says_what_is_wrong_with_the_other_end(serve: Serve, case: str) -> None:
    talk, kind, says = CASES[case]
    with server(talk) as port, serve(**http(port)) as client:
        for response in (
            client.get("/health/chromadb"),
            client.post("/memories/search", json={"query": "x"}),
            client.post("/rag/query", json={"query": "x"}),
        ):
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["retry-after"]
            assert response.json()["hint"]
        problem = client.get("/health/chromadb").json()
        assert problem["type"] == f"urn:chroma-stack:problem:{kind}"
        assert says in problem["detail"]
        assert client.get("/health").status_code == 200


def test_says_so_when_nobody_listens(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with serve(**http(port)) as client:
        problem = client.get("/health/chromadb").json()
    assert problem["status"] == 503
    assert f"http://127.0.0.1:{port} cannot be reached" in problem["detail"]
    assert "CHROMA_PORT" in problem["hint"]


def test_says_so_when_tls_meets_plain_http(serve: Serve) -> None:
    with server(answer("400 Bad Request", "")) as port, serve(chroma_ssl=True, **http(port)) as client:
        problem = client.get("/health/chromadb").json()
    assert problem["status"] == 503
    assert "CHROMA_SSL" in problem["hint"]


def test_others_do_not_queue_up_behind_one_who_waits_in_vain(serve: Serve) -> None:
    asked: list[int] = []

    def hang_and_count(connection: socket.socket, over: threading.Event) -> None:
        asked.append(1)
        hang(connection, over)

    with server(hang_and_count) as port, serve(**(http(port) | {"chroma_timeout_seconds": 0.5})) as client:
        for _ in range(20):
            assert client.post("/rag/query", json={"query": "x"}).status_code == 503
    # the others were told at once; on a slow machine the silence may end meanwhile, and one finds out
    assert len(asked) < 10


def test_a_rotated_token_is_picked_up_without_a_failed_request(serve: Serve, tmp_path: Path) -> None:
    valid = ["first"]

    def talk(connection: socket.socket, _over: threading.Event) -> None:
        request = connection.recv(65536).decode()
        known = f"authorization: bearer {valid[0]}\r\n" in request.lower()
        status, body = "200 OK", "[]" if "/collections" in request else '{"id":"1","name":"d","tenant":"t"}'
        if "/collections/" in request:
            status, body = "404 Not Found", '{"error":"NotFoundError","message":"it does not exist"}'
        connection.sendall(_response(status if known else "401 Unauthorized", body if known else ""))

    file = tmp_path / "token"
    file.write_text("first\n")
    with server(talk) as port, serve(chroma_auth_token_file=file, **http(port)) as client:
        assert client.post("/rag/query", json={"query": "x"}).status_code == 200
        valid[0] = "second"
        problem = client.get("/health/chromadb").json()
        assert problem["type"].endswith("chroma-refused-token")
        file.write_text("second\n")
        assert client.get("/health/chromadb").status_code == 200
        file.unlink()
        assert client.get("/health/chromadb").status_code == 200
        valid[0] = "third"
        problem = client.get("/health/chromadb").json()
        assert problem["type"].endswith("chroma-refused-token")
        assert "No such file" in problem["detail"]


def http(port: int) -> dict[str, Any]:
    return {
        "chroma_mode": "http",
        "chroma_host": "127.0.0.1",
        "chroma_port": port,
        "chroma_timeout_seconds": 0.3,
        "chroma_resolve_seconds": 0,
        "search_degraded": False,
    }


@pytest.mark.parametrize("error", [InternalError("at 's3cret'"), RuntimeError("at 's3cret'")])
@pytest.mark.parametrize("remote", [True, False])
def test_what_it_says_of_a_filter_is_not_repeated(error: Exception, remote: bool) -> None:
    """Such errors are logged."""
    target = Target("Chroma", remote)
    assert "s3cret" in str(translate(error, target))
    assert "s3cret" not in str(translate(error, target, Purpose.FILTERED))
