"""Everything that a running service shows to others than those who may see a text or a secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from support.process import children
from support.servers import Process


def mark(name: str) -> str:
    """A word that occurs nowhere else: in small letters and digits, so that nothing bends it."""
    return f"zq{name}{secrets.token_hex(5)}"


@dataclass
class Evidence:
    """What was seen: words by where they were."""

    logs: Sequence[Path]
    seen: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, words: str) -> None:
        """Keep it."""
        self.seen[f"{len(self.seen)}: {where}"] = words

    def look_at(self, *urls: str) -> None:
        """What these answer, whatever the status."""
        for url in urls:
            self.add(url, httpx.get(url, timeout=60, trust_env=False).text)

    def look_into(self, *processes: Process) -> None:
        """The command lines and titles of processes and of what they started."""
        for process in processes:
            for pid in _family(process.pid):
                folder = Path(f"/proc/{pid}")
                self.add(f"process {pid}", (folder / "cmdline").read_text() + (folder / "comm").read_text())

    def where(self, word: str) -> list[str]:
        """Where the word is, with the lines that it stands in."""
        found = {**self.seen, **{str(path): path.read_text(errors="replace") for path in self.logs if path.exists()}}
        return [
            f"{where}: {line}" for where, words in found.items() for line in words.splitlines() if word in line.lower()
        ]


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in children(pid):
        yield from _family(child)
