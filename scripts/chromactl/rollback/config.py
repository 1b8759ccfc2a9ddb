"""What a rollback was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chromactl.stores.opening import Access


@dataclass(frozen=True, slots=True)
class RollbackConfig:
    """All options of `chromactl rollback`, checked. Either `run` or `backup` says what to go back to.

    `collections` limits it to these live names (all that the run or the backup has, when empty); `reason` is that of
    the validation that asked for it. Without `archive`, what has to go is not kept as a snapshot first.
    """

    target: Access
    checkpoint_dir: Path
    backup_dir: Path
    report_output: Path
    run: str | None = None
    backup: Access | None = None
    collections: tuple[str, ...] = ()
    reason: str = ""
    archive: bool = True
    dry_run: bool = False
