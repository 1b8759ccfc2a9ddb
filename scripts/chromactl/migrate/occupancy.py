"""What the target holds already: the same records, our own earlier work, or somebody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from chromactl.compare import Comparison
from chromactl.console import unseen
from chromactl.errors import PreconditionError, UsageError
from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.load import digest_of, verify
from chromactl.migrate.plan import Plan
from chromactl.migrate.state import CollectionState, RunFolder
from chromactl.stores.base import Collection, Source


class Occupancy:
    """The target's live collections, as they were when this was made. `checkpoint_dir` knows of earlier runs."""

    def __init__(self, config: MigrateConfig, target: Source, checkpoint_dir: Path) -> None:
        self._config = config
        self._target = target
        self._live = {collection.name: collection for collection in target.collections()}
        self._ours: dict[str, CollectionState] = {}
        earlier = replace(config, checkpoint_dir=checkpoint_dir)
        for _, checkpoint in state.checkpoints(earlier, same_target=True):
            if checkpoint.phase == "complete":
                self._ours |= {entry.name: entry for entry in checkpoint.collections if entry.target_key is not None}

    def refuse_same_database(self, source: Source) -> None:
        """Raise UsageError if source and target are one database under two names (a server numbers its collections)."""
        keys = {collection.key for collection in self._live.values() if collection.key != collection.name}
        if keys & {collection.key for collection in source.collections()}:
            raise UsageError("source and target are the same database under two names; nothing can be moved to itself")

    def refuse_early(self, plan: Plan) -> None:
        """Spare the operator an export that could only end in a refusal.

        Raises:
            PreconditionError: a collection is somebody else's by its count alone.
        """
        if self._config.replace:
            return
        for planned in plan.collections:
            there = self._live.get(planned.name)
            if there is None or self._made_by_us(there):
                continue
            count = self._target.count(there)
            fewest = len(planned.ids) * (1 - self._config.max_reject_rate)
            if not fewest <= count <= len(planned.ids):
                raise self._refusal(planned.name, f"{count:,} records")

    def held(self, plan: Plan, folder: RunFolder) -> tuple[dict[str, CollectionState], Comparison]:
        """The collections that hold every record as it should be, and the roundings seen.

        Raises:
            PreconditionError: one has other content that is not our own earlier work, and --replace was not given.
        """
        held: dict[str, CollectionState] = {}
        total = Comparison()
        for planned in plan.collections:
            there = self._live.get(planned.name)
            if there is None:
                continue
            comparison, digest = verify(
                self._target, there, planned, self._config.profile, folder, unseen, to_the_end=False
            )
            if not comparison.differences:
                total.add_rounding(comparison)
                held[planned.name] = CollectionState(
                    planned.name,
                    len(planned.ids),
                    planned.spec.space,
                    imported=comparison.compared,
                    verified=comparison.compared,
                    target_key=there.key,
                    digest=digest,
                )
            elif not self._config.replace and not self._untouched(there):
                first = comparison.differences[0]
                raise self._refusal(planned.name, f"record {first.id!r}: {first.field} is {first.actual}")
        return held, total

    def _made_by_us(self, there: Collection) -> bool:
        return there.name in self._ours and self._ours[there.name].target_key == there.key

    def _untouched(self, there: Collection) -> bool:
        """Whether the collection is what an earlier run left there, unchanged since."""
        return self._made_by_us(there) and self._ours[there.name].digest == digest_of(self._target, there)

    def _refusal(self, name: str, seen: str) -> PreconditionError:
        return PreconditionError(
            f"{self._config.target.location.text}: already holds a collection {name} with other content ({seen}); "
            f"nothing was changed; check the target, or give --replace to keep that one as {name}--before-… and go on"
        )
