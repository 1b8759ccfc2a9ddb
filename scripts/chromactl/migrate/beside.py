"""Importing beside what is live: prove it there, then swap names."""

from __future__ import annotations

from dataclasses import replace

from chromactl.errors import DataDiffersError, PreconditionError
from chromactl.location import DATABASES
from chromactl.migrate import state
from chromactl.migrate.occupancy import Occupancy
from chromactl.migrate.plan import Plan
from chromactl.migrate.proof import Prove
from chromactl.migrate.report import Report
from chromactl.migrate.run import Run
from chromactl.migrate.state import CollectionState
from chromactl.migrate.steps import Land
from chromactl.migrate.work import Work
from chromactl.snapshot.create import create as create_snapshot
from chromactl.stores.base import Collection, Target
from chromactl.stores.names import staged_name


def import_beside(run: Run, work: Work, occupancy: Occupancy, target: Target) -> Report:
    """Bring everything into staged collections, prove it, and swap them in.

    Raises:
        DataDiffersError: as in `migrate`; the staged collections are removed again.
        ChromactlError: it broke off; the same command goes on from there.
    """
    plan = work.plan
    held: dict[str, CollectionState] = {}
    if not (run.phases.checkpoint.reached("verify") and run.config.target.location.kind in DATABASES):
        stepwise = run.config.strict_phases or any(entry.replaces for entry in plan.targets)
        if stepwise:
            run.go(work, "export", "examine")
            run.refuse_rejects(work, target, [])
            held = _held(run, work, occupancy)
            if len(held) == len(plan.targets):
                return _nothing_to_do(run, work, held)
        with run.resumable():
            pending = [entry for entry in plan.targets if entry.name not in held]
            _back_up(run, {entry.replaces for entry in pending} - {None}, target)
            staged = {entry.name: target.stage(entry.spec, run.name) for entry in pending}
            work.land = Land(run.config, work.passage, run.folder, target, staged, plan)
            work.land.forget_what_is_gone()
            work.prove = Prove(work.passage, plan, run.folder, target, staged)
        steps = [("import",), ("verify",)] if stepwise else [("export", "examine", "import", "verify")]
        for step in steps:
            run.go(work, *step)
            run.refuse_rejects(work, target, list(staged.values()))
        with run.resumable():
            run.conclude(work, work.prove, held, staged, list(staged.values()), target)
    with run.resumable():
        swapped = _staged_by_checkpoint(run, plan)
        if run.resumed:
            _refuse_losses(run, swapped, target)
        occupancy.refuse_newcomers([entry for entry in plan.targets if entry.name in swapped], swapped)
        run.report.kept = target.swap(list(swapped.values()), run.name)
    return run.complete(work)


def _held(run: Run, work: Work, occupancy: Occupancy) -> dict[str, CollectionState]:
    """What the target holds already as it should be; a refusal leaves no trace of this run."""
    try:
        held, rounding = occupancy.held(work.plan, work.passage, run.folder)
    except PreconditionError:
        state.forget(run.config, run.name)
        raise
    run.report.note_rounding(rounding)
    return held


def _staged_by_checkpoint(run: Run, plan: Plan) -> dict[str, Collection]:
    """What was imported and proven, found by its keys; what the target held already is in its place."""
    specs = {entry.name: entry.spec for entry in plan.targets}
    before = {entry.replaces for entry in plan.targets}
    return {
        entry.name: Collection(replace(specs[entry.name], name=staged_name(entry.name, run.name)), entry.target_key)
        for entry in run.phases.checkpoint.collections
        if entry.target_key is not None and entry.target_key not in before
    }


def _refuse_losses(run: Run, swapped: dict[str, Collection], target: Target) -> None:
    """Between the proof and now a server may have been put back to an older state; a file is still in our hands."""
    if run.config.target.location.kind not in DATABASES:
        return
    there = {collection.key: collection for collection in target.collections()}
    proven = {entry.name: entry.verified for entry in run.phases.checkpoint.collections}
    for name, collection in swapped.items():
        count = target.count(there[collection.key]) if collection.key in there else 0
        if count != proven[name]:
            for staged in swapped.values():
                target.discard(staged)
            state.forget(run.config, run.name)
            raise DataDiffersError(
                f"{run.config.target.location.text}: {name} was proven with {proven[name]:,} records and holds "
                f"{count:,} now; what was not live yet is removed; run the same command again, it begins anew"
            )


def _back_up(run: Run, replaced: set[str | None], target: Target) -> None:
    """Keep a verified snapshot of what is about to lose its name."""
    folder = run.config.backup_dir / f"before-{run.name}"
    losing = [collection for collection in target.collections() if collection.key in replaced]
    if losing and not folder.exists():
        create_snapshot(target, losing, folder)
        run.console.line(f"What {', '.join(entry.name for entry in losing)} held is kept in {folder}")
    if folder.exists():
        run.report.backup = folder


def _nothing_to_do(run: Run, work: Work, held: dict[str, CollectionState]) -> Report:
    """The target holds everything already, found by reading it: the next run compares with what this one has read."""
    run.phases.done("verify", sum(entry.verified for entry in held.values()), collections=tuple(held.values()))
    run.phases.done("complete", 0)
    run.describe(work, held)
    return run.unchanged(run.phases.written[-1], run.name)
