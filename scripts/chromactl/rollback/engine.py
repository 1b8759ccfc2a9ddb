"""A rollback from end to end: look, archive what has to go, give the names back what they had, prove it.

A migration is undone by its run (what it replaced was kept beside, and is renamed back) or by going back to a backup
(which is written beside, proven, and swapped in). Nothing is touched before everything was looked at; what was cut off
is gone on with by the same command.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from chromactl import files
from chromactl.console import Console
from chromactl.errors import ChromactlError, PreconditionError, UsageError
from chromactl.lock import locked
from chromactl.migrate import state
from chromactl.rollback import runs
from chromactl.rollback.amended import Amended
from chromactl.rollback.backup import Backup
from chromactl.rollback.beside import Beside
from chromactl.rollback.config import RollbackConfig
from chromactl.rollback.report import RollbackReport
from chromactl.rollback.runs import PastRun
from chromactl.rollback.step import Step, Undo, Way
from chromactl.snapshot.create import create as create_snapshot
from chromactl.stores.base import Database, Source
from chromactl.stores.opening import Access, open_database, open_source
from chromactl.stores.snapshot import SnapshotStore


def rollback(config: RollbackConfig, console: Console, log_file: Path | None = None) -> RollbackReport:
    """Do what the config says, and report it.

    Raises:
        PreconditionError, LockedError: going back is not safe or not possible; nothing was touched.
        DataDiffersError: the target does not give back what it was given.
        ChromactlError: it broke off; the same command goes on from there.
    """
    begun = perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(config.target))
        target = stack.enter_context(contextlib.closing(open_database(config.target, only_look=config.dry_run)))
        undo, backup = _undo(config, target, stack)
        report = RollbackReport(
            status="dry-run" if config.dry_run else "restored",
            name=undo.name,
            run=config.run,
            target=config.target.location.text,
            started=datetime.now(UTC),
            reason=config.reason,
            backup=backup,
            log_file=log_file,
        )
        console.line("Looking at what is there, and at what it was")
        report.steps = undo.plan()
        if not config.dry_run and any(step.changes for step in report.steps):
            _carry_out(config, target, undo, report, console)
        elif not config.dry_run:
            report.status = "unchanged"
            undo.clear(report.steps)
        report.now = _counts(target, report.steps)
        report.seconds = perf_counter() - begun
        if report.changed and not config.dry_run:
            report.write(config.report_output)
    return report


def _counts(target: Database, steps: list[Step]) -> dict[str, int | None]:
    there = {collection.name: collection for collection in target.collections()}
    return {step.name: target.count(there[step.name]) if step.name in there else None for step in steps}


def _undo(config: RollbackConfig, target: Database, stack: contextlib.ExitStack) -> tuple[Undo, str | None]:
    """The way of going back that the config asks for, and the name of the backup that it rests on."""
    if config.backup is not None:
        source = stack.enter_context(contextlib.closing(_opened(config.backup)))
        return Backup(source, target, config.checkpoint_dir, config.collections), config.backup.location.text
    run = runs.find(config.checkpoint_dir, str(config.run))
    names = _names(config, run)
    _refuse_later(config, run, names)
    backup = config.backup_dir / f"before-{run.name}"
    kept = f"snapshot:{backup}" if backup.exists() else None
    broken = runs.broken_off(config.checkpoint_dir, run)
    if run.plan.base is None:
        return Beside(run, broken, target, config.backup_dir, names), kept
    return Amended([run, *broken], _digests_of(config, run.plan.base), target, config.backup_dir, names), kept


def _opened(backup: Access) -> Source:
    try:
        return open_source(backup)
    except PreconditionError:
        raise
    except ChromactlError as error:
        raise PreconditionError(f"{error}; nothing was changed; go back to another backup") from error


def _names(config: RollbackConfig, run: PastRun) -> list[str]:
    names = [planned.name for planned in run.plan.targets]
    for name in config.collections:
        if name not in names:
            raise UsageError(f"--collection {name}: run {run.name} has none of this name, but {', '.join(names)}")
    return [name for name in names if not config.collections or name in config.collections]


def _refuse_later(config: RollbackConfig, run: PastRun, names: list[str]) -> None:
    """Raise PreconditionError if another run changed the same collections since: the last is undone first."""
    known = runs.known(config.checkpoint_dir)
    position = [entry.name for entry in known].index(run.name)
    for later in known[position + 1 :]:
        same = (later.target, later.target_database) == (run.target, run.target_database)
        if (
            same
            and later.checkpoint.phase == "complete"
            and (touched := [name for name in names if later.changed(name)])
        ):
            raise PreconditionError(
                f"run {later.name} has changed {', '.join(touched)} since run {run.name}; nothing was changed; undo "
                f"that one first (--run {later.name}), or go back to a backup (--backup-path)"
            )


def _digests_of(config: RollbackConfig, run: str) -> dict[str, str | None]:
    """What each collection was after this run."""
    found: dict[str, str | None] = {}
    for _, checkpoint in state.all_checkpoints(config.checkpoint_dir):
        if checkpoint.run == run and checkpoint.phase == "complete":
            found = {entry.name: entry.digest for entry in checkpoint.collections}
    return found


def _carry_out(config: RollbackConfig, target: Database, undo: Undo, report: RollbackReport, console: Console) -> None:
    steps = [step for step in report.steps if step.changes]
    files.make_folder(config.backup_dir)
    files.make_folder(config.checkpoint_dir)
    try:
        undo.prepare(steps)
        report.archive, report.lost = _archive(config, target, undo.name, steps, console)
        undo.move(steps)
        for step in steps:
            console.line(f"✓ {step.name}: {step.way.value}")
        undo.clear(steps)
    except ChromactlError as error:
        if error.exit_code == 3:
            raise ChromactlError(f"the rollback broke off: {error}; then the same command goes on from here") from error
        raise


def _archive(
    config: RollbackConfig, target: Database, name: str, steps: list[Step], console: Console
) -> tuple[Path | None, dict[str, list[str]]]:
    """Keep what has to go: a failed migration is evidence. The snapshot, and the ids that could not be read."""
    folder = config.backup_dir / f"failed-{name}"
    leaving = {step.name: step.leaves or step.comes for step in steps if step.leaves or step.way is Way.AMENDED}
    collections = {live: collection for live, collection in leaving.items() if collection is not None}
    if not config.archive or not collections:
        return None, {}
    if folder.exists():
        SnapshotStore(folder)  # of this rollback's first try
        return folder, {}
    try:
        lost = create_snapshot(
            target,
            list(collections.values()),
            folder,
            named={collection.name: live for live, collection in collections.items()},
            damaged=True,
        )
    except ChromactlError as error:
        raise ChromactlError(
            f"what has to go cannot be archived ({error}); nothing was changed; put that right, or give --no-archive"
        ) from error
    console.line(f"What has to go is kept in {folder}")
    return folder, lost
