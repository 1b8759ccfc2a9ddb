from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.config import Settings
from support.service import DIMENSION, Serve


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no .env file of the machine reaches a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Runs the application over the directories `rag` and `memory` of tmp_path, or over what the settings say."""

    @contextmanager
    def run(**settings: Any) -> Iterator[TestClient]:
        # imported here: the module makes an application from the environment
        from app.main import create_app

        made = Settings.model_validate(
            {
                "chroma_db_path": tmp_path / "memory",
                "chroma_persist_dir": tmp_path / "rag",
                "embedding_dimension": DIMENSION,
                **settings,
            }
        )
        with TestClient(create_app(made), raise_server_exceptions=False) as client:
            yield client

    return run
