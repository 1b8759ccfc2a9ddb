"""The options of `chromactl rollback`, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from chromactl import __version__, location, logs
from chromactl.audit import audited
from chromactl.console import Console
from chromactl.errors import PreconditionError, UsageError
from chromactl.options import (
    access,
    database_option,
    folder,
    network,
    network_options,
    option,
    tenant_option,
    token_file,
)
from chromactl.rollback import runs
from chromactl.rollback.config import RollbackConfig
from chromactl.rollback.engine import rollback
from chromactl.rollback.report import RollbackReport

_FILE = click.Path(path_type=Path, readable=False, dir_okay=False, resolve_path=True)

_OPTIONS = [
    option("--restore-url", help="The database to put back: http://host:port, https://… or path:/dir."),
    option("--run", help="Undo this run of chromactl migrate."),
    option("--backup-path", help="Go back to this: a snapshot, a Chroma directory, or file.json."),
    option("--validation-report", type=_FILE, help="Undo the run that this report (.json or .md) has FAILED."),
    option("--collection", multiple=True, help="Only this collection; can be given more than once."),
    token_file("--restore-token-file", "the database"),
    tenant_option,
    database_option,
    network_options,
    option("--dry-run", is_flag=True, help="Look and check everything, change nothing, say what would be done."),
    option("--no-archive", is_flag=True, help="Do not keep what has to go as a snapshot first."),
    option("--report-output", default="rollback_report.md", show_default=True, type=_FILE, help="The report."),
    folder("--checkpoint-dir", "migration_checkpoints", "The migration's: what each run did."),
    folder("--backup-dir", "migration_backups", "The migration's: what was replaced; archives go there too."),
    folder("--log-dir", "migration_logs", "Logs."),
]


def rollback_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All options but those of how results are shown."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a validation report says of the new side."""

    url: str
    database: tuple[str, str]
    reason: str


def run(given: dict[str, Any], console: Console) -> RollbackReport:
    """Roll back as the options say, and write that into the audit log.

    Raises:
        UsageError: what to go back to is not said, or said twice.
    """
    if given["run"] is not None and given["backup_path"] is not None:
        raise UsageError("--run and --backup-path: give one of them, both say what to go back to")
    verdict = _read_verdict(given["validation_report"]) if given["validation_report"] is not None else None
    url, place, run_name = given["restore_url"], (given["tenant"], given["database"]), given["run"]
    if given["backup_path"] is None:
        if run_name is not None:
            past = runs.find(given["checkpoint_dir"], run_name)
        elif verdict is not None:
            past = runs.newest(given["checkpoint_dir"], verdict.url, verdict.database)
        else:
            raise UsageError("give --run, --backup-path or --validation-report: one of them says what to go back to")
        if url is not None and location.parse(url).text != past.target:
            raise UsageError(f"--restore-url {url}: run {past.name} wrote to {past.target}; leave the option out")
        url, place, run_name = past.target, past.target_database, past.name
    elif url is None and verdict is not None:
        url, place = verdict.url, verdict.database
    if url is None:
        raise UsageError("--restore-url is missing: the database to put back")
    config = RollbackConfig(
        target=access(url, "restore", given["restore_token_file"], *place, network(given)),
        checkpoint_dir=given["checkpoint_dir"],
        backup_dir=given["backup_dir"],
        report_output=given["report_output"],
        run=run_name,
        backup=None if given["backup_path"] is None else access(given["backup_path"], "backup", None, *place),
        collections=given["collection"],
        reason=verdict.reason if verdict is not None else "",
        archive=not given["no_archive"],
        dry_run=given["dry_run"],
    )
    log_file = logs.to_file(given["log_dir"], "rollback")
    console.line(f"chromactl {__version__} rollback: {config.target.location.text}")
    audit_file = given["audit_file"] or given["log_dir"] / "audit.jsonl"
    with audited(None if config.dry_run else audit_file, "rollback", config.target.location.text) as deed:
        deed.run = config.run
        report = rollback(config, console, log_file)
        deed.outcome, deed.changed = report.status, report.changed
    for line in report.lines():
        console.line(line)
    if report.report_file is not None:
        console.line(f"report: {report.report_file}")
    return report


def _read_verdict(path: Path) -> _Verdict:
    """What the report says; it has to say that going back is right."""
    path = path.with_suffix(".json")
    try:
        body = orjson.loads(path.read_bytes())
        triggered, reason = body["rollback_triggered"], body["rollback_reason"]
        new = body["new"]
        verdict = _Verdict(new["url"], (new["tenant"], new["database"]), str(reason or ""))
        status = body["overall_status"]
    except OSError as error:
        raise PreconditionError(f"{path}: this report cannot be read ({error.strerror}); check the path") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise PreconditionError(f"{path}: not a validation report of chromactl ({error!r})") from error
    if not triggered:
        raise PreconditionError(
            f"{path}: the verdict is {status} and asks for no rollback; nothing was changed; to go back all the same, "
            "give --run or --backup-path"
        )
    return verdict
