"""From measurements to ratios of medians, targets met or missed, a table and the measured part of a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.chart import Bar, Panel
from bench.measure import Measured, Results, Size
from bench.ways import INSERTS, LARGE_INSERTS, LARGE_MIGRATE, SERVERS, WAYS, source_of

MOST_OF_INSERTS = 1.4
LEAST_OF_READERS = 0.9
MOST_OF_WHOLE = 0.05
MOST_OF_IMPORT = 1.0
MOST_BYTES = 300e6
MOST_GROWTH = 1.2
MOST_SECONDS_AGAIN = 5.0

MARK = "measured: written by `make bench`"
_END = "<!-- end of measured -->"
_COLUMNS = ("way", "median s", "min s", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `value` is what the target is about: a ratio, a share, seconds or bytes as text."""

    way: str
    median: float | None = None
    fastest: float | None = None
    value: str = ""
    target: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """As text, a cell a column."""
        times = ("" if seconds is None else f"{seconds:.2f}" for seconds in (self.median, self.fastest))
        return (self.way, *times, self.value, self.target, {None: "", True: "yes", False: "NO"}[self.met])


def rows(results: Results) -> list[Row]:
    """All that was measured, and how it compares with what is asked for."""
    parts = (_whole, _validating, _reading, _again, _memory, _large)
    return [row for part in parts for row in part(results)]


def middle(measured: Sequence[Measured]) -> float:
    """The median of the seconds."""
    return float(median(entry["seconds"] for entry in measured))


def _row(way: str, measured: Sequence[Measured], value: str = "", target: str = "", met: bool | None = None) -> Row:
    return Row(way, middle(measured), min(entry["seconds"] for entry in measured), value, target, met)


def _whole(results: Results) -> Iterator[Row]:
    """Whole ways, as multiples of bare inserts, and what of a migration is transforming and validating."""
    floor = middle(results.ways[INSERTS])
    batch, writers = results.best
    for way, measured in _of(results, "inserts", "migrate", "strict", "naive"):
        ratio = middle(measured) / floor
        if way == INSERTS:
            name = f"{WAYS[way]}: batches of {batch:,}, {writers} writer{'s'[: writers != 1]} (the best of the grid)"
            yield _row(name, measured, "1.00")
        elif way.startswith("migrate-"):
            target = f"≤ {MOST_OF_INSERTS:.2f} of the inserts"
            yield _row(WAYS[way], measured, f"{ratio:.2f}", target, ratio <= MOST_OF_INSERTS)
        else:
            yield _row(WAYS[way], measured, f"{ratio:.2f}")
    for way, measured in _of(results, "migrate"):
        shares = [_transforming(entry) / entry["seconds"] for entry in measured]
        share = median(shares)
        yield Row(
            f"transform and validate, from {_named(way)}",
            median(map(_transforming, measured)),
            min(map(_transforming, measured)),
            f"{share:.1%}",
            f"≤ {MOST_OF_WHOLE:.0%} of the whole",
            share <= MOST_OF_WHOLE,
        )
    starts = [entry["wall"] - entry["seconds"] for _, measured in _of(results, "migrate") for entry in measured]
    if starts:
        yield Row("start and end of the process (in none of the above)", median(starts), min(starts))


def _transforming(measured: Measured) -> float:
    both = ("transform", "validate")
    return float(sum(phase["seconds"] for phase in measured["phases"] if phase["name"] in both))


def _validating(results: Results) -> Iterator[Row]:
    """Validations, as multiples of the imports before them."""
    for way, measured in _of(results, "validate"):
        ratio = median(entry["seconds"] / entry["import"] for entry in measured)
        yield _row(
            WAYS[way], measured, f"{ratio:.2f}", f"≤ {MOST_OF_IMPORT:.2f} of the import", ratio <= MOST_OF_IMPORT
        )


def _reading(results: Results) -> Iterator[Row]:
    """Rates of reading, as shares of the fastest plain reader's."""
    for server in SERVERS:
        plain = [middle(measured) for _, measured in _of(results, f"read-{server}")]
        for way, measured in _of(results, f"export-{server}", f"read-{server}"):
            share = min(plain) / middle(measured) if plain else None
            value = "" if share is None else f"{share:.2f}"
            if share is not None and way.startswith("export-"):
                target = f"≥ {LEAST_OF_READERS:.2f} of the fastest reader's rate"
                yield _row(WAYS[way], measured, value, target, share >= LEAST_OF_READERS)
            else:
                yield _row(WAYS[way], measured, value)


def _again(results: Results) -> Iterator[Row]:
    """Finished runs, run again."""
    for way, measured in _of(results, "again"):
        target = f"≤ {MOST_SECONDS_AGAIN:.0f} s"
        yield _row(WAYS[way], measured, "", target, middle(measured) <= MOST_SECONDS_AGAIN)
    for way, measured in _of(results, "exact"):
        yield _row(WAYS[way], measured)


