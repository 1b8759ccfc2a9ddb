"""Undoing a delta run, which changed live collections in place: what it changed or removed was kept by record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chromactl.compare import Comparison
from chromactl.digest import CollectionDigest, digest_of
from chromactl.errors import ChromactlError, DataDiffersError, PreconditionError
from chromactl.migrate.delta import added
from chromactl.migrate.ledger import ROLLED_BACK
from chromactl.rollback.runs import PastRun
from chromactl.rollback.step import Step, Way
from chromactl.stores.base import Batch, Collection, Database
from chromactl.stores.snapshot import SnapshotStore

RECORDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Former:
    """What a live collection was: the records that were changed or removed, as they were, and the ids that were not."""

    kept: list[tuple[SnapshotStore, Collection, list[str]]]
    added: list[str]

    @property
    def ids(self) -> list[str]:
        """Those of the kept records."""
        return [record for _, _, ids in self.kept for record in ids]


class Amended:
    """The undoing of the first of `runs`, which has a base: `before` holds what each collection came to by that.

    The others carried changes over what the first left, and broke off. What they have done goes with it.
    """

    def __init__(
        self,
        runs: Sequence[PastRun],
        before: dict[str, str | None],
        target: Database,
        backup_dir: Path,
        names: Sequence[str],
    ) -> None:
        self._runs = runs
        self._run = runs[0]
        self.name = self._run.name
        self._before = before
        self._target = target
        self._backup = backup_dir / f"before-{self.name}"
        self._names = names
        self._snapshots = [self._opened(backup_dir / f"before-{run.name}") for run in runs]
        self._formers = {name: self._former(name) for name in names}

    def _opened(self, backup: Path) -> SnapshotStore | None:
        if not backup.exists():
            return None  # it only added records
        try:
            return SnapshotStore(backup)
        except ChromactlError as error:
            raise PreconditionError(
                f"{error}; what run {self.name} changed cannot be put back, and nothing was changed; go back to "
                "another backup (--backup-path)"
            ) from error

    def _former(self, name: str) -> _Former:
        """What a record was is known from the first run that touched it."""
        former = _Former([], [])
        touched: set[str] = set()
        for run, snapshot in zip(self._runs, self._snapshots, strict=True):
            new = [record for record in added(run.folder).get(name, []) if record not in touched]
            former.added.extend(new)
            for collection in snapshot.collections() if snapshot is not None else ():
                if snapshot is not None and collection.name == name:
                    ids = [record for record in snapshot.ids(collection) if record not in touched]
                    former.kept.append((snapshot, collection, ids))
            touched.update(former.added, former.ids)
        return former

    def plan(self) -> list[Step]:
        """Which of the collections differ from what they were."""
        there = {collection.name: collection for collection in self._target.collections()}
        return [self._step(name, there.get(name)) for name in self._names]

    def _step(self, name: str, live: Collection | None) -> Step:
        (planned,) = (target for target in self._run.plan.targets if target.name == name)
        if live is None or live.key != planned.replaces:
            raise PreconditionError(
                f"{self._target.url}: {name} is not the collection that run {self.name} changed; nothing was changed; "
                "go back to a backup (--backup-path)"
            )
        former = self._formers[name]
        new, _ = self._target.read(live, former.added) if former.added else (None, [])
        changed = new is not None and len(new) > 0
        if not changed:
            changed = any(not self._equal(live, expected) for expected in self._batches(former))
        way = Way.AMENDED if changed else Way.AS_IT_WAS
        return Step(name, way, len(former.ids) + len(former.added), self._before.get(name), comes=live)

    def _batches(self, former: _Former) -> Iterator[Batch]:
        for snapshot, collection, ids in former.kept:
            for start in range(0, len(ids), RECORDS_AT_ONCE):
                yield snapshot.read(collection, ids[start : start + RECORDS_AT_ONCE])[0]

    def _equal(self, live: Collection, expected: Batch) -> bool:
        comparison = Comparison()
        comparison.add(expected, self._target.read(live, expected.ids)[0], space=live.spec.space)
        return not comparison.differences

    def prepare(self, steps: Sequence[Step]) -> None:
        """Nothing is needed beside."""

    def move(self, steps: Sequence[Step]) -> None:
        """Put back what was changed or removed, and remove what was added."""
        for step in steps:
            if step.way is Way.AMENDED and step.comes is not None:
                former = self._formers[step.name]
                nothing = self._target.read(step.comes, [])[0]
                for batch in self._batches(former):
                    self._target.amend(step.comes, batch, [])
                self._target.amend(step.comes, nothing, former.added)
                self._prove(step.comes, former, step.digest)

    def _prove(self, live: Collection, former: _Former, digest: str | None) -> None:
        """The touched records by comparing them (a server may round them anew), all others by the digest of before."""
        touched = CollectionDigest()
        for batch in self._batches(former):
            if not self._equal(live, batch):
                raise DataDiffersError(
                    f"{self._target.url}: {live.name} does not give back what was put back; run the same command "
                    f"again, or go back to a backup; what it was is in {self._backup}"
                )
            touched.add(batch)
        rest = digest_of(self._target, live, without=frozenset(former.ids))
        rest.add_digest(touched.hexdigest(), touched.count)
        if digest is not None and rest.hexdigest() != digest:
            raise DataDiffersError(
                f"{self._target.url}: what run {self.name} changed in {live.name} is put back, but other records are "
                "not what they were before it: something else has written since; compare with chromactl validate"
            )

    def clear(self, steps: Sequence[Step]) -> None:
        """Nothing is left over; what each came to is noted, so that the next migration knows its own work again."""
        for step in steps:
            noted = [run for run in self._runs if run.folder.entry(ROLLED_BACK, step.name, 0) is None]
            if step.comes is not None and noted:
                digest = digest_of(self._target, step.comes).hexdigest()
                for run in noted:
                    run.folder.note(ROLLED_BACK, step.name, 0, digest=digest)
