"""Measuring: servers, processes and rounds. Every way goes once a round, each write to a fresh 1.5.9 server."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
from bench.ways import INSERTS, LARGE_INSERTS, LARGE_MIGRATE, ONCE, source_of

from support.servers import Server, Version, chroma_server

CHECKOUT = Path(__file__).resolve().parents[1]
GRID = [(batch, writers) for batch in (1000, 2000, 5461) for writers in (1, 2)]
GRID_ROUNDS = 2
LIMIT_SECONDS = 1800.0
TARGET: Version = "1.5.9"

Say = Callable[[str], None]
Measured = dict[str, Any]
"""What one process measured of itself, `seconds` at least; of `chromactl migrate`, also `wall` and `phases`, of
`chromactl validate`, `import`: the seconds of the import before it."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much data: records, floats an embedding."""

    chunks: int
    dim: int


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be measured."""

    size: Size
    rounds: int
    ways: tuple[str, ...]
    large: Size | None = None


@dataclass(slots=True)
class Results:
    """What was measured: per way one entry a round; `best` are the batch size and the writers of the bare inserts."""

    machine: dict[str, Any]
    options: Options
    best: tuple[int, int]
    grid: dict[str, list[float]] = field(default_factory=dict)
    ways: dict[str, list[Measured]] = field(default_factory=dict)


def measure(options: Options, say: Say) -> Results:
    """Start the sources, find the best way of inserting, and go the rounds.

    Raises:
        RuntimeError: a way failed, with the end of what it said.
    """
    results = Results(machine(), options, GRID[0])
    with tempfile.TemporaryDirectory(prefix="chromactl-bench-") as folder:
        bench = _Bench(Path(folder), say, results)
        bench.find_best()
        bench.rounds()
        if options.large is not None:
            bench.large(options.large)
    return results


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "chroma": {"target": TARGET, "client": version("chromadb"), "sources": ["1.5.9", "0.6.3"]},
    }


class _Bench:
    def __init__(self, root: Path, say: Say, results: Results) -> None:
        self._root = root
        self._say = say
        self._results = results
        self._options = results.options
        self._started = 0
        # What a process that had to be killed leaves behind lies in our folder too.
        self._env = {k: v for k, v in os.environ.items() if not k.startswith(("CHROMA", "CHROMACTL"))}
        self._env |= {"ANONYMIZED_TELEMETRY": "False", "TMPDIR": str(self._folder("tmp"))}

    def find_best(self) -> None:
        """The fastest batch size and number of writers for bare inserts."""
        seconds: dict[tuple[int, int], list[float]] = {entry: [] for entry in GRID}
        for _ in range(GRID_ROUNDS):
            for entry in GRID:
                seconds[entry].append(self._inserts(self._options.size, entry)["seconds"])
                self._say(f"bare inserts, batches of {entry[0]} x {entry[1]}: {seconds[entry][-1]:.2f} s")
        self._results.grid = {f"{batch} x {writers}": values for (batch, writers), values in seconds.items()}
        self._results.best = min(seconds, key=lambda entry: min(seconds[entry]))

    def rounds(self) -> None:
        """Every way once a round."""
        options = self._options
        with ExitStack() as stack:
            sources = self._sources(stack, {source_of(way) for way in options.ways})
            for number in range(options.rounds):
                for way in options.ways:
                    if number == 0 or way not in ONCE:
                        self._go(way, sources)
                self._say(f"round {number + 1} of {options.rounds} is over")

    def large(self, size: Size) -> None:
        """Insert and migrate a large set, once."""
        with self._server() as source:
            self._say(f"filling a source with {size.chunks} x {size.dim}")
            self._fill(source, size)
            self._say("large: bare inserts")
            self._keep(LARGE_INSERTS, self._inserts(size, self._results.best))
            self._say("large: migrate")
            with self._server() as target, self._work() as work:
                self._keep(LARGE_MIGRATE, self._migrate("complete", work, source.url, target.url))

    def _sources(self, stack: ExitStack, wanted: set[str | None]) -> dict[str, str]:
        """What to migrate from: URLs of filled servers, and a copy of a directory that 0.6.3 wrote."""
        size, sources = self._options.size, {}
        if "1.5.9" in wanted:
            server = stack.enter_context(self._server())
            self._fill(server, size)
            sources["1.5.9"] = server.url
        if wanted & {"0.6.3", "path"}:
            data = self._folder("old") / "data"
            with chroma_server(data, version="0.6.3") as server:
                self._fill(server, size)
            copied = data.parent / "copied"
            shutil.copytree(data, copied)
            sources["path"] = f"path:{copied}"
        if "0.6.3" in wanted:
            sources["0.6.3"] = stack.enter_context(chroma_server(data, version="0.6.3")).url
        return sources

    def _go(self, way: str, sources: dict[str, str]) -> None:
        kind, _, rest = way.partition("-")
        records = self._options.size.chunks
        source = sources.get(source_of(way) or "", "")
        if kind == INSERTS:
            self._keep(way, self._inserts(self._options.size, self._results.best))
        elif kind in ("migrate", "strict"):  # and, where they were migrated, validate, again and exact
            with self._server() as target, self._work() as work:
                flags = ["--strict-phases"] if kind == "strict" else []
                self._keep(way, self._migrate("complete", work, source, target.url, *flags))
                if way == "migrate-1.5.9" and "validate-1.5.9" in self._options.ways:
                    before = self._results.ways[way][-1]
                    self._keep("validate-1.5.9", self._validate(work, source, target.url, before))
                for again, more in (("again", []), ("exact", ["--exact-recheck"])):
                    if kind == "migrate" and f"{again}-{rest}" in self._options.ways:
                        self._keep(f"{again}-{rest}", self._migrate("unchanged", work, source, target.url, *more))
        elif kind == "naive":
            with self._server() as target:
                self._keep(way, self._alone("naive", records, source=source, target=target.url))
        elif kind == "export":
            with self._work() as work:
                self._keep(way, self._alone("export", records, url=source, folder=str(work)))
        elif kind == "read":
            method, _, threads = rest.partition("-")[2].partition("-")
            if method == "client":
                self._keep(way, self._alone("client", records, url=source))
            else:
                self._keep(way, self._alone("rest", records, url=source, by=method, threads=int(threads)))

    def _keep(self, way: str, measured: Measured) -> None:
        self._say(f"{way}: {measured['seconds']:.2f} s, {measured['peak_memory_bytes'] / 1e6:.0f} MB")
        self._results.ways.setdefault(way, []).append(measured)

    def _inserts(self, size: Size, best: tuple[int, int]) -> Measured:
        with self._server() as target:
            settings = {"url": target.url, "chunks": size.chunks, "dim": size.dim}
            return self._alone("inserts", size.chunks, **settings, batch=best[0], writers=best[1])

    def _fill(self, server: Server, size: Size) -> None:
        self._alone("fill", size.chunks, url=server.url, chunks=size.chunks, dim=size.dim)

    def _migrate(self, status: str, work: Path, source: str, target: str, *flags: str) -> Measured:
        """`chromactl migrate` as a person runs it; `seconds` and the peak of its memory are what it says itself."""
        begun = perf_counter()
        arguments = ["migrate", "--json", "--source-url", source, "--target-url", target, *flags]
        said = self._run([sys.executable, "-m", "chromactl", *arguments], work)
        wall = perf_counter() - begun
        if said["status"] != status:
            raise RuntimeError(f"chromactl migrate from {source} ended {said['status']}, not {status}")
        kept = ("seconds", "peak_memory_bytes", "phases")
        return {"wall": wall, **{key: said[key] for key in kept}}

    def _validate(self, work: Path, old: str, new: str, migrated: Measured) -> Measured:
        """`chromactl validate` of the two servers of a migration; it may warn, of busy machines say, and not fail."""
        sides = ["--old-db-url", old, "--new-db-url", new, "--limit-ms", "60000"]
        said = self._run([sys.executable, "-m", "chromactl", "validate", "--json", *sides], work)
        compared = said["tests"][0]["numbers"]["expected"]
        if compared != self._options.size.chunks:
            raise RuntimeError(f"chromactl validate compared {compared} records of {self._options.size.chunks}")
        imported = next(phase["seconds"] for phase in migrated["phases"] if phase["name"] == "import")
        return {
            "seconds": said["elapsed_seconds"],
            "peak_memory_bytes": said["peak_memory_bytes"],
            "import": imported,
        }

    def _alone(self, job: str, records: int, **settings: Any) -> Measured:
        argv = [sys.executable, "-m", "bench.alone", job, orjson.dumps(settings).decode()]
        measured = self._run(argv, CHECKOUT)
        if measured["records"] != records:
            raise RuntimeError(f"{job}: {measured['records']} records, and there are {records}")
        return measured

    def _run(self, argv: list[str], cwd: Path) -> Measured:
        """The JSON object that a process prints. It is killed when we are interrupted, or after LIMIT_SECONDS.

        This process has to be smaller than what it starts: Linux counts the peak of the parent's memory as the child's
        until the child is larger.
        """
        done = subprocess.run(  # noqa: S603 (our own interpreter)
            argv, cwd=cwd, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.decode()[-3000:]}")
        measured: Measured = orjson.loads(done.stdout)
        return measured

    @contextmanager
    def _server(self) -> Iterator[Server]:
        with self._work() as folder, chroma_server(folder / "data", version=TARGET) as server:
            yield server

    @contextmanager
    def _work(self) -> Iterator[Path]:
        """A folder that is removed at once: many large databases would fill the disk."""
        self._started += 1
        folder = self._folder(f"{self._started:04d}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir(parents=True)
        return folder
