"""The runbooks' own commands, through a shell as an operator types them: only addresses and paths differ.

What they are taken from: requirements 002 (deployment checklist) and 004 (migration workflow), named at each test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from support.databases import Database, assert_holds
from support.ended import Ended
from support.forwarder import forwarder
from support.moments import Watch
from support.records import Made, plain
from support.servers import CHECKOUT, chroma_server

SCRIPT = CHECKOUT / "scripts" / "chromadb_migration.py"
CHUNKS = 1300
COLLECTIONS = ["sergio_corpus", "sergio_humor", "sergio_personality", "sergio_rhetorical"]


@dataclass
class Site:
    """An old and a new server, and a folder in which an operator works."""

    old: Database
    new: Database
    folder: Path

    def shell(self, commands: str) -> Ended:
        """What bash makes of these lines. `python`, `$old` and `$new` are what they are called here."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        python = programs / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CHROMACTL_")}
        environment |= {"PATH": f"{programs}:{environment['PATH']}", "old": self.old.url, "new": self.new.url}
        done = subprocess.run(  # noqa: S603 (the tests' own commands)
            ["/bin/bash", "-c", commands],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def migrate(self, options: str) -> Ended:
        return self.shell(f"python {SCRIPT} {options}")

    @property
    def checkpoints(self) -> dict[str, str]:
        """The newest checkpoint's file name of each phase."""
        paths = sorted(self.folder.glob("migration_checkpoints/checkpoint_*.json"))
        return {orjson.loads(path.read_bytes())["phase"]: path.name for path in paths}

    @property
    def log(self) -> str:
        """All logs."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("migration_logs/migration_*.log")))

    def arrived(self) -> bool:
        return self.new.counts() == self.old.counts() and sum(self.new.counts().values()) == CHUNKS


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A server with the runbooks' collections in the legacy form; it is only ever read."""
    with chroma_server(tmp_path_factory.mktemp("old") / "data", version="0.6.3") as server:
        made = subprocess.run(  # noqa: S603 (the tests' own command)
            [sys.executable, "-m", "chromactl", "sample", "--url", server.url, "--chunks", str(CHUNKS), "--dim", "768"],
            check=False,
            capture_output=True,
        )
        assert made.returncode == 0, made.stderr
        yield Database(server)


@pytest.fixture
def site(old: Database, tmp_path: Path) -> Iterator[Site]:
    with chroma_server(tmp_path / "new") as server:
        folder = tmp_path / "infrafabric"
        folder.mkdir()
        yield Site(old, Database(server), folder)


def test_the_dry_run_of_the_checklist(site: Site) -> None:
    """002: dry run with verbose logging, and what is looked for in its log."""
    ended = site.migrate(
        """ \\
        --source-url $old \\
        --target-url $new \\
        --batch-size 100 \\
        --dry-run \\
        --verbose"""
    )
    assert ended.code == 0, ended.err
    assert "Total chunks to migrate: 1,300" in site.log
    for name, count in site.old.counts().items():
        assert f"Transformed {count:,} chunks of {name}" in site.log
    assert "Validation passed (100.00% success rate)" in site.log
    assert "[DRY-RUN] Would import 1,300 chunks" in site.log
    assert "Recommendation: PROCEED" in site.log
    assert site.new.names() == []
    assert "Traceback" not in ended.err


def test_the_dry_run_that_verifies_the_source_needs_no_target(site: Site) -> None:
    """004: `--source-url http://old:8000 --dry-run` alone; a real run has to be told where to."""
    ended = site.migrate("--source-url $old --dry-run")
    assert ended.code == 0, ended.err
    assert "Validation passed (100.00% success rate)" in ended.err
    assert "[DRY-RUN] Would import 1,300 chunks into 4 collections" in ended.err
    assert [path.name for path in site.folder.iterdir() if path.name != "bin"] == ["migration_logs"]
    ended = site.migrate("--source-url $old")
    assert ended.code == 2
    assert "--target-url is missing" in ended.err


def test_the_issues_are_found_in_the_log(site: Site, tmp_path: Path) -> None:
    """002: grep "Issues found:", "missing_" and "invalid_" in migration_*.log."""
    with chroma_server(tmp_path / "flawed") as server:
        flawed = Database(server)
        rows = plain(100, 768)
        wrong = [replace(rows[3], metadata={"line": -1}), replace(rows[4], metadata={"line": "x"})]
        flawed.put(Made("sergio_corpus", "cosine", [*rows[:3], *wrong, *rows[5:]]))
        ended = site.migrate(f"--source-url {flawed.url} --target-url $new --dry-run")
    assert ended.code == 0, ended.err
    for words in ("Issues found:", "invalid_"):
        found = site.shell(f'grep "{words}" {site.folder}/migration_logs/migration_*.log')
        assert found.code == 0, words
        assert "invalid_source_line 2" in found.out


def test_the_production_run_of_the_checklist(site: Site) -> None:
    """002: --batch-size 500 --verbose 2>&1 | tee; the phase lines; the batch lines."""
    (site.folder / "migration_logs").mkdir()
    ended = site.shell(
        f"""set -o pipefail
        python {SCRIPT} \\
        --source-url $old \\
        --target-url $new \\
        --batch-size 500 \\
        --verbose \\
        2>&1 | tee {site.folder}/migration_logs/production_run.log"""
    )
    assert (ended.code, ended.err) == (0, ""), ended.out
    said = (site.folder / "migration_logs" / "production_run.log").read_text()
    assert said == ended.out
    for text in (said, site.log):
        assert "✓ Phase 1 Complete: 1,300 chunks saved" in text
        assert "✓ Phase 2 Complete: 1,300 chunks classified" in text
        assert "Validation passed (100.00% success rate)" in text
        assert "Loaded 1,300 chunks into 4 collections" in text
        assert re.search(r"batch 1/\d+", text)
    assert site.arrived()
    watched = site.shell(f"tail -30 {site.folder}/migration_logs/migration_*.log")
    assert "TOTAL" in watched.out


def test_the_migration_of_the_workflow_and_its_checkpoint_files(site: Site) -> None:
    """004: --batch-size 100 --verbose; a checkpoint for each phase; `cat … | tail -1`; grep for errors."""
    ended = site.migrate("--source-url $old --target-url $new --batch-size 100 --verbose")
    assert ended.code == 0, ended.err
    assert site.arrived()
    assert list(site.checkpoints) == ["preflight", "export", "transform", "validate", "import", "verify", "complete"]
    shown = site.shell("cat migration_checkpoints/checkpoint_*.json | tail -1")
    assert shown.out.strip().endswith("}")
    grepped = site.shell('grep -i "error\\|failed" migration_logs/migration_*.log')
    assert (grepped.code, grepped.out) == (1, "")


@pytest.mark.parametrize("option", ["--checkpoint-file", "--resume-from"])
def test_an_interrupted_migration_is_resumed_from_its_checkpoint(site: Site, option: str) -> None:
    """004: `--checkpoint-file checkpoint_….json` and `--resume-from checkpoint_….json`."""
    watch = Watch(counts=lambda side, path, body: path.endswith("/add"))
    with forwarder(site.new.url, guard=watch.guard("target")) as between:
        process = subprocess.Popen(  # noqa: S603 (the tests' own command)
            [sys.executable, SCRIPT, "--source-url", site.old.url, "--target-url", between.url],
            cwd=site.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        watch.begin(at=3, act=process.kill)
        assert process.wait(60) == -signal.SIGKILL
        newest = list(site.checkpoints.values())[-1]
        ended = site.shell(
            f"""python {SCRIPT} \\
            --source-url $old \\
            --target-url {between.url} \\
            {option} {newest}"""
        )
    assert ended.code == 0, ended.err
    assert "Resuming run" in ended.err
    assert "Reused: export of" in ended.err
    assert site.arrived()


def test_after_lost_connectivity_the_same_command_uses_the_last_checkpoint_and_doubles_nothing(site: Site) -> None:
    """002: "Restart migration (will use last checkpoint)"; 004: "Restart migration with smaller batch size"."""
    watch = Watch(counts=lambda side, path, body: path.endswith("/add"))
    watch.begin(at=3, act=site.new.server.kill, drop=True)
    with forwarder(site.new.url, guard=watch.guard("target")) as between:
        command = f"python {SCRIPT} --source-url $old --target-url {between.url} --max-retries 0"
        lost = site.shell(command)
        assert (lost.code, watch.happened.is_set()) == (1, True), lost.err
        with chroma_server(site.new.server.path, port=site.new.server.port) as server:
            resumed = site.shell(command)
            assert resumed.code == 0, resumed.err
            assert "Resuming run" in resumed.err
            again = site.shell(f"{command} --batch-size 50")
            assert again.code == 0, again.err
            assert "nothing to do" in again.err
            assert Site(site.old, Database(server), site.folder).arrived()


@pytest.mark.parametrize(
    "command",
    [
        "python $script --batch-size 500 --source-url $old --target-url $new",
        "export CHROMACTL_SOURCE_URL=$old CHROMACTL_TARGET_URL=$new; python $script --workers 4 --batch-size 100",
    ],
)
def test_the_faster_ways(site: Site, command: str) -> None:
    """004: performance optimization; the second names no address, which comes from the environment then."""
    ended = site.shell(f"script={SCRIPT}; {command}")
    assert ended.code == 0, ended.err
    assert site.arrived()


def test_the_backup_of_the_target_and_its_restore(site: Site) -> None:
    """002: the backup as written has --dry-run and writes nothing (docs/runbooks.md); then as it has to be."""
    mine = [Made("own_notes", "ip", plain(30)), Made("sergio_humor", "cosine", plain(20, 768))]
    site.new.put(*mine)
    file = site.folder / "migration_backups" / "target_backup.json"
    written = site.shell(
        f"""python {SCRIPT} \\
        --source-url $new \\
        --target-url {file} \\
        --dry-run"""
    )
    assert written.code == 0, written.err
    assert "left alone (not named by the profile): own_notes" in written.err
    assert not file.parent.exists()
    made = site.migrate(f"--source-url $new --target-url {file} --profile identity")
    assert made.code == 0, made.err
    content = file.read_bytes()
    for name in site.new.names():
        site.new.drop(name)
    restored = site.migrate(f"--source-url {file} --target-url $new --profile identity")
    assert restored.code == 0, restored.err
    assert site.new.names() == ["own_notes", "sergio_humor"]
    for collection in mine:
        assert_holds(site.new.records(collection.name), collection.records, collection.space)
    assert file.read_bytes() == content
    again = site.migrate(f"--source-url $new --target-url {file} --profile identity")
    assert (again.code, file.read_bytes()) == (0, content), again.err


def test_the_page_on_the_runbooks_says_what_their_backup_command_needs() -> None:
    (row,) = [line for line in (CHECKOUT / "docs" / "runbooks.md").read_text().splitlines() if "target_backup" in line]
    assert "--dry-run" in row
    assert "without" in row
    assert "--profile identity" in row
