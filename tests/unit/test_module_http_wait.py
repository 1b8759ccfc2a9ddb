"""What http_wait promises, against real servers on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support.modules import Module

MODULE = Module("http_wait")
run, complaint, refusal = MODULE.run, MODULE.complaint, MODULE.refusal


class Service(ThreadingHTTPServer):
    """A service with a list of answers, the last of which it repeats; it remembers what it was asked."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Gives the service's next answer."""

    server: Service

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, text = self.server.answers[0] if len(self.server.answers) == 1 else self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@contextmanager
def serving(*answers: tuple[int, str]) -> Iterator[Service]:
    with Service(*answers) as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


@contextmanager
def raw(answer: bytes, then_every: float | None = None) -> Iterator[str]:
    """A port that takes a connection, sends ANSWER and then holds on, silent or with one byte every so often."""
    over = threading.Event()

    def hold(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                taken, _ = listener.accept()
            except TimeoutError:
                continue
            with taken:
                try:
                    taken.sendall(answer)
                    while not over.wait(then_every or 0.05):
                        if then_every:
                            taken.sendall(b"x")
                        elif taken.recv(4096) == b"":
                            break
                except OSError:
                    continue  # the asker gave up

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=hold, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            thread.join()


@contextmanager
def closed_port() -> Iterator[str]:
    """An address that is ours and refuses: bound, and nobody listens."""
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/"


def test_every_address_is_asked_and_nothing_is_changed() -> None:
    with serving((200, "ok")) as one, serving((200, "x" * 10_000)) as other:
        result = run(urls=[f"{one.url}/health?deep=1", other.url], seconds=5)
        assert result == {"changed": False}
        assert (one.asked, other.asked) == (["/health?deep=1"], ["/"])


def test_a_service_that_starts_is_asked_again() -> None:
    with serving((503, "starting"), (503, "starting"), (200, "ok")) as service:
        assert run(urls=[service.url], seconds=20) == {"changed": False}
        assert len(service.asked) == 3


@pytest.mark.parametrize("status", [204, 503])
def test_only_200_will_do_and_the_last_answer_is_told(status: int) -> None:
    with serving((200, "ok")) as good, serving((status, "" if status == 204 else "not yet")) as bad:
        said = complaint(urls=[good.url, bad.url], seconds=0)
        assert said.startswith(f"{bad.url} does not answer with 200 after 0 s; it said: {status} ")
        assert said.endswith("not yet") == (status != 204)


def test_a_port_where_nobody_listens() -> None:
    with closed_port() as url:
        assert "Connection refused" in complaint(urls=[url], seconds=0)


@pytest.mark.parametrize(
    ("answer", "every"),
    [(b"", None), (b"HTTP/1.1 200 OK\r\nX-Endless: ", 0.05), (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n", 0.05)],
    ids=["silent", "endless header", "endless body"],
)
def test_a_port_that_never_finishes_its_answer_is_given_up_in_time(answer: bytes, every: float | None) -> None:
    with raw(answer, every) as url:
        begun = time.monotonic()
        assert complaint(urls=[url], seconds=0).endswith("no complete answer in time")
        assert time.monotonic() - begun < 4  # one answer alone might take 5 s


def test_what_is_no_http_is_told() -> None:
    with raw(b"SSH-2.0-OpenSSH\r\n") as url:
        assert "SSH-2.0" in complaint(urls=[url], seconds=0)


def test_check_mode_asks_nothing() -> None:
    with serving((200, "ok")) as service:
        assert run(check=True, urls=[service.url]) == {"changed": False}
        assert service.asked == []


def test_no_address_is_nothing_to_wait_for() -> None:
    assert run(urls=[]) == {"changed": False}


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "127.0.0.1:80",
        "http:///health",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:port/",
        "http://[::1/",
        7,
        None,
    ],
)
def test_what_cannot_be_asked_is_no_address(url: object) -> None:
    assert refusal(urls=[url]) == "Each of the urls is like http://host:port/path, without https."


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    assert "hunter2" not in complaint(urls=["http://admin:hunter2@127.0.0.1:1/"])


def test_a_name_that_no_host_can_have() -> None:
    assert "does not answer" in complaint(urls=["http://a..b/"], seconds=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "The option urls is needed."),
        ({"urls": "http://127.0.0.1/"}, "The option urls is of type list, not str."),
        ({"urls": [], "seconds": "soon"}, "The option seconds is of type int, not str."),
        ({"urls": [], "seconds": True}, "The option seconds is of type int, not bool."),
        ({"urls": [], "url": "hunter2"}, "There is no option url; the options are urls, seconds."),
    ],
)
def test_malformed_arguments(arguments: dict[str, Any], said: str) -> None:
    assert refusal(**arguments) == said


def test_a_number_from_a_command_line_is_a_number() -> None:
    assert run(urls=[], seconds="5") == {"changed": False}


def test_malformed_arguments_end_in_a_sentence_and_no_traceback() -> None:
    assert complaint().endswith(" is needed.")
    assert complaint(token="hunter2").startswith("There is no option token; the options are ")
