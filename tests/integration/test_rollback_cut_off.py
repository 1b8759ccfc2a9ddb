"""Rollbacks that are killed or cut off: the same command finishes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds, new_database
from support.migrations import Watched, watched
from support.process import running
from support.records import Made, Record, plain
from support.rollbacks import FORMER
from support.servers import Server

Begin = Callable[[Watched, Database, list[str]], tuple[list[str], dict[str, Made]]]
SMALL = (Made("pets", "cosine", plain(30, 8)), Made("new", "l2", plain(5)))


def undo_a_run(way: Watched, target: Database, kept: list[str]) -> tuple[list[str], dict[str, Made]]:
    """What has to be rolled back is made; the command's words, and what has to be there afterwards."""
    target.put(FORMER)
    run = way.report("--replace", "--target-database", target.name, *kept)["run"]
    return ["--run", run], {"pets": FORMER}


def undo_a_delta_run(way: Watched, target: Database, kept: list[str]) -> tuple[list[str], dict[str, Made]]:
    way.report("--target-database", target.name, *kept)
    before = {made.name: made.only(list(target.records(made.name).values())) for made in SMALL}
    way.source.delete("pets", "r00000", "r00001")
    way.source.upsert("pets", *plain(3, 8, prefix="late"), Record("r00002", SMALL[0].records[5].embedding, "other"))
    run = way.report("--target-database", target.name, *kept)["run"]
    return ["--run", run], before


def go_back_to_a_backup(way: Watched, target: Database, kept: list[str]) -> tuple[list[str], dict[str, Made]]:
    target.put(FORMER)
    backup = way.report("--replace", "--target-database", target.name, *kept)["backup"]
    place = ["--restore-url", way.target_url, "--database", target.name]
    return ["--backup-path", backup, *place], {"pets": FORMER, "new": SMALL[1]}


def changes(side: str, path: str, body: dict[str, Any]) -> bool:
    return side == "target" and not path.endswith(("/get", "/count", "/query")) and (bool(body) or "?" not in path)


@pytest.mark.parametrize("begin", [undo_a_run, undo_a_delta_run, go_back_to_a_backup])
def test_a_rollback_that_is_cut_off_at_any_request_is_finished_by_the_same_command(
    modern: Server, receiving: Server, chromactl: Chromactl, tmp_path: Path, begin: Begin
) -> None:
    """At each of its requests that may change something: SIGKILL, or (every second) a server that does not do it."""
    cuts = 0
    for moment in range(1, 60):
        how = "killed" if moment % 2 else "refused"
        folder = tmp_path / str(moment)
        folder.mkdir()
        source, target = new_database(modern), new_database(receiving)
        source.put(*SMALL)
        with watched(source, target, chromactl) as way:
            way.watch.counts = changes
            kept = [f"--{name}-dir={folder}/{name}" for name in ("checkpoint", "backup", "log")]
            words, wanted = begin(way, target, kept)
            back = ["rollback", *words, "--json", "--max-retries=0", f"--report-output={folder}/report.md", *kept]
            with running(folder, *back) as run:
                way.watch.begin(at=moment, act=run.strike if how == "killed" else lambda: None, drop=True)
                ended = run.gone()
            if way.watch.happened.is_set():
                assert ended.code in ((-9,) if how == "killed" else (0, 1, 3)), ended.err
                assert "Traceback" not in ended.err
                cuts += 1
                way.watch.begin()
                ended = chromactl(*back)
            assert ended.code == 0, ended.err
            assert not [name for name in target.names() if "--" in name and "--before-" not in name]
            live = {name for name in target.names() if "--" not in name}
            assert live == set(wanted)
            for name, made in wanted.items():
                assert_holds(target.records(name), made.records, made.space)
            assert not list(folder.glob("**/*.partial"))
            if not way.watch.counted or moment > cuts:
                break
    assert cuts >= 4
