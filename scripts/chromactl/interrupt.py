"""Signals that end the program: at once, or, where threads have work in hand, between two pieces of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

# Signals are the process's, and so is this. Only the main thread gets them, and only it changes `_holds`.
_holds = 0
_came: type[BaseException] | None = None


class TerminatedError(BaseException):
    """SIGTERM came."""


def heed() -> None:
    """From now on SIGINT raises KeyboardInterrupt and SIGTERM `TerminatedError`; a second one ends the process."""
    for number in EXIT_CODES:
        signal.signal(number, _end)


@contextmanager
def held() -> Iterator[None]:
    """In this block signals raise nothing before `let_through` is called, or the block is over.

    An exception in the middle of starting a thread would leave one that nobody waits for.
    """
    global _holds
    mine = threading.current_thread() is threading.main_thread()
    _holds += mine
    try:
        yield
    finally:
        _holds -= mine
    if mine and not _holds:
        let_through()


def let_through() -> None:
    """Raise what a signal asked for since it was held. Every thread may ask, and ends its work so.

    Raises:
        KeyboardInterrupt: SIGINT came.
        TerminatedError: SIGTERM came.
    """
    if _came is not None:
        raise _came


def _end(number: int, frame: FrameType | None) -> None:
    """What is under way is finished and noted; a second signal does not wait for that."""
    global _came
    code = EXIT_CODES[signal.Signals(number)]
    for each in EXIT_CODES:
        signal.signal(each, lambda *_: os._exit(code))
    _came = KeyboardInterrupt if number == signal.SIGINT else TerminatedError
    if not _holds:
        raise _came