def _memory(results: Results) -> Iterator[Row]:
    """The largest resident set that a migration, or a validation, ever had."""
    for way, measured in _of(results, "migrate", "validate"):
        peak = _peak(measured)
        target = f"≤ {MOST_BYTES / 1e6:.0f} MB"
        name = f"peak memory, {'validating' if way.startswith('validate') else 'from'} {_named(way)}"
        yield Row(name, value=_megabytes(peak), target=target, met=peak <= MOST_BYTES)


def _large(results: Results) -> Iterator[Row]:
    """Whether time and memory stay in proportion."""
    size = results.options.large
    if size is None or LARGE_MIGRATE not in results.ways:
        return
    inserts, migrate = results.ways[LARGE_INSERTS], results.ways[LARGE_MIGRATE]
    ratio, peak = middle(migrate) / middle(inserts), _peak(migrate)
    yield _row(f"bare inserts, {_sized(size)}", inserts, "1.00")
    small = results.ways.get("migrate-1.5.9")
    name = f"chromactl migrate, from 1.5.9, {_sized(size)}"
    if small is None:
        yield _row(name, migrate, f"{ratio:.2f}")
        return
    before, grown = middle(small) / middle(results.ways[INSERTS]), peak / _peak(small)
    yield _row(
        name, migrate, f"{ratio:.2f}", f"≤ {before:.2f}, as with {_sized(results.options.size)}", ratio <= before
    )
    value = f"{_megabytes(peak)}, {grown:.2f} of the smaller set's"
    yield Row(f"peak memory, {_sized(size)}", value=value, target=f"≤ {MOST_GROWTH:.2f}", met=grown <= MOST_GROWTH)


def _of(results: Results, *kinds: str) -> Iterator[tuple[str, list[Measured]]]:
    """The ways of these kinds, kind by kind."""
    for kind in kinds:
        for way in WAYS:
            if (way == kind or way.startswith(f"{kind}-")) and way in results.ways:
                yield way, results.ways[way]


def _peak(measured: Sequence[Measured]) -> float:
    return float(max(entry["peak_memory_bytes"] for entry in measured))


def _named(way: str) -> str:
    source = source_of(way)
    return "a copied 0.6.3 directory" if source == "path" else str(source)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def _sized(size: Size) -> str:
    return f"{size.chunks:,} x {size.dim}"


def heading(results: Results) -> str:
    """What was measured, and on what."""
    machine, chroma, options = results.machine, results.machine["chroma"], results.options
    return (
        f"{_sized(options.size)}, medians of {options.rounds} round{'s'[: options.rounds != 1]}; "
        f"{machine['cores']} cores, Python {machine['python']}; Chroma {' and '.join(chroma['sources'])} to "
        f"{chroma['target']}, Chroma's client {chroma['client']}"
    )


def table(results: Results, found: Sequence[Row]) -> list[str]:
    """The lines for a terminal."""
    cells = [_COLUMNS, *(row.cells() for row in found)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = (0, 4)  # text; the others are numbers
    lines = [heading(results)]
    for row in cells:
        padded = [f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(padded).rstrip())
    return lines


def markdown(results: Results, found: Sequence[Row], picture: str | None) -> str:
    """The measured part of the page: what on, the picture if there is one, the table."""
    lines = [f"{heading(results)}.", ""]
    if picture is not None:
        lines += [f"![Times as multiples of bare inserts, and rates of reading]({picture})", ""]
    lines += [_cells(_COLUMNS), "|---|--:|--:|--:|---|---|", *(_cells(row.cells()) for row in found)]
    grid = ", ".join(f"{entry} {min(seconds):.2f} s" for entry, seconds in results.grid.items())
    return "\n".join([*lines, "", f"Bare inserts by batch size x writers, the fastest of each: {grid}."])


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replace_measured(page: str, measured: str, mark: str = MARK) -> str:
    """The page with what stands between the mark and the next end of measured replaced.

    Raises:
        ValueError: the page has not exactly one such mark, with an end after it.
    """
    begin = f"<!-- {mark} -->"
    before, found, rest = page.partition(begin)
    if not found or begin in rest or _END not in rest:
        raise ValueError(f"the page needs one line {begin!r} and after it a line {_END!r}")
    return f"{before}{begin}\n\n{measured}\n\n{_END}{rest.partition(_END)[2]}"


def panels(results: Results) -> list[Panel]:
    """What the chart shows: times as multiples of bare inserts, and rates of reading."""
    floor = middle(results.ways[INSERTS])
    whole = [
        _bar(way, middle(found) / floor, found) for way, found in _of(results, INSERTS, "migrate", "strict", "naive")
    ]
    found_panels = [Panel("Time, as a multiple of bare inserts", whole, MOST_OF_INSERTS, "target")]
    for server in SERVERS:
        read = list(_of(results, f"export-{server}", f"read-{server}"))
        if read:
            fastest = min(middle(found) for _, found in read)
            bars = [_bar(way, middle(found) / fastest, found) for way, found in read]
            found_panels.append(Panel(f"Time to read everything from {server}, as a multiple of the fastest", bars))
    return found_panels


def _bar(way: str, ratio: float, measured: Sequence[Measured]) -> Bar:
    ours = way.startswith(("migrate", "strict", "export"))
    return Bar(WAYS[way], ratio, f"{ratio:.2f}  ({middle(measured):.2f} s)", ours)
