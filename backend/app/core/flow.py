"""Pieces of work through stages that run at the same time, each piece in order, with a bounded number on the way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM came."""


class Stop:
    """Whether the command is to end. Set by a signal, asked between two pieces of work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Have everything end that asks."""
        self._event.set()

    def check(self) -> None:
        """Raise Stopped when it is set."""
        if self._event.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Sleep, or raise Stopped as soon as it is set."""
        if self._event.wait(seconds):
            raise Stopped


@dataclass(frozen=True, slots=True)
class Stage(Generic[T]):
    """What is done with every piece: by so many threads at once, or (0) by the caller's own, one after the other."""

    do: Callable[[T], None]
    workers: int = 0


def flow(pieces: Iterable[T], stages: Iterable[Stage[T]], stop: Stop) -> None:
    """Put every piece through all stages; while one piece is in a stage, others are in other stages.

    Making the pieces is a stage of its own, in one thread. Between stages pieces keep their order. When a stage raises,
    or `stop` is set, no further piece begins a stage; those that are in one finish it first.
    """
    with ExitStack() as stack:
        source = iter(pieces)
        if isinstance(source, Generator):
            stack.callback(source.close)  # once its thread is over: what it holds is let go of here and now
        stream = _ahead(source, stack.enter_context(_Pool(1)))
        for stage in stages:
            if stage.workers:
                pool = stack.enter_context(_Pool(stage.workers))
                stream = _through(stream, stage.do, pool, stage.workers, stop)
            else:
                stream = _inline(stream, stage.do, stop)
        for _ in stream:
            pass


class _Pool(ThreadPoolExecutor):
    """Threads that do not begin anything that still waits when the block is left by an error."""

    def __exit__(self, *error: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _ahead(pieces: Iterator[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    """The pieces, each made while the one before is worked on."""
    end = object()
    following: Future[T | object] = pool.submit(next, pieces, end)
    while (piece := following.result()) is not end:
        following = pool.submit(next, pieces, end)
        yield piece  # type: ignore[misc]


def _inline(pieces: Iterator[T], do: Callable[[T], None], stop: Stop) -> Iterator[T]:
    for piece in pieces:
        stop.check()
        do(piece)
        yield piece


def _through(
    pieces: Iterator[T], do: Callable[[T], None], pool: ThreadPoolExecutor, ahead: int, stop: Stop
) -> Iterator[T]:
    """The pieces after `do`, in order; besides those at work, at most one waits for each thread."""

    def work(piece: T) -> T:
        do(piece)
        return piece

    under_way: deque[Future[T]] = deque()
    for piece in pieces:
        stop.check()
        under_way.append(pool.submit(work, piece))
        while under_way and (len(under_way) > ahead or under_way[0].done()):
            yield under_way.popleft().result()
            stop.check()
    while under_way:
        yield under_way.popleft().result()
        stop.check()
