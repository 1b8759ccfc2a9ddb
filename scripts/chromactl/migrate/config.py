"""What a migration was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chromactl.schema.profile import Profile
from chromactl.stores.opening import Access


@dataclass(frozen=True, slots=True)
class MigrateConfig:
    """All options of `chromactl migrate`, checked.

    `collections` limits the run to these names of the source (all that the profile takes, when empty);
    `renames` are (target collection, its name instead).
    `workers` is how many requests go to each side at once; `strict_phases` ends each phase before the next begins.
    `exact_recheck` is about running a finished migration again: see chromactl.migrate.recheck.
    `replace` allows taking the place of target collections with other content (they are kept under a new name).
    """

    source: Access
    target: Access
    profile: Profile
    checkpoint_dir: Path
    log_dir: Path
    backup_dir: Path
    batch_size: int = 500
    workers: int = 2
    max_reject_rate: float = 0.05
    collections: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    strict_phases: bool = False
    exact_recheck: bool = False
    replace: bool = False
    dry_run: bool = False
    checkpoint_file: Path | None = None

    @property
    def identity(self) -> dict[str, str]:
        """Which migration this is: what goes where, and how it is changed on the way; no secrets in it."""
        return {
            "source": self.source.location.text,
            "source database": f"{self.source.tenant}/{self.source.database}",
            "target": self.target.location.text,
            "target database": f"{self.target.tenant}/{self.target.database}",
            "profile": f"{self.profile.name} {self.profile.digest}",
            "collections": ", ".join(sorted(self.collections)) or "all",
            "renames": ", ".join(f"{old}={new}" for old, new in sorted(self.renames)) or "none",
        }

    @property
    def fingerprint(self) -> dict[str, str]:
        """What a checkpoint must agree with to be taken up again: the migration, and how it writes."""
        return {**self.identity, "batch size": str(self.batch_size)}
