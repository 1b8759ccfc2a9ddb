"""Programs of the distribution that tests need and that nobody may have installed; they leave nothing running."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SECONDS = 300


def compose() -> list[str]:
    """The command of Docker Compose, 2 or 1; on Debian and its kin, as root, it is installed where there is none."""
    if shutil.which("docker") and _works(["docker", "compose", "version"]):
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _run(["apt-get", "--quiet=2", "--yes", "--no-install-recommends", "install", "docker-compose"])
    if shutil.which("docker-compose") is None:
        pytest.fail("these tests need Docker Compose; on Debian: apt-get install docker-compose", pytrace=False)
    return ["docker-compose"]


def nginx(folder: Path) -> str:
    """The path of an nginx; on Debian and its kin it is unpacked into the folder where there is none, not installed.

    Installing it would start it.
    """
    if (found := shutil.which("nginx")) is not None:
        return found
    if shutil.which("apt-get") is None:
        pytest.fail("these tests need nginx on PATH", pytrace=False)
    folder.mkdir()
    folder.chmod(0o777)  # apt-get downloads as a user of its own
    _run(["apt-get", "--quiet=2", "download", "nginx"], folder)
    (package,) = folder.glob("nginx_*.deb")
    _run(["dpkg-deb", "--extract", str(package), str(folder / "root")])
    return str(folder / "root/usr/sbin/nginx")


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 (fixed words)


def _run(command: list[str], folder: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(  # noqa: S603 (fixed words)
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.stderr[-300:].strip()}", pytrace=False)
