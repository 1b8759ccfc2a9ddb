"""Which ports a process listens on: its own, and no other's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from chromactl.stores.listening import listening_ports
from support.ports import BLOCK, free_port

TESTS = Path(__file__).resolve().parents[1]
LISTEN = """
import socket, sys
servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(server.getsockname()[1] for server in servers), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_ports_of_a_process_are_its_own(count: int) -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))),  # ours, not the child's
        subprocess.Popen(  # noqa: S603 (this Python)
            [sys.executable, "-S", "-c", LISTEN, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        wanted = {int(word) for word in process.stdout.readline().split()}
        assert len(wanted) == count
        assert listening_ports(process.pid) == wanted
        process.stdin.close()
    assert listening_ports(process.pid) == set()


def test_a_connection_is_no_port_that_is_listened_on() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        command = f"import socket, sys; socket.create_connection({server.getsockname()!r}); print(1); sys.stdin.read()"
        with subprocess.Popen(  # noqa: S603 (this Python)
            [sys.executable, "-S", "-u", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            assert listening_ports(process.pid) == set()
            process.stdin.close()


def test_two_test_processes_are_never_given_the_same_port() -> None:
    ours = {free_port() for _ in range(BLOCK)}
    # As if the kernel had given it our number: both then begin at the same block.
    command = f"from support import ports; print(*(next(ports._ports({os.getpid()})) for _ in range({BLOCK})))"
    done = subprocess.run(  # noqa: S603 (this Python)
        [sys.executable, "-c", command], stdout=subprocess.PIPE, text=True, cwd=TESTS, check=True
    )
    theirs = {int(word) for word in done.stdout.split()}
    assert len(theirs) == BLOCK
    assert not ours & theirs
