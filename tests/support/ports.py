"""Ports of loopback for servers that cannot choose one themselves, or have to come back on the same.

They lie below those that the kernel gives away, to whoever asks for any and to every connection that goes out. A test
process keeps a block of them to itself while it lives, so that neither parallel workers nor another test run takes one
that waits for its server.
"""

from __future__ import annotations

import itertools
import os
import socket
from functools import cache

FIRST, BLOCKS, BLOCK = 20_000, 100, 100


def free_port() -> int:
    """A loopback port that nothing listens on, and that no other test process will be given."""
    ports = _ports(os.getpid())
    for port in itertools.islice(ports, BLOCK):
        with socket.socket() as probe:
            # As servers do: what is left of a former server's connections is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port of a whole block is free; who listens on {FIRST} to {FIRST + BLOCKS * BLOCK - 1}?")


@cache
def _ports(pid: int) -> itertools.cycle[int]:
    """The ports of this process's block, round and round."""
    for block in ((pid + step) % BLOCKS for step in range(BLOCKS)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            # A name of no file system: it exists once, and is gone with the process.
            claim.bind(f"\0chroma-stack-test-ports-{block}")
        except OSError:
            claim.close()
            continue
        claim.detach()
        return itertools.cycle(range(FIRST + block * BLOCK, FIRST + (block + 1) * BLOCK))
    raise AssertionError(f"{BLOCKS} test processes hold ports already; are they left over?")
