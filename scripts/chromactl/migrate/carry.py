"""A delta run: what has changed in the source since a finished run goes into the live collections."""

from __future__ import annotations

from chromactl.errors import ChromactlError
from chromactl.migrate import state
from chromactl.migrate.again import finished_run
from chromactl.migrate.delta import CarryOver, Changes, carried
from chromactl.migrate.passage import Passage
from chromactl.migrate.proof import Prove
from chromactl.migrate.report import Report
from chromactl.migrate.run import Run
from chromactl.migrate.work import Work
from chromactl.stores.base import Target


def carry_over(run: Run, work: Work, base_run: str, target: Target) -> Report:
    """Bring the changed pieces to what they are to be, prove them, and that nothing else has come or gone.

    Raises:
        DataDiffersError: too many records are rejected (nothing was changed), or the target does not give back
            what it was given.
        ChromactlError: it broke off; the same command goes on from there.
    """
    base = finished_run(run.config, base_run, {})
    live = {collection.key: collection for collection in target.collections()}
    if base is None or any(entry.replaces not in live for entry in work.plan.targets):
        state.forget(run.config, run.name)
        raise ChromactlError(
            f"what run {base_run} left behind is gone, so its changes cannot be carried over; "
            "run the same command again, it migrates as a whole then"
        )
    there = {entry.name: live[str(entry.replaces)] for entry in work.plan.targets}
    work.exported()
    run.go(work, "examine")
    run.refuse_rejects(work, target, [])
    base_passage = Passage(run.config.profile, base.plan)
    changes = Changes(work.passage, run.folder, base_passage, base.plan, base.folder)
    with run.resumable():
        folder = run.config.backup_dir / f"before-{run.name}"
        if changes.keep(work.plan, target, there, folder):
            run.report.backup = folder
    work.land = CarryOver(run.config, work.passage, run.folder, target, there, work.plan)
    work.land.changes = changes
    work.prove = Prove(work.passage, work.plan, run.folder, target, there)
    for step in ("import", "verify"):
        run.go(work, step)
        run.refuse_rejects(work, target, [])
    with run.resumable():
        run.conclude(work, work.prove, {}, there, [], target)
    run.report.carried = carried(run.folder)
    return run.complete(work)
