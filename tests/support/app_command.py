"""`app …` in this process: the exit code and what was printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from app.cli.main import main
from app.config import Settings
from support.ended import Ended
from support.loggers import loggers_as_they_were

App = Callable[..., Ended]


def app_in(
    folder: Path,
    variables: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> App:
    """The command line, in a folder and an environment with these settings alone."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["app", *arguments])
        capfd.readouterr()
        code = 0
        with loggers_as_they_were():
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run
