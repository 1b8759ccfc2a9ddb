"""A migration from end to end.

preflight → export → transform → validate → import → verify → complete. What is imported lies beside the live
collections until every record of it was read back and found right; only then names are swapped. Phases overlap, piece
by piece, unless the target holds something that has to be looked at first, or --strict-phases asks for one after the
other. A run that was cut off is taken up by the same command: what the ledger has as done is not done again.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

from chromactl import files
from chromactl.console import Console
from chromactl.errors import (
    MissingDatabaseError,
    UsageError,
)
from chromactl.location import DATABASES, Kind
from chromactl.lock import locked
from chromactl.migrate import ending, state
from chromactl.migrate.again import file_again, is_finished_file, look_again, never_overwritten
from chromactl.migrate.beside import import_beside
from chromactl.migrate.carry import carry_over
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.occupancy import Occupancy
from chromactl.migrate.plan import Plan, check_room, make_plan, read_plan
from chromactl.migrate.report import Report
from chromactl.migrate.run import Run
from chromactl.migrate.work import Work
from chromactl.stores.base import Source
from chromactl.stores.directory import remove_abandoned_copies
from chromactl.stores.opening import open_source, open_target


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
            run = Run(replace(config, checkpoint_dir=Path(folder)), console, log_file)
            return _dry(stack.enter_context(contextlib.closing(run)), config)
        stack.enter_context(locked(config.target))
        # A run that was killed leaves the copy of a directory, and the one that takes it up may not need another.
        remove_abandoned_copies()
        for needed in (config.checkpoint_dir, config.log_dir, config.backup_dir):
            files.make_folder(needed)
        return _whole(stack.enter_context(contextlib.closing(Run(config, console, log_file))))


def _whole(run: Run) -> Report:
    """Everything, or what is left of it."""
    config = run.config
    if is_finished_file(run):
        return file_again(run)
    target = open_target(config.target, config.source.location.text)
    with contextlib.closing(target):
        ending.clear_away(config, target, keep=run.name)
        plan = read_plan(run.folder.path) if run.resumed else look_again(run, target)
        if run.report.status == "unchanged":
            return run.report
        occupancy = Occupancy(config, target, config.checkpoint_dir)
        if plan is None:
            plan = _preflight(run, occupancy)
        work = Work(config, run.console, run.phases, run.folder, plan)
        run.report.reused = work.reused() if run.resumed else {}
        run.say_reused()
        if plan.base is not None:
            return carry_over(run, work, plan.base, target)
        return import_beside(run, work, occupancy, target)


def _dry(run: Run, config: MigrateConfig) -> Report:
    """Everything but writing: to the target, and outside the run's temporary folder. `config` is as it was given."""
    with contextlib.ExitStack() as stack:
        target = _readable_target(config)
        occupancy = None
        if target is not None:
            stack.enter_context(contextlib.closing(target))
            occupancy = Occupancy(run.config, target, config.checkpoint_dir)
        work = Work(run.config, run.console, run.phases, run.folder, _preflight(run, occupancy))
        run.go(work, "export", "examine")
        held = {} if occupancy is None else occupancy.held(work.plan, work.passage, run.folder)[0]
        passed = work.verdict.passed
        run.describe(work, held)
    pending = [target.name for target in work.plan.targets if target.name not in held]
    if pending and target is not None and config.target.location.kind not in DATABASES:
        raise never_overwritten(config)
    records = sum(passed[name] for name in pending)
    good = work.verdict.reject_rate <= run.config.max_reject_rate
    run.console.line(f"[DRY-RUN] Would import {records:,} chunks into {len(pending)} collections")
    run.report.status = "dry-run"
    run.report.changed = bool(pending)
    run.report.advice = "PROCEED" if good else "INVESTIGATE"
    run.console.line(f"[DRY-RUN] Recommendation: {run.report.advice}")
    return run.report


def _readable_target(config: MigrateConfig) -> Source | None:
    access = config.target
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
        if state.finished(config) is None:
            raise never_overwritten(config)
        return open_source(access)
    return None


def _preflight(run: Run, occupancy: Occupancy | None) -> Plan:
    with run.phases.timed("preflight"):
        if occupancy is not None:
            occupancy.refuse_same_database(run.source)
        plan = make_plan(run.config, run.source)
        check_room(plan, run.folder.path)
        if occupancy is not None:
            plan = occupancy.marked(plan)
    run.console.line(f"Total chunks to migrate: {plan.records:,}")
    run.phases.done("preflight", plan.records)
    run.folder.make()
    plan.write(run.folder.path)
    return plan
