"""A headless Chromium of the distribution's for tests, driven by Playwright; nothing is downloaded by it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from support.process import children, wait_until_gone

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_SECONDS = 300
_NEEDED = "these tests need a Chromium (chromium, chromium-browser or google-chrome on PATH)"


def chromium() -> str:
    """The path of a Chromium; on Debian and its kin, as root, it is installed where there is none."""
    if (found := _find()) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.fail(f"{_NEEDED}; install one, on Debian: apt-get install chromium", pytrace=False)
    said = _apt_get("install", "chromium") and (_apt_get("update") or _apt_get("install", "chromium"))
    if (found := _find()) is None:
        pytest.fail(f"{_NEEDED}, and apt-get could not install chromium: {said[-300:].strip()}", pytrace=False)
    return found


def _find() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


def _apt_get(*arguments: str) -> str:
    """What it complained of; empty if it did as asked."""
    settings = ["--quiet=2", "--yes", "--no-install-recommends", "--option=DPkg::Lock::Timeout=60"]
    command = ["apt-get", *settings, *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        ended = subprocess.run(  # noqa: S603 (fixed words)
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {INSTALL_SECONDS} s"
    return "" if ended.returncode == 0 else ended.stderr or "it failed"


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with its profile below the folder; neither it nor a process of it is left when the block ends."""
    path = chromium()
    folder.mkdir()
    before = set(children(os.getpid()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        with sync_playwright() as playwright:
            started = playwright.chromium.launch(
                executable_path=path, chromium_sandbox=os.geteuid() != 0, args=["--disable-gpu"]
            )
            driver = [pid for pid in children(os.getpid()) if pid not in before]
            family = [*driver, *(child for pid in driver for child in children(pid))]
            yield started
            started.close()
    wait_until_gone(family)
    left = [entry.name for entry in folder.iterdir()]
    assert not left, f"left behind: {', '.join(left)}"
