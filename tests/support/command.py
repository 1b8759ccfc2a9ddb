"""The command line in this process: what it printed, what it ended with."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from chromactl import cli
from support.ended import Ended

Chromactl = Callable[..., Ended]


def in_process(capfd: pytest.CaptureFixture[str]) -> Chromactl:
    """A function that runs a command line here; its streams are captured as file descriptors."""

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        try:
            code = cli.run([str(argument) for argument in arguments])
        finally:
            close_log_files()
        said = capfd.readouterr()
        return Ended(code, said.out, said.err)

    return run


def close_log_files() -> None:
    """Let go of the files that a run logs to; a process of its own does so by ending."""
    logger = logging.getLogger("chromactl")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def clean_environment(folder: os.PathLike[str]) -> Iterator[None]:
    """No option from the environment, and relative paths below the folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("CHROMACTL_"):
                patch.delenv(name)
        patch.chdir(folder)
        yield
