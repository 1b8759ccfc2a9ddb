from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from app.config import Settings
from support.service import Serve, in_process


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no .env file of the machine reaches a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """`support.service.in_process` over tmp_path."""
    return partial(in_process, tmp_path)
