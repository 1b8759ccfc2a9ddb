"""The launcher that stands before every process under supervisord."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

LAUNCHER = Path(__file__).resolve().parents[2] / "roles/process/files/launch.py"


def launched(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-I", str(LAUNCHER), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_secrets_come_from_the_file_and_the_folder_is_empty(tmp_path: Path) -> None:
    environment = tmp_path / "env"
    environment.write_text("# a comment\n\nNAME=two words = one value\n")
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/old").touch()
    (folder / "old").touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (folder / "link").symlink_to(kept)
    code, out, err = ended(launched("TERM", environment, folder, "sh", "-c", f'echo "$NAME"; ls {folder}'))
    assert (code, out, err) == (0, "two words = one value\n", "")
    assert (kept / "file").exists()


def test_it_ends_as_the_command_does() -> None:
    assert ended(launched("TERM", "-", "-", "sh", "-c", "exit 7"))[0] == 7


def test_what_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    for words in (("-", "-", "no-such-program"), ("-", tmp_path / "none", "true"), (tmp_path / "none", "-", "true")):
        code, out, err = ended(launched("TERM", *words))
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "No such file or directory" in err


def test_a_signal_is_passed_on() -> None:
    process = launched(
        "INT", "-", "-", "sh", "-c", "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (3, "stopped\n")
