"""What the target holds already: the same records, our own earlier work, or somebody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from chromactl.compare import Comparison, Difference
from chromactl.digest import digest_of
from chromactl.errors import PreconditionError, UsageError
from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.ledger import ROLLED_BACK, RunFolder
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Plan, PlannedTarget
from chromactl.migrate.proof import Prove, prove_all
from chromactl.migrate.state import CollectionState
from chromactl.migrate.verdict import states
from chromactl.stores.base import Collection, Source


class Occupancy:
    """The target's live collections, as they were when this was made. `checkpoint_dir` knows of earlier runs."""

    def __init__(self, config: MigrateConfig, target: Source, checkpoint_dir: Path) -> None:
        self._config = config
        self._target = target
        self._live = {collection.name: collection for collection in target.collections()}
        # What earlier runs of ours have left, by collection key: the digests it had then.
        self._ours: dict[str, set[str | None]] = {}
        earlier = replace(config, checkpoint_dir=checkpoint_dir)
        for _, checkpoint in state.checkpoints(earlier, ("target", "target database")):
            if checkpoint.phase == "complete":
                folder = RunFolder(state.run_folder(earlier, checkpoint.run))
                for entry in checkpoint.collections:
                    digests = self._ours.setdefault(str(entry.target_key), set())
                    digests.add(entry.digest)
                    if (undone := folder.entry(ROLLED_BACK, entry.name, 0)) is not None:
                        digests.add(undone["digest"])

    def refuse_same_database(self, source: Source) -> None:
        """Raise UsageError if source and target are one database under two names (a server numbers its collections)."""
        keys = {collection.key for collection in self._live.values() if collection.key != collection.name}
        if keys & {collection.key for collection in source.collections()}:
            raise UsageError("source and target are the same database under two names; nothing can be moved to itself")

    def marked(self, plan: Plan) -> Plan:
        """The plan with the collections that have the names of its targets now.

        Raises:
            PreconditionError: one is somebody else's by its count alone; spare the operator an export.
        """
        targets = [
            replace(target, replaces=self._live[target.name].key) if target.name in self._live else target
            for target in plan.targets
        ]
        for target in targets:
            there = self._live.get(target.name)
            if there is None or self._config.replace or self._made_by_us(there):
                continue
            most = sum(planned.records for planned in plan.collections if planned.name in target.sources)
            count = self._target.count(there)
            alone = all(len(plan.feeds(source)) == 1 for source in target.sources)
            fewest = most * (1 - self._config.max_reject_rate) if alone else 0
            if not fewest <= count <= most:
                raise self._refusal(target.name, f"{count:,} records")
        return replace(plan, targets=targets)

    def held(self, plan: Plan, passage: Passage, folder: RunFolder) -> tuple[dict[str, CollectionState], Comparison]:
        """The collections that hold every record as it should be, and the roundings seen.

        Raises:
            PreconditionError: one has other content that is not our own earlier work, and --replace was not given.
        """
        held: dict[str, CollectionState] = {}
        rounding = Comparison()
        for target, planned in zip(plan.targets, states(plan, folder), strict=True):
            there = self._live.get(target.name)
            if there is None:
                continue
            prove = Prove(passage, plan, folder, self._target, {target.name: there}, note=False, to_the_end=False)
            prove_all(prove, plan, [target], self._config.workers)
            comparison = prove.comparisons[target.name]
            if there.spec.metadata != target.spec.metadata:
                differ = Difference("", "its metadata", str(target.spec.metadata), str(there.spec.metadata))
                comparison.differences.append(differ)
            if not comparison.differences:
                rounding.merge(comparison)
                held[target.name] = replace(
                    planned,
                    imported=comparison.compared,
                    verified=comparison.compared,
                    target_key=there.key,
                    digest=prove.digest(target.name),
                )
            elif not self._config.replace and not self._untouched(there):
                first = comparison.differences[0]
                what = f"record {first.id!r}: {first.field}" if first.id else first.field
                raise self._refusal(target.name, f"{what} is {first.actual}")
        return held, rounding

    def refuse_newcomers(self, targets: list[PlannedTarget], staged: dict[str, Collection]) -> None:
        """Raise PreconditionError if a live collection came to have a target's name after the plan was made.

        The name may be that of what it had then, or (a swap that was cut off) of what this run staged.
        """
        live = {collection.name: collection.key for collection in self._target.collections()}
        for target in targets:
            known = (None, target.replaces, staged[target.name].key)
            if live.get(target.name) not in known and not self._config.replace:
                raise self._refusal(target.name, "made while this run was at work")

    def _made_by_us(self, there: Collection) -> bool:
        return there.key in self._ours

    def _untouched(self, there: Collection) -> bool:
        """Whether the collection is what an earlier run left there, unchanged since."""
        return self._made_by_us(there) and digest_of(self._target, there).hexdigest() in self._ours[there.key]

    def _refusal(self, name: str, seen: str) -> PreconditionError:
        return PreconditionError(
            f"{self._config.target.location.text}: already holds a collection {name} with other content ({seen}); "
            f"nothing was changed; check the target, or give --replace to keep that one as {name}--before-… and go on"
        )
