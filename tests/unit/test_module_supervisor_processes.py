"""What supervisor_processes promises where supervisord is not, or is somebody else."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.modules import Module

MODULE = Module("supervisor_processes")
run, complaint, refusal = MODULE.run, MODULE.complaint, MODULE.refusal


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    """Arguments whose configuration is there and whose program and socket are not."""
    config = tmp_path / "supervisord.conf"
    config.write_text("[supervisord]\n")
    return {"program": str(tmp_path / "supervisord"), "config": str(config), "socket": str(tmp_path / "sock")}


def program(place: dict[str, Any], script: str) -> None:
    """Have SCRIPT stand where the supervisord program should be."""
    path = Path(str(place["program"]))
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@contextmanager
def occupied(path: object, answer: bytes) -> Iterator[None]:
    """Somebody else on the socket, who gives ANSWER to each who connects; none at all where it is empty."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        over = threading.Event()

        def serve() -> None:
            while True:
                taken, _ = listener.accept()
                with taken:
                    if over.is_set():
                        return
                    asked = b""
                    while b"</methodCall>" not in asked:
                        asked += taken.recv(4096)
                    taken.sendall(answer)

        thread = threading.Thread(target=serve)
        if answer:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if answer:
                with closing(socket.socket(socket.AF_UNIX)) as last:
                    last.connect(str(path))
                thread.join()


def test_check_mode_says_that_it_would_be_started_and_starts_nothing(place: dict[str, Any], tmp_path: Path) -> None:
    program(place, f"touch {tmp_path}/was-run")
    assert run(check=True, **place) == {"changed": True, "changes": ["started supervisord"]}
    assert not (tmp_path / "was-run").exists()


def test_a_socket_that_was_left_behind_is_nobody(place: dict[str, Any]) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as gone:
        gone.bind(str(place["socket"]))
    assert run(check=True, **place)["changes"] == ["started supervisord"]


def test_a_configuration_that_is_not_there(place: dict[str, Any]) -> None:
    Path(str(place["config"])).unlink()
    assert complaint(**place) == f"{place['config']} is not there; run playbooks/site.yml"


def test_a_program_that_is_not_there(place: dict[str, Any]) -> None:
    assert str(place["program"]) in complaint(**place)


def test_a_program_that_fails_says_why(place: dict[str, Any]) -> None:
    program(place, r"printf 'Error: no such user \377' >&2; exit 2")
    assert complaint(**place) == "supervisord did not start: Error: no such user \ufffd"


def test_it_starts_with_nothing_of_this_session(
    place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_TOKEN", "hunter2")
    program(place, f'env > {tmp_path}/env; pwd > {tmp_path}/cwd; echo "$@" > {tmp_path}/argv; exit 1')
    complaint(**place)
    assert "hunter2" not in (tmp_path / "env").read_text()
    assert (tmp_path / "cwd").read_text() == "/\n"
    assert (tmp_path / "argv").read_text() == f"--configuration {place['config']}\n"


def test_whoever_does_not_answer_is_given_up_in_time(place: dict[str, Any], tmp_path: Path) -> None:
    program(place, "exit 0")
    foreground = place | {"program": str(tmp_path / "foreground")}
    program(foreground, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    silent = place | {"socket": str(tmp_path / "silent")}
    begun = time.monotonic()
    with occupied(silent["socket"], b""), ThreadPoolExecutor() as side_by_side:
        waits = [side_by_side.submit(complaint, **each, start_timeout=1) for each in (place, foreground, silent)]
        said = [wait.result() for wait in waits]
    assert time.monotonic() - begun < 10
    assert said == [
        f"supervisord started but does not answer on {place['socket']} after 1 s; see its log",
        "supervisord did not go to the background within 1 s; see its log",
        f"Who listens on {silent['socket']} does not answer within 1 s; see its log",
    ]
    with pytest.raises(ProcessLookupError):  # what stayed in the foreground was ended
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 26\r\n\r\n<methodResponse><params></",
    ],
    ids=["not found", "no xml", "half of an xml"],
)
def test_somebody_else_on_the_socket_is_not_taken_for_supervisord(place: dict[str, Any], answer: bytes) -> None:
    with occupied(place["socket"], answer):
        assert complaint(**place).startswith(f"Who listens on {place['socket']} is not supervisord: ")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"program": None}, "The option program is needed."),
        ({"config": None}, "The option config is needed."),
        ({"socket": None}, "The option socket is needed."),
        ({"socket": ["x"]}, "The option socket is of type str, not list."),
        ({"start_timeout": "long"}, "The option start_timeout is of type int, not str."),
        ({"start_timeout": 0}, "The option start_timeout is at least 1."),
        ({"timeout": 3}, "There is no option timeout; the options are program, config, socket, start_timeout."),
    ],
)
def test_malformed_arguments(place: dict[str, Any], wrong: dict[str, Any], said: str) -> None:
    assert refusal(**(place | wrong)) == said


def test_malformed_arguments_end_in_a_sentence_and_no_traceback() -> None:
    assert complaint().endswith(" is needed.")
    assert complaint(token="hunter2").startswith("There is no option token; the options are ")
