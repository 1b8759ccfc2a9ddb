"""Who has just kept somebody waiting is not asked by everybody else as well."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

_NONE = -math.inf


class Silence:
    """For so many seconds after a failure nobody is admitted; then one caller, who finds out how it is now.

    The others are admitted again once somebody was answered. Safe to share between threads.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._until = _NONE

    @property
    def on(self) -> bool:
        """Whether the last thing heard was a failure."""
        return self._until != _NONE

    def admits(self) -> bool:
        """Whether to ask. Who was admitted has to call `end` or `begin` afterwards."""
        if not self.on:
            return True
        with self._lock:
            if self._clock() < self._until:
                return False
            if self._until != _NONE:  # it may have ended while we waited for the lock
                self._until = math.inf
            return True

    def begin(self) -> None:
        """There was no answer."""
        self._until = self._clock() + self._seconds

    def end(self) -> None:
        """There was one."""
        self._until = _NONE
