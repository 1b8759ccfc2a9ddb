"""One way, in a process of its own: `python -m bench.alone NAME '{"argument": …}'` prints one JSON object.

So that no way finds what another has imported, allocated or opened, and the process that starts them stays small.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any

import orjson
from bench import reading, writing

JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "fill": writing.fill,
    "inserts": writing.inserts,
    "naive": writing.naive,
    "client": reading.client,
    "rest": reading.rest,
    "export": reading.export,
}

if __name__ == "__main__":
    result = JOBS[sys.argv[1]](**orjson.loads(sys.argv[2]))
    result["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(orjson.dumps(result).decode())
