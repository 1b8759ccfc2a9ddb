"""What process_listening promises, with real processes and sockets on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.modules import Module

MODULE = Module("process_listening")
run, complaint, refusal = MODULE.run, MODULE.complaint, MODULE.refusal


MARK = "CHROMA_STACK_PROCESS=api 5d41402a"
LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2])), family=int(sys.argv[3])) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@contextmanager
def listener(mark: str | None, address: str = "127.0.0.1") -> Iterator[int]:
    """A process that listens on a port of the system's choice, with MARK in its environment."""
    environment = dict(os.environ) | (dict([mark.split("=", 1)]) if mark else {})
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    argv = [sys.executable, "-S", "-c", LISTEN, address, "0", str(int(family))]
    with subprocess.Popen(  # noqa: S603  (this Python)
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "api.log"
    path.write_text("".join(f"line {number}; " for number in range(9)))
    return path


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_process_with_the_mark_is_known(log: Path, address: str) -> None:
    with listener(MARK, address) as port:
        assert run(port=port, mark=MARK, log=str(log), seconds=0) == {"changed": False}


def test_a_child_of_the_marked_process_is_known(log: Path) -> None:
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {LISTEN!r}, '127.0.0.1', '0', '2'])"
    environment = dict(os.environ) | dict([MARK.split("=", 1)])
    argv = [sys.executable, "-S", "-c", script]
    with subprocess.Popen(  # noqa: S603  (this Python)
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert run(port=port, mark=MARK, log=str(log), seconds=0) == {"changed": False}
        parent.stdin.close()


@pytest.mark.parametrize("theirs", [None, f"{MARK}b", MARK[:-1], "CHROMA_STACK_PROCESS=migration 5d41402a"])
def test_another_process_on_the_port_is_named(log: Path, theirs: str | None) -> None:
    with listener(theirs) as port:
        said = complaint(port=port, mark=MARK, log=str(log), seconds=0)
    assert said.startswith(f"Port {port} is held by process ")
    assert "make stop" in said
    assert said.endswith(f"{log} ends with: {log.read_text().strip()}")


def test_a_port_shared_with_another_process_is_not_ours_alone(log: Path) -> None:
    # The same port on two addresses: which one a client reaches depends on the address it asks.
    with listener(MARK) as port, closing(socket.socket()) as other:
        other.bind(("127.0.0.2", port))
        other.listen()
        assert f"process {os.getpid()} " in complaint(port=port, mark=MARK, log=str(log), seconds=0)


def test_a_port_where_nobody_listens_is_told(log: Path) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))  # ours, so that nobody else listens there meanwhile
        port = holder.getsockname()[1]
        assert complaint(port=port, mark=MARK, log=str(log), seconds=0).startswith(
            f"Nothing listens on port {port} after 0 s; {log} ends with: line 0; "
        )


def test_only_the_last_lines_of_the_log_are_shown(log: Path) -> None:
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(100)) + b"\xff\n")
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        said = run(port=holder.getsockname()[1], mark=MARK, log=str(log), seconds=0)["msg"]
    assert said.endswith("ends with: line 96\nline 97\nline 98\nline 99\n\ufffd")


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        said = complaint(port=holder.getsockname()[1], mark=MARK, log=str(tmp_path / "none"), seconds=0)
    assert "No such file" in said


def test_check_mode_asks_nothing() -> None:
    assert run(check=True, port=1, mark=MARK, log="/nonexistent") == {"changed": False}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"port": None}, "The option port is needed."),
        ({"mark": None}, "The option mark is needed."),
        ({"log": None}, "The option log is needed."),
        ({"port": 0}, "The option port is a number from 1 to 65535."),
        ({"port": 65536}, "The option port is a number from 1 to 65535."),
        ({"port": "http"}, "The option port is of type int, not str."),
        ({"seconds": 0.5}, "The option seconds is of type int, not float."),
        ({"mark": ""}, "The option mark is like NAME=value."),
        ({"mark": "NAME"}, "The option mark is like NAME=value."),
        ({"mark": ["a=b"]}, "The option mark is of type str, not list."),
        ({"marks": "a=b"}, "There is no option marks; the options are port, mark, log, seconds."),
    ],
)
def test_malformed_arguments(wrong: dict[str, Any], said: str) -> None:
    arguments = {"port": 1, "mark": MARK, "log": "/nonexistent"} | wrong
    assert refusal(**arguments) == said


def test_a_port_from_a_command_line_is_a_number(log: Path) -> None:
    with listener(MARK) as port:
        assert run(port=str(port), mark=MARK, log=str(log), seconds="0") == {"changed": False}


def test_malformed_arguments_end_in_a_sentence_and_no_traceback() -> None:
    assert complaint().endswith(" is needed.")
    assert complaint(token="hunter2").startswith("There is no option token; the options are ")
