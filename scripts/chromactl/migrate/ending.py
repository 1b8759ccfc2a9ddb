"""What a run leaves behind: its report and its differences; and what is cleared away of runs before it."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson

from chromactl import files
from chromactl.compare import Comparison
from chromactl.digest import CollectionDigest
from chromactl.errors import DataDiffersError
from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.plan import set_aside
from chromactl.migrate.report import Report
from chromactl.stores.base import Target
from chromactl.stores.names import staged_name

NOTHING = CollectionDigest().hexdigest()
"""The digest of a collection without records."""


def clear_away(config: MigrateConfig, target: Target, *, keep: str) -> None:
    """Remove what earlier runs of this migration left unfinished, but for the run that is taken up again."""
    for checkpoint in state.unfinished(config):
        if checkpoint.run != keep:
            suffix = staged_name("", checkpoint.run)
            for collection in target.collections():
                if collection.name.endswith(suffix):
                    target.discard(collection)
            state.forget(config, checkpoint.run)


def prune(config: MigrateConfig, *, keep: str) -> None:
    """Remove the exported shards of earlier finished runs: the last one's are what a next run compares with."""
    for _, checkpoint in state.checkpoints(config, config.identity):
        folder = state.run_folder(config, checkpoint.run)
        if checkpoint.run != keep and folder.exists():
            set_aside(folder)
            for entry in folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)


def write_report(config: MigrateConfig, report: Report) -> None:
    """Keep the report beside the log."""
    report.report_file = config.log_dir / f"migration_{report.run}.json"
    files.write_atomically(report.report_file, orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))


def write_differences(config: MigrateConfig, run: str, comparisons: dict[str, Comparison]) -> Path:
    """Write every difference, a JSON object a line; the file."""
    path = config.log_dir / f"migration_{run}.differences.jsonl"
    lines = [
        orjson.dumps({"collection": name, "id": one.id, "field": one.field, "is": one.actual, "should": one.expected})
        for name, comparison in comparisons.items()
        for one in comparison.differences
    ]
    files.write_atomically(path, b"\n".join(lines) + b"\n")
    return path


def differ(
    config: MigrateConfig, comparisons: dict[str, Comparison], path: Path, into_live: str | None
) -> DataDiffersError:
    """The error for a target that does not give back what was written: beside live collections, or by a run into them.

    `into_live` names that run.
    """
    count = sum(len(comparison.differences) for comparison in comparisons.values())
    what = (
        "the imported collections are removed again, the live ones as they were"
        if into_live is None
        else f"they are in live collections; undo it with chromactl rollback --run {into_live}"
    )
    return DataDiffersError(
        f"{config.target.location.text}: {count:,} differences between what was written and what the target gives "
        f"back; {what}; see {path}"
    )
