"""A migration from end to end.

preflight → export → transform → validate → import → verify → complete. What is imported lies beside the live
collections until every record of it was read back and found right; only then names are swapped. A run that was
cut off is taken up by the same command: exported and imported shards are not done again, the rest is.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import orjson

from chromactl import files
from chromactl.compare import Comparison
from chromactl.console import Console
from chromactl.errors import ChromactlError, DataDiffersError, PreconditionError, UsageError
from chromactl.location import Kind
from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.export import export
from chromactl.migrate.gate import Verdict, examine
from chromactl.migrate.load import load, verify
from chromactl.migrate.occupancy import Occupancy
from chromactl.migrate.plan import Plan, check_room, make_plan, read_plan
from chromactl.migrate.recheck import still_the_same
from chromactl.migrate.report import Report
from chromactl.migrate.state import Checkpoint, CollectionState, PhaseResult, RunFolder
from chromactl.snapshot.create import create as create_snapshot
from chromactl.stores.base import Collection, Source, Target
from chromactl.stores.opening import open_source, open_target

log = logging.getLogger(__name__)


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
        stack.enter_context(state.locked(config))
        for needed in (config.log_dir, config.backup_dir):
            files.make_folder(needed)
        return _Run(config, console, log_file).whole()


class _Run:
    """One run's way through the phases."""

    def __init__(self, config: MigrateConfig, console: Console, log_file: Path | None) -> None:
        self._config = config
        self._console = console
        resumed = self._resume()
        self._resumed = resumed is not None
        self._checkpoint = resumed or Checkpoint(state.new_run(), "preflight", config.fingerprint)
        self._folder = RunFolder(state.run_folder(config, self._checkpoint.run))
        self._written: list[Path] = []
        self._held: dict[str, CollectionState] = {}
        self._report = Report(
            status="complete",
            changed=True,
            run=self._checkpoint.run,
            source=config.source.location.text,
            target=config.target.location.text,
            profile=config.profile.name,
            log_file=log_file,
        )

    def _resume(self) -> Checkpoint | None:
        config = self._config
        if config.checkpoint_file is not None:
            checkpoint = state.named_checkpoint(config, config.checkpoint_file)
        else:
            found = state.checkpoints(config)
            if not found:
                return None
            checkpoint = found[-1][1]
        if checkpoint.phase == "complete" or not state.run_folder(config, checkpoint.run).exists():
            return None
        self._console.line(f"Resuming run {checkpoint.run} after its phase {checkpoint.phase}")
        return checkpoint

    # The ways through

    def whole(self) -> Report:
        """Everything, or what is left of it."""
        target = open_target(self._config.target, self._config.source.location.text)
        with contextlib.closing(target):
            if self._found_unchanged(target):
                return self._report
            occupancy = Occupancy(self._config, target, self._config.checkpoint_dir)
            plan = self._plan(occupancy)
            verdict = self._gate(plan)
            pending = self._pending(plan, occupancy)
            if not pending and not self._checkpoint.reached("verify"):
                return self._nothing_to_do(plan, verdict)
            with self._resumable():
                if not pending:
                    # Cut off after the swap: all is done but saying so.
                    self._report.collections = list(self._checkpoint.collections)
                    return self._complete([], {}, target)
                staged = self._import(plan, pending, verdict, target)
                self._verify(plan, pending, staged, target)
                return self._complete(pending, staged, target)

    @contextlib.contextmanager
    def _resumable(self) -> Iterator[None]:
        """Tell apart what stops a run before it began from what broke it off."""
        try:
            yield
        except PreconditionError as error:
            raise ChromactlError(f"the run broke off: {error}; then the same command goes on from here") from error

    def dry(self, checkpoint_dir: Path) -> Report:
        """Everything but writing: to the target, and outside a temporary folder."""
        with contextlib.ExitStack() as stack:
            target = self._readable_target()
            if target is not None:
                stack.enter_context(contextlib.closing(target))
            occupancy = None if target is None else Occupancy(self._config, target, checkpoint_dir)
            plan = self._plan(occupancy)
            verdict = self._examine(plan)
            good = verdict.reject_rate <= self._config.max_reject_rate
            pending = [planned.name for planned in plan.collections]
            if occupancy is not None:
                pending = self._pending(plan, occupancy)
        records = sum(verdict.passed[name] for name in pending)
        self._console.line(f"[DRY-RUN] Would import {records:,} chunks into {len(pending)} collections")
        self._report.status = "dry-run"
        self._report.changed = bool(pending)
        self._report.advice = "PROCEED" if good else "INVESTIGATE"
        self._report.collections = self._states(plan, verdict)
        self._report.phases = list(self._checkpoint.phases)
        self._console.line(f"[DRY-RUN] Recommendation: {self._report.advice}")
        return self._report

    def _readable_target(self) -> Source | None:
        access = self._config.target
        path = access.location.path
        if path is None:
            return open_target(access, "")
        if access.location.kind is Kind.DIRECTORY and path.exists() and (not path.is_dir() or any(path.iterdir())):
            return open_source(access)
        if access.location.kind is not Kind.DIRECTORY and path.exists():
            raise PreconditionError(f"{path}: exists already; give a new name, backups are never overwritten")
        return None

    # The phases

    def _found_unchanged(self, target: Source) -> bool:
        """Whether this migration was finished before and still holds; the report is that of the finished run then."""
        begun = perf_counter()
        finished = state.finished(self._config)
        if finished is None or self._resumed:
            return False
        path, checkpoint = finished
        folder = RunFolder(state.run_folder(self._config, checkpoint.run))
        plan = read_plan(folder.path)
        if plan is None:
            return False
        with self._console.progress("recheck", plan.records) as advance:
            comparison = still_the_same(self._config, plan, folder, target, advance)
        if comparison is None:
            self._console.line(f"Source or target has changed since run {checkpoint.run}; migrating again")
            return False
        self._note_rounding(comparison)
        self._report.collections = list(checkpoint.collections)
        self._report.rejects = checkpoint.rejects
        self._report.skipped = plan.skipped
        self._report.phases = [PhaseResult("recheck", perf_counter() - begun, plan.records)]
        self._say_unchanged(path, checkpoint.run)
        return True

    def _plan(self, occupancy: Occupancy | None) -> Plan:
        begun = perf_counter()
        plan = read_plan(self._folder.path)
        if plan is None or not self._checkpoint.reached("export"):
            with contextlib.closing(open_source(self._config.source)) as source:
                if plan is None:
                    if occupancy is not None:
                        occupancy.refuse_same_database(source)
                    plan = make_plan(self._config, source)
                    check_room(plan, self._folder.path)
                    if occupancy is not None:
                        occupancy.refuse_early(plan)
                    self._folder.make()
                    plan.write(self._folder.path)
                self._console.line(f"Total chunks to migrate: {plan.records:,}")
                self._after("preflight", begun, plan.records)
                begun = perf_counter()
                with self._resumable(), self._console.progress("export", plan.records) as advance:
                    export(source, plan, self._folder, advance)
            self._after("export", begun, plan.records)
        saved = sum(shard.rows for planned in plan.collections for shard in self._folder.shards(planned.name))
        self._console.line(f"✓ Phase 1 Complete: {saved:,} chunks saved")
        self._report.skipped = plan.skipped
        return plan

    def _gate(self, plan: Plan) -> Verdict:
        verdict = self._examine(plan)
        if verdict.reject_rate > self._config.max_reject_rate:
            rejects = self._keep_rejects()
            self._folder.remove()
            raise DataDiffersError(
                f"{verdict.reject_rate:.1%} of the records cannot be migrated, more than the "
                f"{self._config.max_reject_rate:.1%} of --max-reject-rate; the target is as it was; "
                f"each one is in {rejects}"
            )
        if verdict.reasons:
            self._report.rejects_file = self._keep_rejects()
        return verdict

    def _examine(self, plan: Plan) -> Verdict:
        with self._console.progress("validate", plan.records) as advance:
            verdict = examine(self._config.profile, plan, self._folder, advance)
        self._report.rejects = dict(verdict.reasons)
        for name in verdict.passed:
            self._console.line(f"Transformed {verdict.passed[name]:,} chunks of {name}")
        self._console.line(f"✓ Phase 2 Complete: {sum(verdict.passed.values()):,} chunks classified")
        begun = perf_counter() - verdict.transform_seconds
        self._after("transform", begun, verdict.records, rejects=dict(verdict.reasons))
        if verdict.reasons:
            issues = ", ".join(f"{reason} {count:,}" for reason, count in verdict.reasons.most_common())
            self._console.line(f"Issues found: {issues}")
        word = "passed" if verdict.reject_rate <= self._config.max_reject_rate else "FAILED"
        self._console.line(f"✓ Phase 3 Complete: Validation {word} ({1 - verdict.reject_rate:.2%} success rate)")
        self._after("validate", perf_counter() - verdict.validate_seconds, verdict.records)
        return verdict

    def _pending(self, plan: Plan, occupancy: Occupancy) -> list[str]:
        """The collections that the target does not hold yet as they should be."""
        try:
            self._held, rounding = occupancy.held(plan, self._folder)
        except PreconditionError:
            self._folder.remove()
            self._forget()
            raise
        self._note_rounding(rounding)
        return [planned.name for planned in plan.collections if planned.name not in self._held]

    def _import(self, plan: Plan, pending: list[str], verdict: Verdict, target: Target) -> dict[str, Collection]:
        begun = perf_counter()
        self._back_up(pending, target)
        staged: dict[str, Collection] = {}
        states = {entry.name: entry for entry in self._states(plan, verdict)}
        records = sum(states[name].source for name in pending)
        with self._console.progress("import", records) as advance:
            for planned in plan.collections:
                if planned.name not in pending:
                    continue
                collection = staged[planned.name] = target.stage(planned.spec, self._checkpoint.run)
                imported = load(
                    target,
                    collection,
                    planned,
                    self._config.profile,
                    self._folder,
                    self._config.batch_size,
                    advance,
                )
                states[planned.name] = replace(states[planned.name], imported=imported)
        self._report.collections = list(states.values())
        imported = sum(states[name].imported for name in pending)
        self._after("import", begun, imported, collections=tuple(states.values()))
        self._console.line(f"✓ Phase 4 Complete: Loaded {imported:,} chunks into {len(staged)} collections")
        return staged

    def _back_up(self, pending: list[str], target: Target) -> None:
        """Keep a verified snapshot of what is about to lose its name."""
        replaced = [collection for collection in target.collections() if collection.name in pending]
        folder = self._config.backup_dir / f"before-{self._checkpoint.run}"
        if replaced and not folder.exists():
            create_snapshot(target, replaced, folder)
            self._console.line(f"What {', '.join(entry.name for entry in replaced)} held is kept in {folder}")
        if folder.exists():
            self._report.backup = folder

    def _verify(self, plan: Plan, pending: list[str], staged: dict[str, Collection], target: Target) -> None:
        begun = perf_counter()
        states = {entry.name: entry for entry in self._report.collections}
        failed: dict[str, Comparison] = {}
        with self._console.progress("verify", sum(states[name].imported for name in pending)) as advance:
            for planned in plan.collections:
                if planned.name not in pending:
                    continue
                comparison, digest = verify(
                    target, staged[planned.name], planned, self._config.profile, self._folder, advance
                )
                self._note_rounding(comparison)
                if comparison.differences:
                    failed[planned.name] = comparison
                key = staged[planned.name].key
                states[planned.name] = replace(
                    states[planned.name], verified=comparison.compared, target_key=key, digest=digest
                )
        self._report.collections = list(states.values())
        if failed:
            self._fail_verification(failed, staged, target)
        self._console.line("✓ Phase 5 Complete: Migration passed all verifications")
        verified = sum(states[name].verified for name in pending)
        self._after("verify", begun, verified, collections=tuple(states.values()))

    def _fail_verification(self, failed: dict[str, Comparison], staged: dict[str, Collection], target: Target) -> None:
        path = self._config.log_dir / f"migration_{self._checkpoint.run}.differences.jsonl"
        lines = [
            orjson.dumps(
                {"collection": name, "id": one.id, "field": one.field, "is": one.actual, "should": one.expected}
            )
            for name, comparison in failed.items()
            for one in comparison.differences
        ]
        files.write_atomically(path, b"\n".join(lines) + b"\n")
        for collection in staged.values():
            target.discard(collection)
        self._folder.remove()
        raise DataDiffersError(
            f"{self._config.target.location.text}: {len(lines):,} differences between what was written and what the "
            f"target gives back; the imported collections are removed again, the live ones as they were; see {path}"
        )

    def _complete(self, pending: list[str], staged: dict[str, Collection], target: Target) -> Report:
        begun = perf_counter()
        self._report.kept = target.swap([staged[name] for name in pending], self._checkpoint.run)
        self._after("complete", begun, 0)
        self._report.phases = list(self._checkpoint.phases)
        self._report.checkpoint_file = self._written[-1]
        self._report.report_file = self._config.log_dir / f"migration_{self._checkpoint.run}.json"
        content = orjson.dumps(self._report.as_json(), option=orjson.OPT_INDENT_2)
        files.write_atomically(self._report.report_file, content)
        return self._report

    def _nothing_to_do(self, plan: Plan, verdict: Verdict) -> Report:
        """The target holds everything already, found by reading it: leave no trace of this run."""
        self._report.collections = self._states(plan, verdict)
        self._report.phases = list(self._checkpoint.phases)
        self._forget()
        self._folder.remove()
        finished = state.finished(self._config)
        self._say_unchanged(*((finished[0], finished[1].run) if finished else (None, self._checkpoint.run)))
        return self._report

    def _say_unchanged(self, checkpoint_file: Path | None, run: str) -> None:
        self._report.status = "unchanged"
        self._report.changed = False
        self._report.run = run
        self._report.checkpoint_file = checkpoint_file
        report = self._config.log_dir / f"migration_{run}.json"
        self._report.report_file = report if report.exists() else None
        self._console.line("The target holds every record as it should be; nothing to do")

    # What the phases share

    def _after(self, phase: str, begun: float, records: int, **changes: object) -> None:
        result = PhaseResult(phase, perf_counter() - begun, records)
        self._checkpoint = self._checkpoint.after(result, **changes)
        if not self._config.dry_run:
            self._written.append(state.write_checkpoint(self._config, self._checkpoint))
        log.debug("phase %s: %d records in %.3f s", phase, records, result.seconds)

    def _forget(self) -> None:
        for path in self._written:
            path.unlink(missing_ok=True)
        self._written.clear()

    def _states(self, plan: Plan, verdict: Verdict) -> list[CollectionState]:
        # What the target was found to hold already keeps its key and digest: it is known as ours in later runs too.
        fresh = [CollectionState(entry.name, len(entry.ids), entry.spec.space) for entry in plan.collections]
        return [replace(self._held.get(entry.name, entry), rejected=verdict.rejected[entry.name]) for entry in fresh]

    def _note_rounding(self, comparison: Comparison) -> None:
        self._report.rounded_embeddings += comparison.rounded_embeddings
        self._report.rounded_floats += comparison.rounded_floats

    def _keep_rejects(self) -> Path:
        kept = self._config.log_dir / f"migration_{self._checkpoint.run}.rejects.jsonl"
        with files.explained(kept):
            shutil.copyfile(self._folder.rejects, kept)
        return kept
