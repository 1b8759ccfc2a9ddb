"""What a person sees while a command runs: lines and progress on stderr. stdout belongs to the result."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0

Advance = Callable[[str, int], None]
"""Called with a step's name and the number of records that it has just done; by any thread."""


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
    def progress(self, total: int, *names: str) -> Iterator[Advance]:
        """Show how far steps of `total` records each are; they go on at the same time, the last one last."""
        if self._quiet or not sys.stderr.isatty():
            yield _Lines(self, names, total)
            return
        columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, _Rate(), TimeRemainingColumn(), console=self._rich, transient=True) as bars:
            tasks = {name: bars.add_task(name, total=total) for name in names}
            yield lambda name, count: bars.advance(tasks[name], count)


def unseen(name: str, count: int) -> None:
    """Progress that nobody is shown."""


class _Rate(ProgressColumn):
    """Records a second."""

    def render(self, task: Task) -> Text:
        """The rate so far."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class _Lines:
    """Progress where there is no terminal: a line every few seconds."""

    def __init__(self, console: Console, names: Sequence[str], total: int) -> None:
        self._console = console
        self._done = dict.fromkeys(names, 0)
        self._total = total
        self._begun = self._told = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, name: str, count: int) -> None:
        with self._lock:
            self._done[name] += count
            now = time.monotonic()
            if now - self._told < SECONDS_BETWEEN_LINES:
                return
            self._told = now
            steps = ", ".join(f"{step} {done:,}" for step, done in self._done.items())
            last = list(self._done.values())[-1]
            rate = last / (now - self._begun)
            left = f"{(self._total - last) / rate:.0f} s left" if rate else "time left not known yet"
            self._console.line(f"{steps} of {self._total:,}; {rate:,.0f}/s, {left}")
