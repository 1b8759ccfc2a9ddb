"""What all unit tests share: a clean environment, a folder of their own, the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support.store_contract")

from support.command import Chromactl, clean_environment, in_process  # noqa: E402 (after the line above)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with clean_environment(tmp_path):
        yield


@pytest.fixture
def chromactl(capfd: pytest.CaptureFixture[str]) -> Chromactl:
    return in_process(capfd)
