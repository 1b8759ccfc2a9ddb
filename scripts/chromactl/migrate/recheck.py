"""A finished migration, run again: do source and target still hold what that run moved?

Both are read at the same time and compared with the finished run's shards; nothing is written. When anything
differs, the migration takes its whole way again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from chromactl.compare import Comparison
from chromactl.console import Advance, unseen
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.load import verify
from chromactl.migrate.plan import Plan, PlannedCollection, select
from chromactl.migrate.state import RunFolder
from chromactl.snapshot.shard import read_shard
from chromactl.stores.base import Batch, Collection, Source
from chromactl.stores.opening import open_source

EMBEDDINGS_A_SHARD = 25


def still_the_same(
    config: MigrateConfig, plan: Plan, folder: RunFolder, target: Source, advance: Advance
) -> Comparison | None:
    """The comparison of the target with the finished run, or None if source or target has changed since.

    With `config.quick`, embeddings of the source are compared for some records of each shard only.
    """
    with contextlib.closing(open_source(config.source)) as source, ThreadPoolExecutor(2) as pool:
        there = pool.submit(_target_is_the_same, config, plan, folder, target)
        same = _source_is_the_same(config, plan, folder, source, advance)
        comparison = there.result()
    return comparison if same else None


def _target_is_the_same(config: MigrateConfig, plan: Plan, folder: RunFolder, target: Source) -> Comparison | None:
    live = {collection.name: collection for collection in target.collections()}
    total = Comparison()
    for planned in plan.collections:
        if planned.name not in live:
            return None
        comparison, _ = verify(target, live[planned.name], planned, config.profile, folder, unseen, to_the_end=False)
        if comparison.differences:
            return None
        total.add_rounding(comparison)
    return total


def _source_is_the_same(config: MigrateConfig, plan: Plan, folder: RunFolder, source: Source, advance: Advance) -> bool:
    there = {collection.name: collection for collection in select(config, source)}
    if there.keys() != {planned.name for planned in plan.collections}:
        return False
    return all(
        _collection_is_the_same(planned, there[planned.name], folder, source, advance, quick=config.quick)
        for planned in plan.collections
    )


def _collection_is_the_same(
    planned: PlannedCollection,
    there: Collection,
    folder: RunFolder,
    source: Source,
    advance: Advance,
    *,
    quick: bool,
) -> bool:
    if there.spec.metadata != planned.spec.metadata or set(source.ids(there)) != set(planned.ids):
        return False
    for shard in folder.shards(planned.name):
        expected = read_shard(folder.path, shard)
        comparison = Comparison()
        if quick:
            some = _some(expected)
            comparison.add(_without_embeddings(expected), source.read_text(there, expected.ids), space="l2")
            comparison.add(some, source.read(there, some.ids)[0], space=planned.spec.space)
        else:
            comparison.add(expected, source.read(there, expected.ids)[0], space=planned.spec.space)
        if comparison.differences:
            return False
        advance(len(expected))
    return True


def _some(batch: Batch) -> Batch:
    rows: Sequence[int] = range(0, len(batch), max(1, len(batch) // EMBEDDINGS_A_SHARD))
    return batch.take(rows)


def _without_embeddings(batch: Batch) -> Batch:
    none = np.empty((len(batch), 0), np.float32)
    return Batch(batch.ids, none, batch.documents, batch.uris, batch.metadatas)
