"""The command line of bench/service.py, and the order of what is measured."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from bench.report import replace_measured
from bench.serving import report, searching, writing

WAYS = ("overhead", "saturation", "writes", "backlog")


def main(arguments: list[str]) -> None:
    """Measure what is asked for, print the table, write the files."""
    options = _parser().parse_args(arguments)
    results: dict[str, list[dict[str, float]]] = {}

    def keep(way: str, found: dict[str, float]) -> None:
        results.setdefault(way, []).append(found)
        _say(f"{way}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))

    load = os.getloadavg()[0]
    if {"overhead", "saturation"} & set(options.ways):
        with searching.filled(options.memories) as (running, both):
            for _ in range(options.rounds):
                if "overhead" in options.ways:
                    keep("overhead", searching.overhead(running, both))
                if "saturation" in options.ways:
                    keep("saturation", searching.saturation(running, both, options.seconds))
    if "writes" in options.ways:
        for _ in range(options.rounds):
            keep("writes", writing.writes(options.seconds))
    if "backlog" in options.ways:
        keep("backlog", writing.backlog(options.backlog, _say))
    what: dict[str, Any] = {
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "load before": load,
        "memories": options.memories,
        "backlog": options.backlog,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    rows = report.rows(results)
    _say("")
    for line in report.table(rows):
        print(line)
    if options.json:
        options.json.write_text(json.dumps({"of": what, "measured": results}, indent=2) + "\n")
    if options.markdown:
        page = options.markdown.read_text()
        options.markdown.write_text(replace_measured(page, report.markdown(what, rows), report.MARK))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/service.py", description="Measure the service's targets.")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="all without")
    parser.add_argument("--seconds", type=int, default=30, help="of each load")
    parser.add_argument("--memories", type=int, default=10_000, help="in the index that is searched")
    parser.add_argument("--backlog", type=int, default=100_000, help="events to drain, memories to rebuild")
    parser.add_argument("--rounds", type=int, default=3, help="of everything but the backlog")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="the page whose measured part is replaced")
    return parser


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
