"""Undoing a run that imported beside what was live: what it replaced was kept, and gets its name back.

Everything is found by the collections' keys, so an undoing that was cut off is seen in the target and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chromactl.digest import digest_of
from chromactl.errors import ChromactlError, PreconditionError
from chromactl.migrate.ledger import ROLLED_BACK
from chromactl.migrate.plan import PlannedTarget
from chromactl.rollback.runs import PastRun
from chromactl.rollback.step import Step, Way
from chromactl.snapshot.manifest import SnapshotCollection
from chromactl.stores.base import Collection, Database
from chromactl.stores.names import before_name, staged_name
from chromactl.stores.snapshot import SnapshotStore


class Beside:
    """The undoing of a run without a base. `backup_dir` holds the snapshot that it made of what it replaced.

    What `broken` runs have half carried over lies in what the run imported, and goes with it.
    """

    def __init__(
        self, run: PastRun, broken: Sequence[PastRun], target: Database, backup_dir: Path, names: Sequence[str]
    ) -> None:
        self.name = run.name
        self._run = run
        self._broken = broken
        self._target = target
        self._backup = backup_dir / f"before-{run.name}"
        self._names = names
        self._snapshot: SnapshotStore | None = None

    def plan(self) -> list[Step]:
        """What each live name has now, and what it gets."""
        there = {collection.name: collection for collection in self._target.collections()}
        return [self._step(planned, there) for planned in self._run.plan.targets if planned.name in self._names]

    def _step(self, planned: PlannedTarget, there: dict[str, Collection]) -> Step:
        name, former_key = planned.name, planned.replaces
        state = self._run.states.get(name)
        imported_key = state.target_key if state is not None else None
        live = there.get(name)
        work = there.get(staged_name(name, self.name))
        former = there.get(before_name(name, self.name))
        if live is not None and live.key not in (imported_key, former_key):
            raise PreconditionError(
                f"{self._target.url}: {name} is not what run {self.name} left there, somebody has replaced it since; "
                "nothing was changed; look at what it holds, or go back to a backup (--backup-path)"
            )
        if live is not None and live.key == former_key:
            return Step(name, Way.AS_IT_WAS, leaves=work)
        if former_key is None:
            leaves = live or work
            return Step(name, Way.AS_IT_WAS if leaves is None else Way.REMOVED, leaves=leaves)
        kept = self._kept(name)
        if former is None or former.key != former_key:
            raise PreconditionError(
                f"{self._target.url}: {before_name(name, self.name)}, the former {name}, is gone, so run {self.name} "
                f"cannot be undone by renaming; nothing was changed; --backup-path {self._backup} writes it anew from "
                "its snapshot"
            )
        found = digest_of(self._target, former)
        if found.hexdigest() != kept.digest:
            raise PreconditionError(
                f"{self._target.url}: {former.name} is not what its snapshot says it was ({found.count:,} records, "
                f"{kept.count:,} then); nothing was changed; --backup-path {self._backup} writes it anew from the "
                "snapshot"
            )
        return Step(name, Way.RENAMED, kept.count, kept.digest, leaves=live or work, comes=former)

    def _kept(self, name: str) -> SnapshotCollection:
        """What the snapshot says the former collection of this name was."""
        if self._snapshot is None:
            try:
                self._snapshot = SnapshotStore(self._backup)  # reads every shard and its checksum
            except ChromactlError as error:
                raise PreconditionError(
                    f"{error}; so nothing proves what {name} was, and nothing was changed; go back to another backup "
                    "(--backup-path)"
                ) from error
        for entry in self._snapshot.manifest.collections:
            if entry.spec.name == name:
                return entry
        raise PreconditionError(f"{self._backup}: holds no {name}; nothing was changed; is it this run's backup?")

    def prepare(self, steps: Sequence[Step]) -> None:
        """Nothing: what comes back is there, and was proven by the plan."""

    def move(self, steps: Sequence[Step]) -> None:
        """Rename what leaves out of the way, and what comes into its place."""
        for step in steps:
            if step.leaves is not None and step.leaves.name == step.name:
                self._target.rename(step.leaves, staged_name(step.name, self.name))
            if step.comes is not None:
                self._target.rename(step.comes, step.name)
        there = {collection.name: collection for collection in self._target.collections()}
        for step in steps:
            if step.way is Way.REMOVED and step.name in there:
                raise ChromactlError(
                    f"{self._target.url}: {step.name} is there again, made by somebody else; look at it"
                )
            if step.comes is not None and there.get(step.name) is None:
                raise ChromactlError(f"{self._target.url}: {step.name} is not there after its rename; run again")

    def clear(self, steps: Sequence[Step]) -> None:
        """Remove what the run had imported."""
        there = {collection.name: collection for collection in self._target.collections()}
        for step in steps:
            if (left := there.get(staged_name(step.name, self.name))) is not None:
                self._target.discard(left)
            for run in (self._run, *self._broken):
                run.folder.note(ROLLED_BACK, step.name, 0, digest=step.digest)
