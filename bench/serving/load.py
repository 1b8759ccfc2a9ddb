"""Locust, in an environment of its own: made from requirements/bench.txt on first use, then kept in .cache/bench."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
_CACHE = CHECKOUT / ".cache" / "bench"
_LOCUSTFILE = Path(__file__).with_name("locustfile.py")


@dataclass(frozen=True)
class Answered:
    """What Locust saw of one kind of request. Times in ms, by Locust's rounding (1 ms below 100 ms)."""

    requests: int
    per_second: float
    times: dict[float, int]

    def percentile(self, share: float) -> float:
        """The time that this share of the requests did not exceed, in ms."""
        wanted, seen = share * sum(self.times.values()), 0
        for time in sorted(self.times):
            seen += self.times[time]
            if seen >= wanted:
                return time
        raise RuntimeError("nothing was measured")


def drive(
    user: str, host: str, settings: dict[str, Any], users: int, seconds: int, folder: Path
) -> dict[str, Answered]:
    """So many users of this class for so many seconds; by request name. RuntimeError when a request failed."""
    file = folder / "load.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(settings))
    flags = ["--headless", "--json", "--only-summary", "--loglevel", "ERROR", "--host", host]
    done = subprocess.run(  # noqa: S603 (our own arguments)
        [str(_locust()), "-f", str(_LOCUSTFILE), user, *flags, "-u", str(users), "-r", str(users), "-t", f"{seconds}s"],
        env={**os.environ, "BENCH_SETTINGS": str(file)},
        capture_output=True,
        text=True,
        timeout=seconds + 120,
    )
    if done.returncode:
        raise RuntimeError(f"Locust ended with {done.returncode}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return {entry["name"]: _answered(entry, seconds) for entry in json.loads(done.stdout)}


def _answered(entry: dict[str, Any], seconds: int) -> Answered:
    if entry["num_failures"]:
        raise RuntimeError(f"{entry['name']}: {entry['num_failures']} of {entry['num_requests']} requests failed")
    times = {float(time): count for time, count in entry["response_times"].items()}
    return Answered(entry["num_requests"], entry["num_requests"] / seconds, times)


def _locust() -> Path:
    program = _CACHE / "bin" / "locust"
    _CACHE.parent.mkdir(exist_ok=True)
    with (_CACHE.parent / "bench.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (_CACHE / ".complete").exists():
            shutil.rmtree(_CACHE, ignore_errors=True)
            uv = str(Path(sys.executable).parent / "uv")
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(_CACHE)])
            lock = str(CHECKOUT / "requirements" / "bench.txt")
            _run([uv, "pip", "sync", "--quiet", "--python", str(_CACHE), "--require-hashes", lock])
            (_CACHE / ".complete").touch()
    return program


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
