"""The commands together, and how their errors end: one line, and a documented exit code."""

from __future__ import annotations

import importlib
import logging
import os
import sys

import click

from app import SERVICE, VERSION, logs
from app.config import load_settings
from app.core.errors import DirectoryLocked, InvalidMoment, RebuildRunning, ServiceError, StartupError

log = logging.getLogger(__name__)

# As chromactl's: 1 failed, 2 usage, 3 a precondition is not met, 4 data differ, 5 locked, 130 interrupted.
FAILED, USAGE, PRECONDITION, LOCKED, INTERRUPTED = 1, 2, 3, 5, 130
# Each is imported when it is called: what indexes takes seconds to import, and `app keys` need not wait for it.
_COMMANDS = {
    "database": "app.cli.database:database",
    "dead-letters": "app.cli.dead_letters:dead_letters",
    "keys": "app.cli.key_file:keys",  # the module that completes the group
    "rebuild": "app.cli.rebuild:rebuild",
    "replay": "app.cli.replay:replay",
    "verify": "app.cli.rebuild:verify",
    "worker": "app.cli.worker:worker",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 (our own table)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name=SERVICE)
@click.pass_context
def app(context: click.Context) -> None:
    """Operate the service. Settings come from the environment and .env, as the service's own do."""
    context.obj = load_settings()
    logs.configure(context.obj.log_level, context.obj.log_format)


def main() -> None:
    """The console script."""
    # The API's workers add up what lies there. What a command or an index worker counts is not theirs.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
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
    except Exception:  # what it says may quote what was remembered; where it happened does not
        log.exception("a mistake of %s; please report it", SERVICE)
        sys.exit(FAILED)


def _code(error: ServiceError) -> int:
    if isinstance(error, DirectoryLocked | RebuildRunning):
        return LOCKED
    if isinstance(error, InvalidMoment):
        return USAGE
    return PRECONDITION if isinstance(error, StartupError) else FAILED
