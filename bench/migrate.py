"""Every target of speed and memory, measured side by side in one run: how, and what came out, is in docs/benchmarks.md.

python bench/migrate.py [--chunks 9832] [--dim 768] [--rounds 3] [--ways migrate export …] [--large]
                        [--json FILE] [--chart FILE.svg] [--markdown FILE.md]
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    # In place of this folder: the checkout, for `bench`, and the tests, for the servers of every version.
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]
    from bench.command import main

    main(sys.argv[1:])
