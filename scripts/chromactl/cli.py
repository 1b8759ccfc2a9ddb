"""The command line: parses, dispatches, and turns what comes back into lines, JSON and exit codes."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import orjson

from chromactl import __version__, interrupt, logs
from chromactl.audit import Deed, audited
from chromactl.audit import note as note_deed
from chromactl.console import Console
from chromactl.embedding.options import embedder, embedding_options
from chromactl.errors import ChromactlError, DataDiffersError, UsageError
from chromactl.location import NOWHERE
from chromactl.memory import keep_small
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.databases import migrate_all
from chromactl.migrate.engine import migrate as run_migration
from chromactl.options import (
    access,
    audit_option,
    database_option,
    folder,
    json_option,
    network,
    network_options,
    option,
    tenant_option,
    token_file,
)
from chromactl.profile_check import check_profile
from chromactl.rollback.command import rollback_options
from chromactl.rollback.command import run as run_rollback
from chromactl.sample import SIZES, Sample
from chromactl.sample import make as make_sample
from chromactl.schema import profile as profiles
from chromactl.smoke import LIMIT_MS, read_queries
from chromactl.smoke import smoke as ask_queries
from chromactl.stores.opening import open_source, open_target
from chromactl.validate.command import run as run_validation
from chromactl.validate.command import validate_options

log = logging.getLogger(__name__)

_DATABASE = "A database: http://host:port, https://…, path:/dir, snapshot:/dir or file.json."


def _show_log(context: click.Context, parameter: click.Parameter, verbose: bool) -> bool:
    if verbose:
        logs.to_stderr(verbose=True)
    return verbose


verbose_option = option(
    "--verbose", "-v", is_flag=True, callback=_show_log, help="Show the whole log, and tracebacks of errors."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Move, prove and keep ChromaDB data.

    Every option can be given as the environment variable that is shown with it.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 a precondition is not met, 4 the data differs, 5 locked by another
    run, 130 interrupted, 143 terminated.
    """


@cli.command(epilog="Example: chromactl migrate --source-url http://old:8000 --target-url http://new:8000 --dry-run")
@option("--source-url", required=True, help=f"Where the data is. {_DATABASE}")
@option("--target-url", help="Where it goes; the same forms. A dry run needs none.")
@token_file("--source-token-file", "the source")
@token_file("--target-token-file", "the target")
@tenant_option
@database_option
@network_options
@option("--target-tenant", help="Tenant of the target, where it is not --tenant.")
@option("--target-database", help="Database of the target, where it is not --database.")
@option("--all-databases", is_flag=True, help="Every database of the tenant, each into one of its name.")
@option("--profile", default="sergio", show_default=True, help="The schema: sergio, identity, or a YAML file.")
@option("--collection", multiple=True, help="Only this collection; can be given more than once.")
@option("--rename", multiple=True, metavar="OLD=NEW", help="What would be OLD in the target is to be NEW; repeatable.")
@option("--batch-size", default=500, show_default=True, type=click.IntRange(1), help="Records a write, 500 at most.")
@option("--workers", default=2, show_default=True, type=click.IntRange(1, 16), help="Requests to each side at once.")
@option("--strict-phases", is_flag=True, help="End each phase before the next; nothing is written before the gate.")
@option(
    "--max-reject-rate",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of records that may be rejected, 0 to 1.",
)
@option("--exact-recheck", is_flag=True, help="Finished run again: read all embeddings of servers before 1.x too.")
@option("--replace", is_flag=True, help="Take the place of target collections with other content; they are kept.")
@option("--dry-run", is_flag=True, help="Read and check everything, write nothing, say PROCEED or INVESTIGATE.")
@option(
    "--checkpoint-file",
    "--resume-from",
    type=click.Path(path_type=Path, readable=False),
    help="Resume from this checkpoint.",
)
@folder("--checkpoint-dir", "migration_checkpoints", "Checkpoints and exported shards.")
@folder("--log-dir", "migration_logs", "Logs and reports.")
@folder("--backup-dir", "migration_backups", "Snapshots of what is replaced.")
@audit_option
@verbose_option
@json_option
def migrate(as_json: bool, verbose: bool, **given: Any) -> int:
    """Move collections to another database, transformed, every record verified.

    A finished migration run again changes nothing; one that was cut off goes on where it was.
    """
    source = access(
        given["source_url"],
        "source",
        given["source_token_file"],
        given["tenant"],
        given["database"],
        network(given),
    )
    if given["target_url"] is None and not given["dry_run"]:
        raise UsageError("--target-url is missing: where the data goes; only a --dry-run can do without")
    target = access(
        given["target_url"] or NOWHERE,
        "target",
        given["target_token_file"],
        given["target_tenant"] or given["tenant"],
        given["target_database"] or given["database"],
        network(given),
    )
    config = MigrateConfig(
        source=source,
        target=target,
        profile=profiles.load(given["profile"]),
        checkpoint_dir=given["checkpoint_dir"],
        log_dir=given["log_dir"],
        backup_dir=given["backup_dir"],
        batch_size=given["batch_size"],
        workers=given["workers"],
        renames=tuple(_rename(text) for text in given["rename"]),
        strict_phases=given["strict_phases"],
        max_reject_rate=given["max_reject_rate"],
        collections=given["collection"],
        exact_recheck=given["exact_recheck"],
        replace=given["replace"],
        dry_run=given["dry_run"],
        checkpoint_file=given["checkpoint_file"],
    )
    console = Console(quiet=as_json and not verbose)
    log_file = logs.to_file(config.log_dir, "migration")
    console.line(f"chromactl {__version__} migrate: {source.location.text} → {target.location.text}")
    audit_file = given["audit_file"] or config.log_dir / "audit.jsonl"
    with audited(None if config.dry_run else audit_file, "migrate", target.location.text) as deed:
        report = (migrate_all if given["all_databases"] else run_migration)(config, console, log_file)
        body = report.as_json()
        deed.run, deed.outcome, deed.changed = body.get("run"), body["status"], body["changed"]
    for line in report.lines():
        console.line(line)
    console.line(f"log: {log_file}")
    _result(report.as_json(), as_json)
    return 0


