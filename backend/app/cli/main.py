"""The commands together, and how their errors end: one line, and a documented exit code."""

from __future__ import annotations

import sys

import click

from app import SERVICE, VERSION
from app.cli.database import database
from app.cli.dead_letters import dead_letters
from app.cli.keys import keys
from app.cli.replay import replay
from app.cli.worker import worker
from app.config import load_settings
from app.core.errors import DirectoryLocked, InvalidMoment, ServiceError, StartupError
from app.startup import log_to_stderr

# As chromactl's: 1 failed, 2 usage, 3 a precondition is not met, 5 somebody else has it, 130 interrupted.
FAILED, USAGE, PRECONDITION, LOCKED, INTERRUPTED = 1, 2, 3, 5, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name=SERVICE)
@click.pass_context
def app(context: click.Context) -> None:
    """Operate the service. Settings come from the environment and .env, as the service's own do."""
    context.obj = load_settings()
    log_to_stderr(context.obj.log_level)


for command in (database, dead_letters, keys, replay, worker):
    app.add_command(command)


def main() -> None:
    """The console script."""
    try:
        app.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except ServiceError as error:
        click.echo(f"{SERVICE}: {error}", err=True)
        sys.exit(_code(error))


def _code(error: ServiceError) -> int:
    if isinstance(error, DirectoryLocked):
        return LOCKED
    if isinstance(error, InvalidMoment):
        return USAGE
    return PRECONDITION if isinstance(error, StartupError) else FAILED
