"""A migration from end to end.

preflight → export → transform → validate → import → verify → complete. What is imported lies beside the live
collections until every record of it was read back and found right; only then names are swapped. Phases overlap, piece
by piece, unless the target holds something that has to be looked at first, or --strict-phases asks for one after the
other. A run that was cut off is taken up by the same command: what the ledger has as done is not done again.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from chromactl import files
from chromactl.console import Console
from chromactl.errors import (
    ChromactlError,
    DataDiffersError,
    MissingDatabaseError,
    PreconditionError,
    UsageError,
)
from chromactl.location import Kind
from chromactl.migrate import ending, state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.delta import Carried, CarryOver, Changes
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.lock import locked
from chromactl.migrate.occupancy import Occupancy
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Plan, check_room, make_plan, read_plan
from chromactl.migrate.progress import Phases
from chromactl.migrate.proof import Prove, proven
from chromactl.migrate.recheck import Finished, Outcome, holds, recheck
from chromactl.migrate.report import Report
from chromactl.migrate.state import Checkpoint, CollectionState
from chromactl.migrate.steps import Land
from chromactl.migrate.verdict import states, unplaced, write_rejects
from chromactl.migrate.work import Work
from chromactl.snapshot.create import create as create_snapshot
from chromactl.stores.base import Collection, Source, Target
from chromactl.stores.names import staged_name
from chromactl.stores.opening import open_source, open_target

_DATABASES = (Kind.HTTP, Kind.DIRECTORY)


def migrate(config: MigrateConfig, console: Console, log_file: Path | None = None) -> Report:
    """Do what the config says, and report it.

    Raises:
        PreconditionError, LockedError: nothing was begun.
        DataDiffersError: too many rejects, or the target does not give back what was written; the target's
            live collections are as they were, and what was imported is removed again.
        ChromactlError: it broke off; the same command goes on from there.
    """
    if config.source.place == config.target.place:
        raise UsageError("source and target are the same database; nothing can be moved from it to itself")
    with contextlib.ExitStack() as stack:
        if config.dry_run:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chromactl-dry-run-"))
            return _Run(replace(config, checkpoint_dir=Path(folder)), console, log_file).dry(config.checkpoint_dir)
        stack.enter_context(locked(config.target))
        for needed in (config.checkpoint_dir, config.log_dir, config.backup_dir):
            files.make_folder(needed)
        return _Run(config, console, log_file).whole()


class _Run:
    """One run's way through the phases."""

    def __init__(self, config: MigrateConfig, console: Console, log_file: Path | None) -> None:
        self._config = config
        self._console = console
        self._begun = perf_counter()
        resumed = self._resume()
        checkpoint = resumed or Checkpoint(state.new_run(), "preflight", config.fingerprint)
        self._resumed = resumed
        self._run = checkpoint.run
        self._phases = Phases(config, checkpoint)
        self._folder = RunFolder(state.run_folder(config, self._run))
        self._report = Report(
            status="complete",
            changed=True,
            run=self._run,
            source=config.source.location.text,
            target=config.target.location.text,
            profile=config.profile.name,
            log_file=log_file,
        )

    def _resume(self) -> Checkpoint | None:
        config = self._config
        if config.checkpoint_file is not None:
            checkpoint = state.named_checkpoint(config, config.checkpoint_file)
            if checkpoint.phase == "complete":
                return None
        else:
            left = state.unfinished(config)
            if not left:
                return None
            checkpoint = left[-1]
        plan = read_plan(state.run_folder(config, checkpoint.run))
        # Half of what has changed may be in the live collections already: that has to be brought to its end,
        # in whatever batches.
        if plan is None or (checkpoint.fingerprint != config.fingerprint and plan.base is None):
            return None
        self._console.line(f"Resuming run {checkpoint.run} after its phase {checkpoint.phase}")
        return checkpoint

    # The ways through

    def whole(self) -> Report:
        """Everything, or what is left of it."""
        config = self._config
        if self._is_finished_file():
            return self._file_again()
        target = open_target(config.target, config.source.location.text)
        with contextlib.closing(target):
            ending.clear_away(config, target, keep=self._run)
            plan = read_plan(self._folder.path) if self._resumed else self._look_again(target)
            if self._report.status == "unchanged":
                return self._report
            occupancy = Occupancy(config, target, config.checkpoint_dir)
            if plan is None:
                plan = self._preflight(occupancy)
            work = Work(config, self._console, self._phases, self._folder, plan)
            self._report.reused = work.reused() if self._resumed else {}
            self._say_reused()
            if plan.base is not None:
                return self._carry_over(work, plan.base, target)
            return self._import_beside(work, occupancy, target)

    def dry(self, checkpoint_dir: Path) -> Report:
        """Everything but writing: to the target, and outside a temporary folder."""
        with contextlib.ExitStack() as stack:
            target = self._readable_target()
            occupancy = None
            if target is not None:
                stack.enter_context(contextlib.closing(target))
                occupancy = Occupancy(self._config, target, checkpoint_dir)
            work = Work(self._config, self._console, self._phases, self._folder, self._preflight(occupancy))
            self._go(work, "export", "examine")
            held = {} if occupancy is None else occupancy.held(work.plan, work.passage, self._folder)[0]
            passed = work.verdict.passed
            self._describe(work, held)
        pending = [target.name for target in work.plan.targets if target.name not in held]
        records = sum(passed[name] for name in pending)
        good = work.verdict.reject_rate <= self._config.max_reject_rate
        self._console.line(f"[DRY-RUN] Would import {records:,} chunks into {len(pending)} collections")
        self._report.status = "dry-run"
        self._report.changed = bool(pending)
        self._report.advice = "PROCEED" if good else "INVESTIGATE"
        self._console.line(f"[DRY-RUN] Recommendation: {self._report.advice}")
        return self._report

    def _readable_target(self) -> Source | None:
        access = self._config.target
        path = access.location.path
        if path is None:
            try:
                return open_source(access)
            except MissingDatabaseError:
                if access.create_database:
                    return None
                raise
        if access.location.kind is Kind.DIRECTORY and path.exists() and (not path.is_dir() or any(path.iterdir())):
            return open_source(access)
        if access.location.kind is not Kind.DIRECTORY and path.exists():
            raise PreconditionError(f"{path}: exists already; give a new name, backups are never overwritten")
        return None

    def _preflight(self, occupancy: Occupancy | None) -> Plan:
        with self._phases.timed("preflight"), contextlib.closing(open_source(self._config.source)) as source:
            if occupancy is not None:
                occupancy.refuse_same_database(source)
            plan = make_plan(self._config, source)
            check_room(plan, self._folder.path)
            if occupancy is not None:
                plan = occupancy.marked(plan)
            self._folder.make()
            plan.write(self._folder.path)
        self._console.line(f"Total chunks to migrate: {plan.records:,}")
        self._phases.done("preflight", plan.records)
        return plan

    def _go(self, work: Work, *steps: str) -> None:
        """Take the steps, with the source open if there is anything to be read from it."""
        with self._resumable(), contextlib.ExitStack() as stack:
            source = None
            if "export" in steps:
                source = stack.enter_context(contextlib.closing(open_source(self._config.source)))
            work.go(*steps, source=source)

    @contextlib.contextmanager
    def _resumable(self) -> Iterator[None]:
        """Tell apart what stops a run before it began from what broke it off."""
        try:
            yield
        except PreconditionError as error:
            raise ChromactlError(f"the run broke off: {error}; then the same command goes on from here") from error

    # Import beside, prove, swap

    def _import_beside(self, work: Work, occupancy: Occupancy, target: Target) -> Report:
        plan = work.plan
        held: dict[str, CollectionState] = {}
        if not (self._phases.checkpoint.reached("verify") and self._config.target.location.kind in _DATABASES):
            stepwise = self._config.strict_phases or any(entry.replaces for entry in plan.targets)
            if stepwise:
                self._go(work, "export", "examine")
                self._refuse_rejects(work, target, [])
                held = self._held(work, occupancy)
                if len(held) == len(plan.targets):
                    return self._nothing_to_do(work, held)
            with self._resumable():
                pending = [entry for entry in plan.targets if entry.name not in held]
                self._back_up({entry.replaces for entry in pending} - {None}, target)
                staged = {entry.name: target.stage(entry.spec, self._run) for entry in pending}
                work.land = Land(self._config, work.passage, self._folder, target, staged, plan.records)
                work.land.forget_what_is_gone()
                work.prove = Prove(work.passage, plan, self._folder, target, staged)
            steps = [("import",), ("verify",)] if stepwise else [("export", "examine", "import", "verify")]
            for step in steps:
                self._go(work, *step)
                self._refuse_rejects(work, target, list(staged.values()))
            with self._resumable():
                self._conclude(work, work.prove, held, staged, list(staged.values()), target)
        with self._resumable():
            swapped = self._staged_by_checkpoint(plan)
            occupancy.refuse_newcomers([entry for entry in plan.targets if entry.name in swapped], swapped)
            self._report.kept = target.swap(list(swapped.values()), self._run)
        return self._complete(work)

    def _held(self, work: Work, occupancy: Occupancy) -> dict[str, CollectionState]:
        """What the target holds already as it should be; a refusal leaves no trace of this run."""
        try:
            held, rounding = occupancy.held(work.plan, work.passage, self._folder)
        except PreconditionError:
            state.forget(self._config, self._run)
            raise
        self._report.note_rounding(rounding)
        return held

    def _staged_by_checkpoint(self, plan: Plan) -> dict[str, Collection]:
        """What was imported and proven, found by its keys; what the target held already is in its place."""
        specs = {entry.name: entry.spec for entry in plan.targets}
        before = {entry.replaces for entry in plan.targets}
        return {
            entry.name: Collection(
                replace(specs[entry.name], name=staged_name(entry.name, self._run)), entry.target_key
            )
            for entry in self._phases.checkpoint.collections
            if entry.target_key is not None and entry.target_key not in before
        }

    def _back_up(self, replaced: set[str | None], target: Target) -> None:
        """Keep a verified snapshot of what is about to lose its name."""
        folder = self._config.backup_dir / f"before-{self._run}"
        losing = [collection for collection in target.collections() if collection.key in replaced]
        if losing and not folder.exists():
            create_snapshot(target, losing, folder)
            self._console.line(f"What {', '.join(entry.name for entry in losing)} held is kept in {folder}")
        if folder.exists():
            self._report.backup = folder

    # Carrying changes over

    def _carry_over(self, work: Work, base_run: str, target: Target) -> Report:
        base = self._finished_run(base_run, {})
        live = {collection.key: collection for collection in target.collections()}
        if base is None or any(entry.replaces not in live for entry in work.plan.targets):
            state.forget(self._config, self._run)
            raise ChromactlError(
                f"what run {base_run} left behind is gone, so its changes cannot be carried over; "
                "run the same command again, it migrates as a whole then"
            )
        there = {entry.name: live[str(entry.replaces)] for entry in work.plan.targets}
        work.exported()
        self._go(work, "examine")
        self._refuse_rejects(work, target, [])
        base_passage = Passage(self._config.profile, base.plan)
        changes = Changes(work.passage, self._folder, base_passage, base.plan, base.folder)
        carried = Carried()
        with self._resumable():
            folder = self._config.backup_dir / f"before-{self._run}"
            if changes.keep(work.plan, target, there, folder):
                self._report.backup = folder
        work.land = CarryOver(self._config, work.passage, self._folder, target, there, work.plan.records)
        work.land.changes, work.land.carried = changes, carried
        work.prove = Prove(work.passage, work.plan, self._folder, target, there)
        for step in ("import", "verify"):
            self._go(work, step)
            self._refuse_rejects(work, target, [])
        with self._resumable():
            self._conclude(work, work.prove, {}, there, [], target)
        self._report.carried = carried.as_json()
        return self._complete(work)

    # The ends

    def _refuse_rejects(self, work: Work, target: Target, staged: list[Collection]) -> None:
        """End the run if too many records cannot be migrated, and remove what was imported."""
        found = work.verdict
        if found.reject_rate <= self._config.max_reject_rate:
            return
        rejects = self._keep_rejects()
        for collection in staged:
            target.discard(collection)
        state.forget(self._config, self._run)
        raise DataDiffersError(
            f"{found.reject_rate:.1%} of the records cannot be migrated, more than the "
            f"{self._config.max_reject_rate:.1%} of --max-reject-rate; the target is as it was; "
            f"each one is in {rejects}"
        )

    def _conclude(
        self,
        work: Work,
        prove: Prove,
        held: dict[str, CollectionState],
        collections: dict[str, Collection],
        staged: list[Collection],
        target: Target,
    ) -> None:
        """Look at each collection as a whole too, and write down that everything is proven."""
        records, digests, rounding = proven(self._folder)
        with self._phases.timed("verify"):
            for name in collections:
                if not prove.differ:
                    prove.as_a_whole(name, records[name])
        if prove.differ:
            path = ending.write_differences(self._config, self._run, prove.comparisons)
            for collection in staged:
                target.discard(collection)
            state.forget(self._config, self._run)
            raise ending.differ(self._config, prove.comparisons, path, beside=bool(staged))
        self._report.note_rounding(rounding)
        proved = [
            held.get(entry.name)
            or replace(entry, target_key=collections[entry.name].key, digest=digests.get(entry.name, ending.NOTHING))
            for entry in states(work.plan, self._folder)
        ]
        self._console.line("✓ Phase 5 Complete: Migration passed all verifications")
        self._phases.done("verify", sum(records.values()), collections=tuple(proved))

    def _complete(self, work: Work) -> Report:
        held = {entry.name: entry for entry in self._phases.checkpoint.collections}
        self._phases.done("complete", 0)
        self._describe(work, held)
        self._report.checkpoint_file = self._phases.written[-1]
        ending.write_report(self._config, self._report)
        ending.prune(self._config, keep=self._run)
        return self._report

    def _nothing_to_do(self, work: Work, held: dict[str, CollectionState]) -> Report:
        """The target holds everything already, found by reading it: leave no trace of this run."""
        self._describe(work, held)
        state.forget(self._config, self._run)
        last = state.finished(self._config)
        return self._unchanged(last[0] if last else None, last[1].run if last else self._run)

    def _describe(self, work: Work, known: dict[str, CollectionState]) -> None:
        """Put into the report what was found of collections and rejects."""
        found = work.verdict
        self._report.collections = [
            replace(known.get(entry.name, entry), rejected=entry.rejected) for entry in states(work.plan, self._folder)
        ]
        self._report.rejects = dict(found.reasons)
        self._report.unplaced = unplaced(work.plan, found)
        self._report.skipped = work.plan.skipped
        self._report.phases = list(self._phases.checkpoint.phases)
        self._report.seconds = perf_counter() - self._begun
        if found.reasons:
            self._report.rejects_file = self._keep_rejects()

    def _keep_rejects(self) -> Path:
        kept = self._config.log_dir / f"migration_{self._run}.rejects.jsonl"
        files.make_folder(kept.parent)
        write_rejects(self._folder, kept)
        return kept

    def _say_reused(self) -> None:
        if self._report.reused:
            steps = ", ".join(f"{step} of {count:,} pieces" for step, count in self._report.reused.items())
            self._console.line(f"Reused: {steps}; they are not read or written again")

    # Again

    def _finished_run(self, run: str, keys: dict[str, str]) -> Finished | None:
        folder = state.run_folder(self._config, run)
        plan = read_plan(folder)
        return None if plan is None else Finished(run, plan, RunFolder(folder), keys)

    def _look_again(self, target: Source) -> Plan | None:
        """What became of a finished run of this migration: nothing to do, or a plan to carry changes over."""
        last = state.finished(self._config)
        if last is None:
            return None
        path, checkpoint = last
        keys = {entry.name: str(entry.target_key) for entry in checkpoint.collections}
        finished = self._finished_run(checkpoint.run, keys)
        if finished is None:
            return None
        with self._phases.timed("recheck"), self._console.progress(finished.plan.records, "recheck") as advance:
            found = recheck(self._config, finished, self._folder, target, advance)
        if found.outcome is Outcome.OTHERWISE:
            self._console.line(f"Source or target has changed since run {checkpoint.run}; migrating again")
            return None
        if found.plan is None:
            self._report.note_rounding(found.comparison)
            self._report.collections = list(checkpoint.collections)
            self._report.rejects = checkpoint.rejects
            self._report.skipped = finished.plan.skipped
            self._report.phases = [self._phases.result("recheck", finished.plan.records)]
            self._unchanged(path, checkpoint.run)
            return None
        found.plan.write(self._folder.path)
        self._console.line(f"The source has changed since run {checkpoint.run}; carrying over what has")
        self._phases.done("preflight", found.plan.records)
        return found.plan

    def _unchanged(self, checkpoint_file: Path | None, run: str) -> Report:
        self._report.status = "unchanged"
        self._report.changed = False
        self._report.run = run
        self._report.checkpoint_file = checkpoint_file
        self._report.seconds = perf_counter() - self._begun
        report = self._config.log_dir / f"migration_{run}.json"
        self._report.report_file = report if report.exists() else None
        self._console.line("The target holds every record as it should be; nothing to do")
        return self._report

    def _is_finished_file(self) -> bool:
        """Whether the target is a snapshot or JSON file that a run of this migration finished."""
        location = self._config.target.location
        if location.kind in _DATABASES or location.path is None or not location.path.exists():
            return False
        return self._resumed is not None or state.finished(self._config) is not None

    def _file_again(self) -> Report:
        """A file is never changed once it is complete: it is what it should be, or another has to be made."""
        with contextlib.closing(open_source(self._config.target)) as there:
            plan = read_plan(self._folder.path)
            if self._resumed is not None and plan is not None:
                # Cut off after the file was there: all is done but saying so.
                finished = Finished(self._run, plan, self._folder, {})
                if holds(self._config, finished, there) is not None:
                    return self._complete(Work(self._config, self._console, self._phases, self._folder, plan))
            elif self._look_again(there) is None and self._report.status == "unchanged":
                return self._report
        self._folder.remove()
        raise PreconditionError(
            f"{self._config.target.location.path}: exists already, and source or file have changed since it was made; "
            "give a new name, backups are never overwritten"
        )
