"""The options of `chromactl validate`, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from chromactl import __version__, logs
from chromactl.audit import audited
from chromactl.console import Console
from chromactl.embedding.options import embedder, embedding_options
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
from chromactl.schema import profile as profiles
from chromactl.validate.config import Thresholds, ValidateConfig
from chromactl.validate.engine import validate
from chromactl.validate.report import ValidationReport

_USUAL = Thresholds()
_SHARE = click.FloatRange(0, 1)


def _threshold(name: str, default: float, what: str, kind: click.FloatRange = _SHARE) -> Callable[..., Any]:
    return option(name, default=default, show_default=True, type=kind, help=what)


_OPTIONS = [
    option("--old-db-url", required=True, help="What was migrated: a database, a snapshot, or a migration's folder."),
    option("--new-db-url", required=True, help="Where it went; the same forms."),
    token_file("--old-token-file", "the old side"),
    token_file("--new-token-file", "the new side"),
    tenant_option,
    database_option,
    network_options,
    option("--new-tenant", help="Tenant of the new side, where it is not --tenant."),
    option("--new-database", help="Database of the new side, where it is not --database."),
    option("--profile", default="sergio", show_default=True, help="The migration's: sergio, identity, or a YAML file."),
    option("--collection", multiple=True, help="Only this collection of the old side; can be given more than once."),
    option("--rename", multiple=True, metavar="OLD=NEW", help="As in the migration; repeatable."),
    option(
        "--test-queries",
        type=click.Path(path_type=Path, readable=False),
        help="JSON: [{text or vector, collection, category}].",
    ),
    embedding_options,
    option(
        "--stored-queries",
        default=20,
        show_default=True,
        type=click.IntRange(0),
        help="Stored vectors of each collection to ask with.",
    ),
    option(
        "--output",
        default="validation_report.md",
        show_default=True,
        type=click.Path(path_type=Path, readable=False, dir_okay=False, resolve_path=True),
        help="The Markdown report; .json, .html and .offenders.jsonl are written beside it.",
    ),
    option("--strict", is_flag=True, help="End with exit code 4 for warnings too."),
    option("--workers", default=2, show_default=True, type=click.IntRange(1, 16), help="Requests to each side at once"),
    _threshold("--max-data-loss", _USUAL.max_data_loss, "Share of lost records that is called data loss."),
    _threshold("--divergence-warning", _USUAL.divergence_warning, "Mean divergence of answers that is a warning."),
    _threshold("--max-divergence", _USUAL.max_divergence, "Mean divergence above which validation fails."),
    _threshold("--query-divergence-warning", _USUAL.query_divergence_warning, "The same of one query: a warning."),
    _threshold("--limit-ms", _USUAL.limit_ms, "What p95 of the new side has to stay below.", click.FloatRange(0)),
    folder("--log-dir", "validation_logs", "Logs."),
]


def validate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All options but those of how results are shown."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


def run(given: dict[str, Any], console: Console, rename: Callable[[str], tuple[str, str]]) -> ValidationReport:
    """Validate as the options say, and write that into the audit log; `rename` reads one of them."""
    config = ValidateConfig(
        old=access(
            given["old_db_url"], "old", given["old_token_file"], given["tenant"], given["database"], network(given)
        ),
        new=access(
            given["new_db_url"],
            "new",
            given["new_token_file"],
            given["new_tenant"] or given["tenant"],
            given["new_database"] or given["database"],
            network(given),
        ),
        profile=profiles.load(given["profile"]),
        output=given["output"],
        log_dir=given["log_dir"],
        collections=given["collection"],
        renames=tuple(rename(text) for text in given["rename"]),
        test_queries=given["test_queries"],
        stored_queries=given["stored_queries"],
        workers=given["workers"],
        thresholds=Thresholds(**{field.name: given[field.name] for field in fields(Thresholds)}),
    )
    log_file = logs.to_file(config.log_dir, "validation")
    console.line(f"chromactl {__version__} validate: {config.old.location.text} → {config.new.location.text}")
    with audited(given["audit_file"] or config.log_dir / "audit.jsonl", "validate", config.new.location.text) as deed:
        with embedder(given) as embeds:
            report = validate(config, console, log_file, embeds)
        deed.outcome = report.verdict.status.value
    for line in report.lines():
        console.line(line)
    console.line(f"report: {report.files['markdown']}, {report.files['html']}, {report.files['json']}")
    return report
