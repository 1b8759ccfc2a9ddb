"""The bench's options, and where its results go."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import orjson
from bench import chart, report
from bench.measure import Options, Size, measure
from bench.ways import WAYS, chosen

from support.servers import ServerDied

LARGE = "200000x384"


def main(arguments: list[str]) -> None:
    """Measure, print the table, and write what was asked for."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        ways = chosen(given.ways)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, _end)  # as an exception, so that servers and folders are cleaned up
    load = os.getloadavg()[0]
    try:
        results = measure(Options(Size(given.chunks, given.dim), given.rounds, ways, given.large), _say)
    except (RuntimeError, ServerDied, subprocess.TimeoutExpired) as error:
        sys.exit(f"bench: {error}")
    results.machine["load before"] = round(load, 2)
    rows = report.rows(results)
    print("\n".join(report.table(results, rows)))
    if given.json:
        body = {**asdict(results), "rows": [asdict(row) for row in rows]}
        given.json.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    if given.chart:
        given.chart.write_text(chart.svg(report.panels(results)), encoding="utf-8")
    if given.markdown:
        picture = Path(os.path.relpath(given.chart, given.markdown.parent)).as_posix() if given.chart else None
        page = given.markdown.read_text(encoding="utf-8")
        page = report.replace_measured(page, report.markdown(results, rows, picture))
        given.markdown.write_text(page, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/migrate.py", description="Measure chromactl against bare inserts.")
    parser.add_argument("--chunks", type=_positive, default=9832, help="records (9832)")
    parser.add_argument("--dim", type=_positive, default=768, help="floats an embedding (768)")
    parser.add_argument("--rounds", type=_positive, default=3, help="how often every way is gone (3)")
    parser.add_argument(
        "--ways",
        nargs="+",
        default=[],
        metavar="WAY",
        help=f"only these, by name or by how their names begin: {', '.join(WAYS)}",
    )
    parser.add_argument(
        "--large",
        nargs="?",
        type=_size,
        const=_size(LARGE),
        metavar="CHUNKSxDIM",
        help=f"also migrate and insert a large set, once ({LARGE})",
    )
    parser.add_argument("--json", type=_file, help="write every measurement to this file")
    parser.add_argument("--chart", type=_file, help="draw an SVG")
    parser.add_argument("--markdown", type=_page, help="rewrite the measured part of this page")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return number


def _size(text: str) -> Size:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text}: give CHUNKSxDIM, as in {LARGE}")
    chunks, _, dim = text.partition("x")
    return Size(int(chunks), int(dim))


def _file(text: str) -> Path:
    # Told now, and not after a quarter of an hour of measuring.
    if not (path := Path(text)).parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent}: no such folder")
    return path


def _page(text: str) -> Path:
    try:
        report.replace_measured((path := Path(text)).read_text(encoding="utf-8"), "")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error
    return path


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)
