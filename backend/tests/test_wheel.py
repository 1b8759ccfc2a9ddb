"""What is installed on hosts: every file of the package, the migrations among them, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

BACKEND = Path(__file__).parents[1]


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    subprocess.run(  # noqa: S603 (fixed words)
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(BACKEND)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("chroma_stack_api-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "app"],  # noqa: S607
        cwd=BACKEND,
        check=True,
        capture_output=True,
        text=True,
    )
    assert held == {name for name in listed.stdout.splitlines() if (BACKEND / name).is_file()}
    assert "app/core/database/migrations/versions/0001_memories_and_outbox.py" in held
    assert "app/core/database/migrations/env.py" in held
