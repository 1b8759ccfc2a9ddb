"""The commands together, and how their errors end: one line, and a documented exit code."""

from __future__ import annotations

import logging
import sys

import click

from app import SERVICE, VERSION
from app.cli import key_file as key_file  # adds a command to `keys`
from app.cli.database import database
from app.cli.dead_letters import dead_letters
from app.cli.keys import keys
from app.cli.rebuild import rebuild, verify
from app.cli.replay import replay
from app.cli.worker import worker
from app.config import load_settings
from app.core.errors import DirectoryLocked, InvalidMoment, RebuildRunning, ServiceError, StartupError
from app.startup import log_to_stderr

log = logging.getLogger(__name__)

# As chromactl's: 1 failed, 2 usage, 3 a precondition is not met, 4 data differ, 5 locked, 130 interrupted.
FAILED, USAGE, PRECONDITION, LOCKED, INTERRUPTED = 1, 2, 3, 5, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name=SERVICE)
@click.pass_context
def app(context: click.Context) -> None:
    """Operate the service. Settings come from the environment and .env, as the service's own do."""
    context.obj = load_settings()
    log_to_stderr(context.obj)


for command in (database, dead_letters, keys, rebuild, replay, verify, worker):
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
    except Exception:  # whatever it says may quote what was remembered; where it happened does not
        log.exception("a mistake of %s; please report it", SERVICE)
        sys.exit(FAILED)


def _code(error: ServiceError) -> int:
    if isinstance(error, DirectoryLocked | RebuildRunning):
        return LOCKED
    if isinstance(error, InvalidMoment):
        return USAGE
    return PRECONDITION if isinstance(error, StartupError) else FAILED
