"""Pieces of work through stages that run at the same time, each piece in order, with a bounded number on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from chromactl import interrupt

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage(Generic[T]):
    """What is done with every piece: by so many threads at once, or (0) by the caller's own, one after the other."""

    do: Callable[[T], None]
    workers: int = 0


def flow(pieces: Iterable[T], stages: Iterable[Stage[T]]) -> None:
    """Put every piece through all stages; while one piece is in a stage, others are in other stages.

    Between stages pieces keep their order. When a stage raises, or a signal comes, no further piece begins a stage;
    those that are in one finish it first.
    """
    with ExitStack() as stack:
        stack.enter_context(interrupt.held())
        stream: Iterator[T] = iter(pieces)
        for stage in stages:
            if stage.workers:
                pool = stack.enter_context(_pool(stage.workers))
                stream = _through(stream, stage.do, pool, ahead=stage.workers)
            else:
                stream = _inline(stream, stage.do)
        for _ in stream:
            pass


class _pool(ThreadPoolExecutor):
    """Threads that do not begin anything that still waits when the block is left by an error."""

    def __exit__(self, *error: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _inline(pieces: Iterator[T], do: Callable[[T], None]) -> Iterator[T]:
    for piece in pieces:
        interrupt.let_through()
        do(piece)
        yield piece


def _through(pieces: Iterator[T], do: Callable[[T], None], pool: ThreadPoolExecutor, ahead: int) -> Iterator[T]:
    """The pieces after `do`, in order; besides those at work, at most one waits for each thread."""

    def work(piece: T) -> T:
        do(piece)
        return piece

    under_way: deque[Future[T]] = deque()
    for piece in pieces:
        interrupt.let_through()
        under_way.append(pool.submit(work, piece))
        while under_way and (len(under_way) > ahead or under_way[0].done()):
            yield under_way.popleft().result()
            interrupt.let_through()
    while under_way:
        yield under_way.popleft().result()
        interrupt.let_through()