@cli.command(epilog="Example: chromactl validate --old-db-url http://old:8000 --new-db-url http://new:8000")
@validate_options
@audit_option
@verbose_option
@json_option
def validate(as_json: bool, verbose: bool, **given: Any) -> int:
    """Compare two databases record by record: eight tests, one verdict, and reports.

    Ends with 4 if the verdict is FAILED (with --strict also WARNING). Nothing is written to either database.
    """
    report = run_validation(given, Console(quiet=as_json and not verbose), _rename)
    _result(report.as_json(), as_json)
    if complaint := report.complaint(strict=given["strict"]):
        raise DataDiffersError(complaint)
    return 0


@cli.command(epilog="Example: chromactl rollback --run 20260101T000000-abcdef --dry-run")
@rollback_options
@audit_option
@verbose_option
@json_option
def rollback(as_json: bool, verbose: bool, **given: Any) -> int:
    """Put a database back as it was before a migration, or as a backup has it; what has to go is archived first.

    What comes back is proven by digest. Going back twice changes nothing; where it is not safe, exit code 3.
    """
    report = run_rollback(given, Console(quiet=as_json and not verbose))
    _result(report.as_json(), as_json)
    return 0


def _rename(text: str) -> tuple[str, str]:
    old, separator, new = text.partition("=")
    if not (old and separator and new):
        raise UsageError(f"--rename {text}: give OLD=NEW, the name in the target and the one it is to have instead")
    return old, new


@cli.command()
@option("--url", required=True, help=_DATABASE)
@token_file("--token-file", "the database")
@tenant_option
@database_option
@network_options
@option("--chunks", default=sum(SIZES.values()), show_default=True, type=click.IntRange(1), help="Records in all.")
@option("--dim", default=768, show_default=True, type=click.IntRange(1, 4096), help="Floats an embedding.")
@option("--seed", default=7, show_default=True, type=int, help="What the data follows from.")
@verbose_option
@json_option
def sample(as_json: bool, verbose: bool, **given: Any) -> int:
    """Put the runbooks' legacy data set into an empty database: four collections with the older metadata.

    Run again, it finds the data there and changes nothing.
    """
    console = Console(quiet=as_json and not verbose)
    data = Sample(given["chunks"], given["dim"], given["seed"])
    where = access(given["url"], "", given["token_file"], given["tenant"], given["database"], network(given))
    with closing(open_target(where, "chromactl sample")) as target:
        changed = make_sample(data, target, console)
    for name, size in data.sizes().items():
        console.line(f"{name:24} {size:8,}")
    _result({"command": "sample", "changed": changed, "collections": data.sizes()}, as_json)
    return 0


