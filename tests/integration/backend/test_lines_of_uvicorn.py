"""Every line of a service with several workers has the form that LOG_FORMAT names; those of uvicorn's parent too."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from support.killable import until
from support.ports import free_port
from support.process import children
from support.servers import CHECKOUT
from support.service import NO_DATABASE, service
from support.stack import settings_of

LOG_SETTINGS = CHECKOUT / "backend/uvicorn-logs.json"
TEXT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (INFO|WARNING|ERROR) +[\w.]+: .*")


@pytest.mark.parametrize("form", ["json", "text", "auto"])
def test_from_the_start_to_the_end(tmp_path: Path, form: str) -> None:
    """Also when a worker dies. Neither PostgreSQL nor Chroma is there, which is told of as well."""
    variables = settings_of(NO_DATABASE, free_port(), {"LOG_FORMAT": form, "UVICORN_LOG_CONFIG": str(LOG_SETTINGS)})
    with service(tmp_path, variables, workers=2) as api:
        workers = [
            pid for pid in children(api.process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        until(lambda: api.process.text().count("Application startup complete") == 2, "both are there")
        os.kill(workers[0], signal.SIGKILL)
        # killed while its parent waits for its answer, it is missed after that wait only
        until(lambda: f"Child process [{workers[0]}] died" in api.process.text(), "its death is told")
        until(lambda: api.process.text().count("Application startup complete") == 3, "another takes its place")
    lines = api.process.text().splitlines()
    assert any("Started parent process" in line for line in lines)
    assert any("Stopping parent process" in line for line in lines)
    assert any("PostgreSQL" in line for line in lines)
    if form == "text":
        assert [line for line in lines if not TEXT.fullmatch(line)] == []
    else:
        assert {frozenset(json.loads(line)) for line in lines} == {frozenset({"time", "level", "logger", "message"})}
