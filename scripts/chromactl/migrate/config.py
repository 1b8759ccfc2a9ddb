"""What a migration was asked to do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import orjson

from chromactl.schema.profile import Profile
from chromactl.stores.opening import Access


@dataclass(frozen=True, slots=True)
class MigrateConfig:
    """All options of `chromactl migrate`, checked.

    `collections` limits the run to these names (all that the profile takes, when empty).
    `quick` is about running a finished migration again: see chromactl.migrate.recheck.
    `replace` allows taking the place of target collections with other content (they are kept under a new name).
    """

    source: Access
    target: Access
    profile: Profile
    checkpoint_dir: Path
    log_dir: Path
    backup_dir: Path
    batch_size: int = 1000
    max_reject_rate: float = 0.05
    collections: tuple[str, ...] = ()
    quick: bool = False
    replace: bool = False
    dry_run: bool = False
    checkpoint_file: Path | None = None

    @property
    def fingerprint(self) -> dict[str, str]:
        """What a checkpoint must agree with to be taken up again; no secrets in it."""
        return {
            "source": self.source.location.text,
            "source database": f"{self.source.tenant}/{self.source.database}",
            "target": self.target.location.text,
            "target database": f"{self.target.tenant}/{self.target.database}",
            "profile": f"{self.profile.name} {self.profile.digest}",
            "collections": ", ".join(sorted(self.collections)) or "all",
        }

    @property
    def target_key(self) -> str:
        """A short name for the target, for the lock that keeps two runs off it."""
        names = [self.target.location.text, self.target.tenant, self.target.database]
        return hashlib.sha256(orjson.dumps(names)).hexdigest()[:16]