@cli.command()
@option("--db-url", required=True, help=_DATABASE)
@token_file("--token-file", "the database")
@tenant_option
@database_option
@network_options
@option(
    "--test-queries",
    required=True,
    type=click.Path(path_type=Path, readable=False),
    help="JSON: [{text, collection, category}].",
)
@embedding_options
@option("--limit-ms", default=LIMIT_MS, show_default=True, type=click.FloatRange(0), help="What p95 has to stay below.")
@verbose_option
@json_option
def smoke(as_json: bool, verbose: bool, **given: Any) -> int:
    """Ask a database the operators' own queries; fails on an empty answer or a slow one."""
    console = Console(quiet=as_json and not verbose)
    queries = read_queries(given["test_queries"])
    where = access(given["db_url"], "", given["token_file"], given["tenant"], given["database"], network(given))
    with closing(open_source(where)) as store, embedder(given) as embeds:
        report = ask_queries(store, queries, given["limit_ms"], embeds)
    for answer in report.answers:
        console.line(f"{answer.results:3} results  {answer.query.text!r} in {answer.query.collection or 'all'}")
    console.line(f"latency p50 {report.percentile(50):.1f} ms, p95 {report.percentile(95):.1f} ms")
    _result(report.as_json(), as_json)
    if report.failures:
        raise ChromactlError(f"{report.url}: {'; '.join(report.failures)}")
    return 0


@cli.group()
def audit() -> None:
    """The audit log: who did what to which database, and how it ended."""


@audit.command("note")
@option(
    "--audit-file",
    required=True,
    type=click.Path(path_type=Path, resolve_path=True, readable=False, dir_okay=False),
    help="The log; a line is appended.",
)
@option("--command", required=True, help="What was done: cutover, say.")
@option("--target", required=True, help="To what: the URL of a database.")
@option("--outcome", required=True, help="How it ended, or that it has begun.")
@option("--run", help="The run of chromactl migrate that it is about.")
@option("--changed", is_flag=True, help="It changed something.")
@verbose_option
@json_option
def audit_note(as_json: bool, verbose: bool, **given: Any) -> int:
    """Write down what something other than chromactl did, as the playbooks do when they move the pointer."""
    deed = Deed(given["run"], given["outcome"], given["changed"])
    note_deed(given["audit_file"], given["command"], given["target"], deed)
    _result({"command": "audit note", "changed": True, "audit_file": str(given["audit_file"])}, as_json)
    return 0


@cli.group()
def profile() -> None:
    """Look at profiles: which there are, and what one would do to a database."""


@profile.command("check", epilog="Example: chromactl profile check own.yml --url http://old:8000")
@click.argument("file")
@option("--url", required=True, help=f"Where the data is. {_DATABASE}")
@token_file("--token-file", "the database")
@tenant_option
@database_option
@network_options
@option("--collection", multiple=True, help="Only this collection of the source; can be given more than once.")
@option(
    "--max-reject-rate",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of rejected records above which the advice is INVESTIGATE, 0 to 1.",
)
@verbose_option
@json_option
def profile_check(as_json: bool, verbose: bool, **given: Any) -> int:
    """Tell what each rule of the profile FILE (or a built-in one) would do, and for how many records.

    Reads every record but no embedding, and writes nothing. Ends with PROCEED or INVESTIGATE.
    """
    console = Console(quiet=as_json and not verbose)
    wanted = profiles.load(given["file"])
    where = access(given["url"], "", given["token_file"], given["tenant"], given["database"], network(given))
    with closing(open_source(where)) as store:
        report = check_profile(wanted, store, collections=given["collection"], max_reject_rate=given["max_reject_rate"])
    for line in report.lines():
        console.line(line)
    _result(report.as_json(), as_json)
    return 0


@profile.command("list")
@json_option
def profile_list(as_json: bool) -> int:
    """Name the built-in profiles and what they are."""
    console = Console(quiet=as_json)
    descriptions = {name: profiles.load(name).description for name in profiles.built_in()}
    for name, description in descriptions.items():
        console.line(f"{name:12} {description}")
    _result({"command": "profile list", "changed": False, "profiles": descriptions}, as_json)
    return 0


def _result(body: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    keep_small()
    interrupt.heed()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of this command line. What went wrong is one line on stderr."""
    logs.to_stderr(verbose=False)
    try:
        code = cli.main(arguments, prog_name="chromactl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _failed("interrupted; the same command goes on from here", interrupt.EXIT_CODES[signal.SIGINT])
    except interrupt.TerminatedError:
        return _failed("terminated; the same command goes on from here", interrupt.EXIT_CODES[signal.SIGTERM])
    except ChromactlError as error:
        log.debug("the error's origin", exc_info=error)
        return _failed(str(error), error.exit_code)
    except Exception as error:
        log.debug("the error's origin", exc_info=error)
        return _failed(f"unexpected {type(error).__name__}: {error}; this is a fault of chromactl (see --verbose)", 1)
    return code if isinstance(code, int) else 0


def _failed(message: str, code: int) -> int:
    message = " ".join(message.split())
    log.info("ended with exit code %d: %s", code, message)
    click.echo(f"chromactl: {message}", err=True)
    return code
