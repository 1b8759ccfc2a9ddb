"""What of a run is done, piece by piece: a line each, durable before it counts."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from chromactl import files
from chromactl.snapshot.shard import Shard

Entry = dict[str, Any]
ROLLED_BACK = "rolled-back"
"""The step that says of a target's collection that it was put back (chromactl.rollback), and what it came to."""

_LINES = "ledger.jsonl"
_ONLY_ON_DISK = "rejects"


class RunFolder:
    """Where a run keeps its exported shards and its ledger. Threads may note at the same time.

    Steps are: export, examine, import-begun, import, verify. A later note of a piece takes the place of an earlier.
    """

    def __init__(self, path: Path, announce: Callable[[], None] = lambda: None) -> None:
        """`announce` is called before the folder is made."""
        self.path = path
        self._announce = announce
        self._making = threading.Lock()
        self._lines = path / _LINES
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str, int], Entry] = {}
        for entry in self._read():
            self._keep(entry)

    def make(self) -> None:
        """Make the folder, once there is something to keep in it."""
        with self._making:
            if not self.path.exists():
                self._announce()
            files.make_folder(self.path)

    def note(self, step: str, collection: str, number: int, **more: Any) -> None:
        """Add what was done with a piece of a source's collection, durably."""
        entry = {"step": step, "collection": collection, "number": number, **more}
        with self._lock:
            with files.explained(self._lines), self._lines.open("a+b") as file:
                # A line that a crash or a full disk cut off must not swallow this one too.
                torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read() != b"\n"
                file.write((b"\n" if torn else b"") + orjson.dumps(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            self._keep(entry)

    def adopt(self, entries: Iterable[Entry]) -> None:
        """Add what another run had noted, all at once."""
        with self._lock:
            self.make()
            with files.explained(self._lines), self._lines.open("ab") as file:
                for entry in entries:
                    file.write(orjson.dumps(entry) + b"\n")
                    self._keep(entry)
                file.flush()
                os.fsync(file.fileno())

    def entry(self, step: str, collection: str, number: int) -> Entry | None:
        """What was noted of this step for a piece, if it was done."""
        return self._entries.get((step, collection, number))

    def entries(self, step: str) -> list[Entry]:
        """What was noted of this step for all pieces."""
        with self._lock:
            return [entry for key, entry in self._entries.items() if key[0] == step]

    def forget(self, *steps: str) -> None:
        """Take these steps as not done, for all pieces, for as long as this process lives."""
        with self._lock:
            self._entries = {key: entry for key, entry in self._entries.items() if key[0] not in steps}

    def shard(self, collection: str, number: int) -> Shard:
        """The exported shard of a piece."""
        return Shard(**self._entries["export", collection, number]["shard"])

    def entries_with_rejects(self) -> Iterator[Entry]:
        """The newest note of every step of every piece, as it is on disk."""
        newest: dict[tuple[str, str, int], int] = {}
        for position, entry in enumerate(self._read()):
            newest[entry["step"], entry["collection"], entry["number"]] = position
        wanted = set(newest.values())
        yield from (entry for position, entry in enumerate(self._read()) if position in wanted)

    def rejects(self) -> Iterator[Entry]:
        """Every rejected record."""
        for entry in self.entries_with_rejects():
            yield from entry.get(_ONLY_ON_DISK, ())

    def remove(self) -> None:
        """Remove the folder and all that is in it; nothing counts as done any more."""
        with self._lock:
            shutil.rmtree(self.path, ignore_errors=True)
            self._entries.clear()

    def _keep(self, entry: Entry) -> None:
        # Rejects can be many and are wanted once, at the end.
        kept = {key: value for key, value in entry.items() if key != _ONLY_ON_DISK}
        self._entries[entry["step"], entry["collection"], entry["number"]] = kept

    def _read(self) -> Iterator[Entry]:
        """The lines of the file. One that was cut off by a crash does not count."""
        if not self._lines.exists():
            return
        with files.explained(self._lines), self._lines.open("rb") as file:
            for line in file:
                with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    entry: Entry = orjson.loads(line)
                    entry["step"], entry["collection"], entry["number"]
                    yield entry
