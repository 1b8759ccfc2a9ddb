"""A plan's pieces through the steps: all steps at the same time, or some of them; and what is said when one is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chromactl.console import Advance, Console
from chromactl.digest import CollectionDigest
from chromactl.errors import ChromactlError
from chromactl.migrate import verdict
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.flow import Stage, flow
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Piece, Plan
from chromactl.migrate.progress import Phases
from chromactl.migrate.proof import Prove
from chromactl.migrate.steps import Examine, Export, Land
from chromactl.migrate.verdict import Verdict
from chromactl.snapshot.manifest import Manifest, SnapshotCollection
from chromactl.stores.base import Source

STEPS = ("export", "examine", "import", "verify")


@dataclass(slots=True)
class _Step:
    """One step: what is done, by how many threads, and what follows the last piece."""

    do: Callable[[Piece], None]
    workers: int
    over: Callable[[], None]
    left: int


class Work:
    """The steps of one run. `land` and `prove` have to be set before `go` comes to them."""

    def __init__(self, config: MigrateConfig, console: Console, phases: Phases, folder: RunFolder, plan: Plan) -> None:
        self._config = config
        self._console = console
        self._phases = phases
        self.folder = folder
        self.plan = plan
        self.passage = Passage(config.profile, plan)
        self.land: Land | None = None
        self.prove: Prove | None = None

    @property
    def verdict(self) -> Verdict:
        """Which records pass, as far as they were examined."""
        return verdict.judge(self.folder)

    def reused(self) -> dict[str, int]:
        """How many pieces the ledger has as done already, by step."""
        counts = {step: len(self.folder.entries(step)) for step in STEPS}
        return {step: count for step, count in counts.items() if count}

    @property
    def is_exported(self) -> bool:
        """Whether nothing is to be read from the source any more."""
        return len(self.folder.entries("export")) == sum(len(planned.pieces) for planned in self.plan.collections)

    def go(self, *names: str, source: Source | None = None) -> None:
        """Take every piece through these steps, a later step of one piece beside an earlier one of the next.

        Without a `source`, everything has to be exported already.
        """
        examine = Examine(self.passage, self.plan, self.folder, hold="import" in names)
        total = sum(1 for _ in self.plan.pieces())
        workers = self._config.workers
        steps: dict[str, _Step] = {}
        export = Export(source, self.folder) if source is not None else _nothing
        # Where nothing is written meanwhile, the source has the machine to itself.
        readers = workers if "import" in names else 2 * workers
        steps["export"] = _Step(export, readers, self.exported, total)
        steps["examine"] = _Step(self._judged(examine), 0, lambda: self._examined(examine), total)
        if self.land is not None:
            steps["import"] = _Step(self.land, workers, self._imported, total)
        if self.prove is not None:
            steps["verify"] = _Step(self.prove, workers, lambda: None, total)
        wanted = {name: steps[name] for name in names}
        with self._console.progress(self.plan.records, *names) as advance:
            stages = []
            for name, step in wanted.items():
                stages.append(Stage(self._phases.step(name, step.do), step.workers))
                stages.append(Stage(_then(name, step, advance)))
            flow(self.plan.pieces(), stages)
        for step in wanted.values():
            if total == 0:
                step.over()

    def _judged(self, examine: Examine) -> Callable[[Piece], None]:
        """Examine a piece, and stop writing as soon as too many records are rejected."""
        most = self._config.max_reject_rate * self.plan.records
        rejected = 0

        def step(piece: Piece) -> None:
            nonlocal rejected
            examine(piece)
            noted = self.folder.entry("examine", piece.planned.name, piece.number)
            rejected += noted["rejected"] if noted is not None else 0
            if self.land is not None and rejected > most:
                self.land.doomed.set()

        return step

    def exported(self) -> None:
        """All of the source that is wanted is in the folder, which is a snapshot of it from now on."""
        entries = []
        for planned in self.plan.collections:
            digest = CollectionDigest()
            shards = []
            for number in range(len(planned.pieces)):
                noted = self.folder.entry("export", planned.name, number)
                if noted is None:
                    raise ChromactlError(
                        f"{self.folder.path}: the ledger lacks an exported shard of {planned.name}; "
                        "run the same command again, it is exported then"
                    )
                shards.append(self.folder.shard(planned.name, number))
                digest.add_digest(noted["digest"], shards[-1].rows)
            entries.append(SnapshotCollection(planned.spec, digest.count, digest.hexdigest(), shards))
        Manifest(self._config.source.location.text, entries).write(self.folder.path)
        saved = sum(entry.count for entry in entries)
        self._phases.done("export", saved)
        self._console.line(f"✓ Phase 1 Complete: {saved:,} chunks saved")

    def _examined(self, examine: Examine) -> None:
        found = self.verdict
        for target in self.plan.targets:
            self._console.line(f"Transformed {found.passed[target.name]:,} chunks of {target.name}")
        self._console.line(f"✓ Phase 2 Complete: {found.passed.total():,} chunks classified")
        self._phases.done("transform", found.records, seconds=examine.transform_seconds, rejects=dict(found.reasons))
        if found.reasons:
            issues = ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.most_common())
            self._console.line(f"Issues found: {issues}")
        word = "passed" if found.reject_rate <= self._config.max_reject_rate else "FAILED"
        self._console.line(f"✓ Phase 3 Complete: Validation {word} ({1 - found.reject_rate:.2%} success rate)")
        self._phases.done("validate", found.records, seconds=examine.validate_seconds)

    def _imported(self) -> None:
        states = verdict.states(self.plan, self.folder)
        imported = sum(state.imported for state in states)
        if self.land is not None and not self.land.doomed.is_set():
            self._phases.done("import", imported, collections=tuple(states))
            self._console.line(f"✓ Phase 4 Complete: Loaded {imported:,} chunks into {len(states)} collections")


def _nothing(piece: Piece) -> None:
    """The step of a piece that needs none."""


def _then(name: str, step: _Step, advance: Advance) -> Callable[[Piece], None]:
    """Say how far the step is, and do what follows its last piece."""

    def count(piece: Piece) -> None:
        advance(name, len(piece.ids))
        step.left -= 1
        if step.left == 0:
            step.over()

    return count
