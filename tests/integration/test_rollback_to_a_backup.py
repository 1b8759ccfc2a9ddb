"""Going back to a backup, of whatever form, whatever is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.databases import Database, assert_holds
from support.migrations import in_snapshot
from support.records import Made, plain
from support.rollbacks import FORMER, NASTY, PETS, Place
from support.servers import chroma_server


@pytest.fixture
def backups(place: Place, tmp_path: Path) -> dict[str, str]:
    """The source's records as a snapshot, as a JSON file and as a directory."""
    found = {"snapshot": f"snapshot:{tmp_path}/backup", "json": f"{tmp_path}/backup.json"}
    for url in found.values():
        ended = place.chromactl(
            "migrate", "--source-url", place.source.url, "--database", place.source.name, "--target-url", url,
            "--profile", "identity", "--checkpoint-dir", "elsewhere",
        )  # fmt: skip
        assert ended.code == 0, ended.err
    with chroma_server(tmp_path / "directory") as server:
        Database(server).put(PETS, NASTY)
    return {**found, "directory": f"{tmp_path}/directory"}


@pytest.fixture
def default(tmp_path: Path) -> Iterator[Database]:
    """The default database of a new server."""
    with chroma_server(tmp_path / "new") as server:
        yield Database(server)


@pytest.mark.parametrize("kind", ["snapshot", "json", "directory"])
@pytest.mark.parametrize("there", ["nothing", "others"])
def test_a_backup_comes_back(place: Place, backups: dict[str, str], default: Database, kind: str, there: str) -> None:
    untouched = Made("untouched", "l2", plain(4))
    if there == "others":
        place.target.put(FORMER, untouched)
    if kind == "directory":  # of the database that directories have
        place.target = default
        default.put(*([FORMER, untouched] if there == "others" else []))
    options = ["--backup-path", backups[kind], "--restore-url", place.target.url, "--database", place.target.name]
    report = place.rolled_back(*options)
    assert report["status"] == "restored"
    assert {entry["way"] for entry in report["collections"].values()} == {"rewritten"}
    place.holds(PETS, NASTY, *([untouched] if there == "others" else []))
    assert place.target.metric("pets") == "cosine"
    if there == "others":
        assert_holds(in_snapshot(report["archive"])["pets"], FORMER.records, "l2")
    again = place.rolled_back(*options)
    assert (again["status"], again["changed"]) == ("unchanged", False)
    place.target.delete("pets", PETS.records[0].id)
    assert {name: entry["way"] for name, entry in place.rolled_back(*options)["collections"].items()} == {
        "nasty": "as_it_was",
        "pets": "rewritten",
    }
    place.holds(PETS, NASTY, *([untouched] if there == "others" else []))


def test_only_one_collection_of_a_backup_comes_back(place: Place, backups: dict[str, str]) -> None:
    place.rolled_back(
        "--backup-path", backups["snapshot"], "--restore-url", place.target.url, "--database", place.target.name,
        "--collection", "nasty",
    )  # fmt: skip
    place.holds(NASTY)


def test_the_runbooks_script_goes_back_to_a_backup(place: Place, backups: dict[str, str], tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "chromadb_rollback.py"
    done = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, script, "--backup-path", backups["snapshot"], "--restore-url", place.target.url,
         "--database", place.target.name, "--report-output", "rollback_report.md"],
        check=False, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place.holds(PETS, NASTY)
    assert "# Rollback report" in (tmp_path / "rollback_report.md").read_text(encoding="utf-8")
