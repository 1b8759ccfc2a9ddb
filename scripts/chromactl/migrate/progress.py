"""How far a run is: its phases, their times, the lines that the runbooks look for, and the checkpoints after them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.plan import Piece
from chromactl.migrate.state import Checkpoint, PhaseResult

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Span:
    """From the first to the last moment of a phase; `busy` is the work in between, of all threads."""

    begun: float
    ended: float
    busy: float = 0.0


class Phases:
    """The clock and the checkpoints of a run's phases, which may overlap."""

    def __init__(self, config: MigrateConfig, checkpoint: Checkpoint) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._spans: dict[str, _Span] = {}
        self.checkpoint = checkpoint
        self.written: list[Path] = []

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the block's time as this phase's."""
        begun = perf_counter()
        try:
            yield
        finally:
            ended = perf_counter()
            with self._lock:
                span = self._spans.setdefault(phase, _Span(begun, ended))
                span.begun, span.ended = min(span.begun, begun), max(span.ended, ended)
                span.busy += ended - begun

    def step(self, phase: str, do: Callable[[Piece], None]) -> Callable[[Piece], None]:
        """A step whose time counts as this phase's."""

        def timed(piece: Piece) -> None:
            with self.timed(phase):
                do(piece)

        return timed

    def result(self, phase: str, records: int) -> PhaseResult:
        """What the phase came to, from its first to its last moment so far."""
        span = self._spans.get(phase)
        return PhaseResult(phase, span.ended - span.begun if span is not None else 0.0, records)

    def done(self, phase: str, records: int, *, seconds: float | None = None, **changes: object) -> None:
        """The phase is over: write its checkpoint."""
        result = self.result(phase, records)
        if seconds is not None:
            result = replace(result, seconds=seconds)
        self.checkpoint = self.checkpoint.after(result, **changes)
        if not self._config.dry_run:
            self.written.append(state.write_checkpoint(self._config, self.checkpoint))
        log.debug("phase %s: %d records in %.3f s", phase, records, result.seconds)

    def begin(self) -> None:
        """Write the first checkpoint, unless there is one: by it, the next run finds the folder that a kill leaves."""
        if not self._config.dry_run and not self.written:
            self.written.append(state.write_checkpoint(self._config, self.checkpoint))
