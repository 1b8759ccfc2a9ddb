"""The audit log: what others did is written down like what chromactl did."""

from __future__ import annotations

import stat
from pathlib import Path

import orjson

from support.command import Chromactl

NOTE = ["audit", "note", "--command", "cutover", "--target", "http://new:8000"]


def test_a_note_is_one_line_more(chromactl: Chromactl, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "audit.jsonl"
    for more in (["--outcome", "begun"], ["--outcome", "complete", "--changed", "--run", "20260101T000000-abcdef"]):
        ended = chromactl(*NOTE, "--audit-file", log, *more, "--json")
        assert (ended.code, ended.err) == (0, "")
        assert ended.json == {"command": "audit note", "changed": True, "audit_file": str(log)}
    first, second = map(orjson.loads, log.read_bytes().splitlines())
    assert first["outcome"] == "begun"
    assert {key: second[key] for key in ("command", "target", "run", "outcome", "changed")} == {
        "command": "cutover",
        "target": "http://new:8000",
        "run": "20260101T000000-abcdef",
        "outcome": "complete",
        "changed": True,
    }
    assert {"time", "who", "host", "pid"} <= second.keys()


def test_the_log_is_closed_to_others(chromactl: Chromactl, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    assert chromactl(*NOTE, "--audit-file", log, "--outcome", "complete").code == 0
    assert stat.S_IMODE(log.stat().st_mode) & 0o007 == 0


def test_a_note_that_cannot_be_written_is_refused(chromactl: Chromactl, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ended = chromactl(*NOTE, "--audit-file", tmp_path / "file" / "audit.jsonl", "--outcome", "complete")
    assert ended.code == 3
