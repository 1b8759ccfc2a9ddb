"""The application of this process's environment: `uvicorn app.main:app`."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from app import SERVICE
from app.application import create_app
from app.config import load_settings
from app.core.errors import StartupError
from app.startup import log_to_stderr

# uvicorn's code for "failed before it served": with --workers it then ends instead of trying for ever.
STARTUP_FAILED = 3


def _app_from_environment() -> FastAPI:
    try:
        settings = load_settings()
        log_to_stderr(settings)
        return create_app(settings)
    except StartupError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        sys.exit(STARTUP_FAILED)


app = _app_from_environment()
