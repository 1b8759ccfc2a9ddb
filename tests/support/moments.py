"""Moments of a run that can be told from outside: requests that pass a forwarder, and what its folder holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from support.forwarder import Guard


def any_request(side: str, path: str, body: dict[str, Any]) -> bool:
    return True


def a_rename(side: str, path: str, body: dict[str, Any]) -> bool:
    return "new_name" in body


@dataclass
class Watch:
    """Keeps the requests that pass forwarders, and does something at the `at`-th that `counts` (from 1), once.

    With `drop` that request is not passed on. `happened` is set when it is done.
    """

    at: int = 0
    act: Callable[[], None] = lambda: None
    drop: bool = False
    counts: Callable[[str, str, dict[str, Any]], bool] = any_request
    seen: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    counted: int = 0
    happened: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def guard(self, side: str) -> Guard:
        """What a forwarder asks before it passes a request on to this side."""
        return partial(self._request, side)

    def _request(self, side: str, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        with self.lock:
            self.seen.append((side, path, body))
            self.counted += self.counts(side, path, body)
            if self.counted != self.at or self.happened.is_set():
                return None
            self.act()
            self.happened.set()
        return (503, {"message": "dropped"}) if self.drop else None

    def begin(self, *, at: int = 0, act: Callable[[], None] = lambda: None, drop: bool = False) -> None:
        """Begin anew."""
        with self.lock:
            self.at, self.act, self.drop = at, act, drop
            self.counted = 0
            self.seen.clear()
            self.happened.clear()

    def asked(self, side: str, ending: str) -> set[str]:
        """The ids that requests to paths of this ending named."""
        with self.lock:
            found = [body for to, path, body in self.seen if to == side and path.endswith(ending)]
        return {record for body in found for record in body.get("ids") or ()}


class Notes:
    """What runs below a folder have noted since this was made: lines of ledgers, and checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = self._notes()

    def _notes(self) -> dict[Path, int]:
        found = {path: 1 for path in self._folder.glob("migration_checkpoints/checkpoint_*.json")}
        for path in self._folder.glob("migration_checkpoints/run-*/ledger.jsonl"):
            with suppress(FileNotFoundError):  # it may go while we look
                found[path] = path.read_bytes().count(b"\n")
        return found

    def count(self) -> int:
        """How many there are by now."""
        return sum(max(0, count - self._before.get(path, 0)) for path, count in self._notes().items())
