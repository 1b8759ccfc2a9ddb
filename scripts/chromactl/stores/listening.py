"""Which ports a process listens on, as the kernel says: nobody else can be taken for it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"


def listening_ports(pid: int) -> set[int]:
    """The TCP ports (IPv4) that this very process listens on; none yet, or none any more, is an empty set.

    The process has to be the caller's own user's. Format: Documentation/networking/proc_net_tcp.rst of Linux.
    """
    own = set()
    with suppress(OSError):  # the process, or one of its files, may vanish while we look
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            own.add(str(descriptor.readlink()))
    ports = set()
    for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, *_, inode = row.split()[:10]
        if state == _LISTENING and f"socket:[{inode}]" in own:
            ports.add(int(local.rpartition(":")[2], 16))
    return ports
