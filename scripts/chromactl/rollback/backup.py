"""Going back to a backup: its collections are written anew beside what is live, proven, and swapped in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from chromactl import files, metric
from chromactl.compare import Comparison, Difference
from chromactl.digest import digest_of
from chromactl.errors import DataDiffersError, PreconditionError
from chromactl.migrate.state import new_run
from chromactl.rollback.step import Step, Way
from chromactl.stores.base import Batch, Collection, Database, Source
from chromactl.stores.names import before_name, is_work_collection, staged_name
from chromactl.stores.snapshot import SnapshotStore

RECORDS_AT_ONCE = 500


class Backup:
    """The restoring of a backup, any store that holds collections. Collections that it does not have are left alone.

    What this is called while it is under way is kept in `checkpoint_dir`, so that the same command goes on with it.
    """

    def __init__(self, source: Source, target: Database, checkpoint_dir: Path, names: Sequence[str]) -> None:
        if isinstance(source, SnapshotStore) and source.manifest.partial:
            raise PreconditionError(
                f"{source.url}: holds only the records that a run changed, not all there were; nothing was changed; "
                f"undo that run instead (--run {source.url.rpartition('before-')[2]})"
            )
        self._source = source
        self._target = target
        self._collections = {
            collection.name: collection
            for collection in source.collections()
            if not is_work_collection(collection.name) and (not names or collection.name in names)
        }
        for name in names:
            if name not in self._collections:
                raise PreconditionError(
                    f"{source.url}: holds no collection {name}; nothing was changed; check --collection"
                )
        if not self._collections:
            raise PreconditionError(f"{source.url}: holds no collection; nothing to go back to, nothing was changed")
        key = hashlib.sha256(orjson.dumps([source.url, target.url, sorted(self._collections)])).hexdigest()[:16]
        self._note = checkpoint_dir / f"rollback-{key}.json"
        self._resumed = self._note.exists()
        self.name = str(orjson.loads(self._note.read_bytes())["run"]) if self._resumed else new_run()
        self._staged: list[Collection] = []

    def plan(self) -> list[Step]:
        """Which of the collections differ from the backup."""
        there = {collection.name: collection for collection in self._target.collections()}
        return [self._step(collection, there) for collection in self._collections.values()]

    def _step(self, collection: Collection, there: dict[str, Collection]) -> Step:
        name = collection.name
        digest = digest_of(self._source, collection)
        listed = self._source.count(collection)
        if digest.count != listed:
            raise PreconditionError(
                f"{self._source.url}: {name} lists {listed:,} records and gives back {digest.count:,}; this backup is "
                "damaged, and nothing was changed; go back to another one"
            )
        live = there.get(name)
        left = there.get(before_name(name, self.name)) or there.get(staged_name(name, self.name))
        if live is not None and not self._differences(collection, live):
            return Step(name, Way.AS_IT_WAS, digest.count, digest.hexdigest(), leaves=left)
        return Step(name, Way.REWRITTEN, digest.count, digest.hexdigest(), leaves=live)

    def _batches(self, collection: Collection) -> Iterator[Batch]:
        ids = self._source.ids(collection)
        for start in range(0, len(ids), RECORDS_AT_ONCE):
            yield self._source.read(collection, ids[start : start + RECORDS_AT_ONCE])[0]

    def _differences(self, collection: Collection, live: Collection) -> list[Difference]:
        """What in the target is not as the backup has it; the first of it only."""
        if (count := self._target.count(live)) != (records := self._source.count(collection)):
            return [Difference("", "number of records", str(records), str(count))]
        if live.spec.metadata != collection.spec.metadata:
            return [Difference("", "its metadata", str(collection.spec.metadata), str(live.spec.metadata))]
        for batch in self._batches(collection):
            comparison = Comparison()
            comparison.add(batch, self._target.read(live, batch.ids)[0], space=live.spec.space)
            if comparison.differences:
                return comparison.differences
        ids = self._target.ids(live)
        if (proven := metric.prove(self._target, live, ids)) not in (None, self._space(collection)):
            return [Difference("", "metric", self._space(collection), str(proven))]
        return []

    def _space(self, collection: Collection) -> str:
        """The metric that the backup's collection really uses; old ones do not say."""
        return metric.prove(self._source, collection, self._source.ids(collection)) or collection.spec.space

    def prepare(self, steps: Sequence[Step]) -> None:
        """Write every collection that differs beside the live one, and prove it there."""
        files.write_atomically(self._note, orjson.dumps({"run": self.name, "backup": self._source.url}))
        for step in steps:
            if step.way is Way.REWRITTEN:
                self._staged.append(self._written(self._collections[step.name]))

    def _written(self, collection: Collection) -> Collection:
        staged = self._target.stage(replace(collection.spec, space=self._space(collection)), self.name)
        for batch in self._batches(collection):
            if rejects := self._target.write(staged, batch, repeat=self._resumed):
                self._target.discard(staged)
                raise DataDiffersError(
                    f"{self._target.url}: does not take record {rejects[0].id!r} of {collection.name} "
                    f"({rejects[0].reason}); the live collections are as they were"
                )
        if differences := self._differences(collection, staged):
            self._target.discard(staged)
            what = differences[0]
            raise DataDiffersError(
                f"{self._target.url}: {collection.name} does not come back as the backup has it (record {what.id!r}: "
                f"{what.field} is {what.actual}, not {what.expected}); the live collections are as they were"
            )
        return staged

    def move(self, steps: Sequence[Step]) -> None:
        """Give the written collections their live names."""
        self._target.swap(self._staged, self.name)

    def clear(self, steps: Sequence[Step]) -> None:
        """Remove what had the names before."""
        for collection in self._target.collections():
            if collection.name in {before_name(step.name, self.name) for step in steps} | {
                staged_name(step.name, self.name) for step in steps
            }:
                self._target.discard(collection)
        self._note.unlink(missing_ok=True)
