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

    kept: Collection | None
    ids: list[str]
    added: list[str]


class Amended:
    """The undoing of a run with a base, of which `before` holds what each collection came to."""

    def __init__(
        self, run: PastRun, before: dict[str, str | None], target: Database, backup_dir: Path, names: Sequence[str]
    ) -> None:
        self.name = run.name
        self._run = run
        self._before = before
        self._target = target
        self._backup = backup_dir / f"before-{run.name}"
        self._names = names
        self._snapshot = self._opened()
        self._formers = {name: self._former(name) for name in names}

    def _opened(self) -> SnapshotStore | None:
        if not self._backup.exists():
            return None  # it only added records
        try:
            return SnapshotStore(self._backup)
        except ChromactlError as error:
            raise PreconditionError(
                f"{error}; what run {self.name} changed cannot be put back, and nothing was changed; go back to "
                "another backup (--backup-path)"
            ) from error

    def _former(self, name: str) -> _Former:
        kept, ids = None, []
        for collection in self._snapshot.collections() if self._snapshot is not None else ():
            if collection.name == name:
                kept, ids = collection, self._snapshot.ids(collection) if self._snapshot is not None else []
        return _Former(kept, ids, added(self._run.folder).get(name, []))

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
        if self._snapshot is not None and former.kept is not None:
            for start in range(0, len(former.ids), RECORDS_AT_ONCE):
                yield self._snapshot.read(former.kept, former.ids[start : start + RECORDS_AT_ONCE])[0]

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
            if step.comes is not None and self._run.folder.entry(ROLLED_BACK, step.name, 0) is None:
                digest = digest_of(self._target, step.comes).hexdigest()
                self._run.folder.note(ROLLED_BACK, step.name, 0, digest=digest)
