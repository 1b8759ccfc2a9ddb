"""The runs that a checkpoint folder knows: what each did, and to which database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chromactl.errors import PreconditionError
from chromactl.migrate import state
from chromactl.migrate.delta import added
from chromactl.migrate.ledger import ROLLED_BACK, RunFolder
from chromactl.migrate.plan import Plan, read_plan
from chromactl.migrate.state import Checkpoint, CollectionState


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that came at least as far as its plan."""

    checkpoint: Checkpoint
    plan: Plan
    folder: RunFolder

    @property
    def name(self) -> str:
        """The run's name."""
        return self.checkpoint.run

    @property
    def target(self) -> str:
        """The canonical name of the database that it wrote to."""
        return self.checkpoint.fingerprint["target"]

    @property
    def target_database(self) -> tuple[str, str]:
        """Tenant and database there."""
        tenant, _, database = self.checkpoint.fingerprint["target database"].partition("/")
        return tenant, database

    @property
    def states(self) -> dict[str, CollectionState]:
        """What it left of each collection of its target, by name."""
        return {entry.name: entry for entry in self.checkpoint.collections}

    def changed(self, name: str) -> bool:
        """Whether the run did anything to the collection of this name that stands."""
        if self.folder.entry(ROLLED_BACK, name, 0) is not None or name not in self.states:
            return False
        if self.plan.base is not None:
            return name in added(self.folder)
        (planned,) = (target for target in self.plan.targets if target.name == name)
        return planned.replaces != self.states[name].target_key


def known(folder: Path) -> list[PastRun]:
    """All runs of the folder whose plan is there still, oldest first."""
    last = {checkpoint.run: checkpoint for _, checkpoint in state.all_checkpoints(folder)}
    found = []
    for checkpoint in last.values():
        path = folder / f"run-{checkpoint.run}"
        if (plan := read_plan(path, pruned=True)) is not None:
            found.append(PastRun(checkpoint, plan, RunFolder(path)))
    return found


def find(folder: Path, name: str) -> PastRun:
    """The run of this name.

    Raises:
        PreconditionError: there is none, or what it kept is gone.
    """
    runs = known(folder)
    for run in runs:
        if run.name == name:
            return run
    if any(checkpoint.run == name for _, checkpoint in state.all_checkpoints(folder)):
        raise PreconditionError(
            f"run {name}: its folder in {folder} is gone, so it cannot be undone; nothing was changed; go back to a "
            "backup (--backup-path)"
        )
    names = ", ".join(run.name for run in runs[-5:]) or "no run"
    raise PreconditionError(f"run {name}: not known in {folder} (it knows {names}); check --run and --checkpoint-dir")


def broken_off(folder: Path, run: PastRun) -> list[PastRun]:
    """The runs that were carrying changes over what this run left when they broke off: half of it may be there."""
    return [later for later in known(folder) if later.plan.base == run.name and later.checkpoint.phase != "complete"]


def newest(folder: Path, target: str, database: tuple[str, str]) -> PastRun:
    """The newest finished run that wrote to this database.

    Raises:
        PreconditionError: there is none.
    """
    for run in reversed(known(folder)):
        if run.checkpoint.phase == "complete" and (run.target, run.target_database) == (target, database):
            return run
    raise PreconditionError(
        f"{folder}: knows of no finished run into {target} ({'/'.join(database)}); check --checkpoint-dir, or go back "
        "to a backup (--backup-path)"
    )
