"""A migration that was finished before: nothing to do, changes to carry over, or the whole way again."""

from __future__ import annotations

import contextlib

from chromactl.errors import PreconditionError
from chromactl.location import DATABASES
from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.plan import Plan, read_plan
from chromactl.migrate.recheck import Finished, Outcome, holds, recheck
from chromactl.migrate.report import Report
from chromactl.migrate.run import Run
from chromactl.migrate.work import Work
from chromactl.stores.base import Source
from chromactl.stores.opening import open_source


def finished_run(config: MigrateConfig, name: str, keys: dict[str, str]) -> Finished | None:
    """The finished run of this name, if what it exported is still there; `keys` are of its collections there."""
    folder = state.run_folder(config, name)
    plan = read_plan(folder)
    return None if plan is None else Finished(name, plan, RunFolder(folder), keys)


def look_again(run: Run, target: Source) -> Plan | None:
    """What became of a finished run of this migration: nothing to do, or a plan to carry changes over."""
    last = state.finished(run.config)
    if last is None:
        return None
    path, checkpoint = last
    keys = {entry.name: str(entry.target_key) for entry in checkpoint.collections}
    finished = finished_run(run.config, checkpoint.run, keys)
    if finished is None:
        return None
    with run.phases.timed("recheck"), run.console.progress(finished.plan.records, "recheck") as advance:
        found = recheck(run.config, finished, run.folder, run.source, target, advance)
    if found.by_distances:
        run.console.line("Embeddings of the source were compared by distances; --exact-recheck reads each of them")
    if found.outcome is Outcome.OTHERWISE:
        run.console.line(f"Source or target has changed since run {checkpoint.run}; migrating again")
        return None
    if found.plan is None:
        run.report.note_rounding(found.comparison)
        run.report.collections = list(checkpoint.collections)
        run.report.rejects = checkpoint.rejects
        run.report.skipped = finished.plan.skipped
        run.report.phases = [run.phases.result("recheck", finished.plan.records)]
        run.unchanged(path, checkpoint.run)
        return None
    found.plan.write(run.folder.path)
    run.console.line(f"The source has changed since run {checkpoint.run}; carrying over what has")
    run.phases.done("preflight", found.plan.records)
    return found.plan


def is_finished_file(run: Run) -> bool:
    """Whether the target is a snapshot or JSON file that a run of this migration finished."""
    location = run.config.target.location
    if location.kind in DATABASES or location.path is None or not location.path.exists():
        return False
    return run.resumed is not None or state.finished(run.config) is not None


def file_again(run: Run) -> Report:
    """A file is never changed once it is complete: it is what it should be, or another has to be made."""
    with contextlib.closing(open_source(run.config.target)) as there:
        plan = read_plan(run.folder.path)
        if run.resumed is not None and plan is not None:
            # Cut off after the file was there: all is done but saying so.
            finished = Finished(run.name, plan, run.folder, {})
            if holds(run.config, finished, there) is not None:
                return run.complete(Work(run.config, run.console, run.phases, run.folder, plan))
        elif look_again(run, there) is None and run.report.status == "unchanged":
            return run.report
    state.forget(run.config, run.name)
    raise never_overwritten(run.config)


def never_overwritten(config: MigrateConfig) -> PreconditionError:
    """The error for a file that is there and is not what this migration would make."""
    since = ", and source or file have changed since it was made" if state.finished(config) is not None else ""
    return PreconditionError(
        f"{config.target.location.path}: exists already{since}; give a new name, backups are never overwritten"
    )
