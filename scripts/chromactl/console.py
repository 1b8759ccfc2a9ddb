"""What a person sees while a command runs: lines and progress on stderr. stdout belongs to the result."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0

Advance = Callable[[int], None]
"""Called with the number of records that have just been done."""


class Console:
    """Lines to stderr and the log alike; a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._rich = RichConsole(stderr=True, highlight=False)

    def line(self, text: str) -> None:
        """Say one line."""
        log.info(text)
        if not self._quiet:
            self._rich.print(text, markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Advance]:
        """Show how far a step of `total` records is."""
        if self._quiet or not sys.stderr.isatty():
            yield _Lines(self, name, total)
            return
        columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._rich, transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)


def unseen(count: int) -> None:
    """Progress that nobody is shown."""


class _Lines:
    """Progress where there is no terminal: a line every few seconds."""

    def __init__(self, console: Console, name: str, total: int) -> None:
        self._console = console
        self._name = name
        self._total = total
        self._done = 0
        self._begun = self._told = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            rate = self._done / (now - self._begun)
            left = (self._total - self._done) / rate if rate else 0.0
            self._console.line(f"{self._name}: {self._done:,} of {self._total:,}, {rate:,.0f}/s, {left:.0f} s left")
