"""One run of a migration: what it was asked to do, how far it is, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from chromactl import files
from chromactl.console import Console
from chromactl.errors import ChromactlError, DataDiffersError, PreconditionError
from chromactl.migrate import ending, state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.ledger import ROLLED_BACK, RunFolder
from chromactl.migrate.plan import read_plan
from chromactl.migrate.progress import Phases
from chromactl.migrate.proof import Prove, proven
from chromactl.migrate.report import Report
from chromactl.migrate.state import Checkpoint, CollectionState
from chromactl.migrate.verdict import states, unplaced, write_rejects
from chromactl.migrate.work import Work
from chromactl.stores.base import Collection, Source, Target
from chromactl.stores.opening import open_source


class Run:
    """What all ways of migrating share. `resumed` is the checkpoint that this run was taken up at."""

    def __init__(self, config: MigrateConfig, console: Console, log_file: Path | None) -> None:
        self.config = config
        self.console = console
        self.begun = perf_counter()
        resumed = self._resume()
        checkpoint = resumed or Checkpoint(state.new_run(), "preflight", config.fingerprint)
        self.resumed = resumed
        self.name = checkpoint.run
        self.phases = Phases(config, checkpoint)
        self._source: Source | None = None
        self.folder = RunFolder(state.run_folder(config, self.name), self.phases.begin)
        self.report = Report(
            status="complete",
            changed=True,
            run=self.name,
            source=config.source.location.text,
            target=config.target.location.text,
            profile=config.profile.name,
            log_file=log_file,
        )

    def _resume(self) -> Checkpoint | None:
        config = self.config
        if config.checkpoint_file is not None:
            checkpoint = state.named_checkpoint(config, config.checkpoint_file)
            if state.is_complete(config, checkpoint.run):
                return None
        else:
            left = state.unfinished(config)
            if not left or RunFolder(state.run_folder(config, left[-1].run)).entries(ROLLED_BACK):
                return None
            checkpoint = left[-1]
        plan = read_plan(state.run_folder(config, checkpoint.run))
        if plan is None and config.checkpoint_file is not None:
            raise PreconditionError(
                f"{config.checkpoint_file}: what run {checkpoint.run} kept in {config.checkpoint_dir} is gone, so "
                "nothing can be resumed from it; run the same command without this option, it begins anew"
            )
        # Half of what has changed may be in the live collections already: that has to be brought to its end,
        # in whatever batches.
        if plan is None or (checkpoint.fingerprint != config.fingerprint and plan.base is None):
            return None
        self.console.line(f"Resuming run {checkpoint.run} after its phase {checkpoint.phase}")
        return checkpoint

    @property
    def source(self) -> Source:
        """The source, opened when it is first asked for: a run that has exported everything does not need it."""
        if self._source is None:
            self._source = open_source(self.config.source)
        return self._source

    def close(self) -> None:
        """Let go of the source."""
        if self._source is not None:
            self._source.close()

    def go(self, work: Work, *steps: str) -> None:
        """Take the steps."""
        with self.resumable():
            work.go(*steps, source=self.source if "export" in steps and not work.is_exported else None)

    @contextlib.contextmanager
    def resumable(self) -> Iterator[None]:
        """Tell apart what stops a run before it began from what broke it off."""
        try:
            yield
        except PreconditionError as error:
            raise ChromactlError(f"the run broke off: {error}; then the same command goes on from here") from error

    def say_reused(self) -> None:
        """Say what an interrupted process left done."""
        if self.report.reused:
            steps = ", ".join(f"{step} of {count:,} pieces" for step, count in self.report.reused.items())
            self.console.line(f"Reused: {steps}; they are not read or written again")

    def keep_rejects(self) -> Path:
        """Write the rejected records beside the log; the file."""
        kept = self.config.log_dir / f"migration_{self.name}.rejects.jsonl"
        files.make_folder(kept.parent)
        write_rejects(self.folder, kept)
        return kept

    def describe(self, work: Work, known: dict[str, CollectionState]) -> None:
        """Put into the report what was found of collections and rejects."""
        found = work.verdict
        self.report.collections = [
            replace(known.get(entry.name, entry), rejected=entry.rejected) for entry in states(work.plan, self.folder)
        ]
        self.report.rejects = dict(found.reasons)
        self.report.unplaced = unplaced(work.plan, found)
        self.report.skipped = work.plan.skipped
        self.report.phases = list(self.phases.checkpoint.phases)
        self.report.seconds = perf_counter() - self.begun
        if found.reasons:
            self.report.rejects_file = self.keep_rejects()

    def refuse_rejects(self, work: Work, target: Target, staged: list[Collection]) -> None:
        """End the run if too many records cannot be migrated, and remove what was imported."""
        found = work.verdict
        if found.reject_rate <= self.config.max_reject_rate:
            return
        rejects = self.keep_rejects()
        for collection in staged:
            target.discard(collection)
        state.forget(self.config, self.name)
        raise DataDiffersError(
            f"{found.reject_rate:.1%} of the records cannot be migrated, more than the "
            f"{self.config.max_reject_rate:.1%} of --max-reject-rate; the target is as it was; "
            f"each one is in {rejects}"
        )

    def conclude(
        self,
        work: Work,
        prove: Prove,
        held: dict[str, CollectionState],
        collections: dict[str, Collection],
        staged: list[Collection],
        target: Target,
    ) -> None:
        """Look at each collection as a whole too, and write down that everything is proven."""
        records, digests, rounding = proven(self.folder)
        with self.phases.timed("verify"):
            for name in collections:
                if not prove.differ:
                    prove.as_a_whole(name, records[name])
        if prove.differ:
            path = ending.write_differences(self.config, self.name, prove.comparisons)
            for collection in staged:
                target.discard(collection)
            if staged:  # else live collections were changed, and the run can be undone
                state.forget(self.config, self.name)
            raise ending.differ(self.config, prove.comparisons, path, None if staged else self.name)
        self.report.note_rounding(rounding)
        proved = [
            held.get(entry.name)
            or replace(entry, target_key=collections[entry.name].key, digest=digests.get(entry.name, ending.NOTHING))
            for entry in states(work.plan, self.folder)
        ]
        self.console.line("✓ Phase 5 Complete: Migration passed all verifications")
        self.phases.done("verify", sum(records.values()), collections=tuple(proved))

    def complete(self, work: Work) -> Report:
        """Everything is in its place: say so, durably."""
        held = {entry.name: entry for entry in self.phases.checkpoint.collections}
        self.phases.done("complete", 0)
        self.describe(work, held)
        self.report.checkpoint_file = self.phases.written[-1]
        ending.write_report(self.config, self.report)
        ending.prune(self.config, keep=self.name)
        return self.report

    def unchanged(self, checkpoint_file: Path | None, run: str) -> Report:
        """Nothing had to be done; `run` is the one that did it."""
        self.report.status = "unchanged"
        self.report.changed = False
        self.report.run = run
        self.report.checkpoint_file = checkpoint_file
        self.report.seconds = perf_counter() - self.begun
        report = self.config.log_dir / f"migration_{run}.json"
        self.report.report_file = report if report.exists() else None
        ending.prune(self.config, keep=run)  # the run that did it may have been killed before it came to that
        self.console.line("The target holds every record as it should be; nothing to do")
        return self.report
