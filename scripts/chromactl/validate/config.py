"""What a validation was asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from chromactl.errors import UsageError
from chromactl.migrate.config import MigrateConfig
from chromactl.schema.profile import Profile
from chromactl.stores.opening import Access


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on something is a warning or a failure. Shares are 0 to 1.

    `max_data_loss` is the share of lost records that is called data loss. Divergence is one minus the overlap of the
    answers (Jaccard of the first ten): on average a warning from `divergence_warning` and a failure above
    `max_divergence`, of a single query a warning above `query_divergence_warning`. `limit_ms` is what the p95 latency
    of the new side has to stay below.
    """

    max_data_loss: float = 0.05
    divergence_warning: float = 0.10
    max_divergence: float = 0.20
    query_divergence_warning: float = 0.30
    limit_ms: float = 300.0

    def __post_init__(self) -> None:
        if self.divergence_warning > self.max_divergence:
            raise UsageError(
                f"--divergence-warning {self.divergence_warning:g} is above --max-divergence {self.max_divergence:g}; "
                "the warning has to come first"
            )


@dataclass(frozen=True, slots=True)
class ValidateConfig:
    """All options of `chromactl validate`, checked. `output` is the Markdown report; the others lie beside it."""

    old: Access
    new: Access
    profile: Profile
    output: Path
    log_dir: Path
    collections: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    test_queries: Path | None = None
    stored_queries: int = 20
    workers: int = 2
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        if self.output.suffix in (".json", ".html", ".jsonl"):
            raise UsageError(f"--output {self.output}: name the Markdown report; .json and .html are written beside it")

    def beside(self, ending: str) -> Path:
        """The file beside the report with another ending."""
        return self.output.with_name(self.output.name.removesuffix(".md") + ending)

    @property
    def migration(self) -> MigrateConfig:
        """The migration that should have brought the old side's records to the new one; it is planned, never run."""
        return MigrateConfig(
            source=self.old,
            target=self.new,
            profile=self.profile,
            checkpoint_dir=self.log_dir,
            log_dir=self.log_dir,
            backup_dir=self.log_dir,
            workers=self.workers,
            collections=self.collections,
            renames=self.renames,
        )
