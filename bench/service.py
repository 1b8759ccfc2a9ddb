"""The service's targets of speed, measured side by side in one run: how, and what came out, is in docs/benchmarks.md.

python bench/service.py [--ways overhead saturation writes backlog] [--seconds 30] [--memories 10000]
                        [--backlog 100000] [--rounds 3] [--json FILE] [--markdown FILE.md]
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    # In place of this folder: the checkout, for `bench`, and the tests, for the servers.
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]
    from bench.serving.command import main

    main(sys.argv[1:])
