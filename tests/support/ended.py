"""How a command line ended, in this process or as one of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

PROGRAMS = ("chromactl: ", "chroma-stack-api: ")


@dataclass(frozen=True, slots=True)
class Ended:
    """Its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        body: dict[str, Any] = json.loads(self.out)
        return body

    @property
    def complaint(self) -> str:
        """The one line that stderr must be."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line]
        assert len(lines) == 1, self.err
        assert lines[0].startswith(PROGRAMS), self.err
        return lines[0]
