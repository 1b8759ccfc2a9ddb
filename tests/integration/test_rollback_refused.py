"""Rollbacks that are refused: exit code 3, and nothing touched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from chromactl import location
from chromactl.lock import locked
from chromactl.stores.opening import Access
from support.databases import assert_holds
from support.records import Made, plain
from support.rollbacks import FORMER, NASTY, PETS, Place


def replaced(place: Place) -> dict[str, Any]:
    place.target.put(FORMER)
    return place.migrate("--replace")


def refused(place: Place, *options: object) -> str:
    before = place.state()
    ended = place.rollback(*options)
    assert ended.code == 3, ended.err
    assert place.state() == before
    assert not list(Path("migration_backups").glob("failed-*"))
    assert "nothing was changed" in ended.complaint or "check" in ended.complaint
    return ended.complaint


def test_refused_where_the_kept_collection_was_pruned(place: Place) -> None:
    migrated = replaced(place)
    place.target.drop(migrated["kept"]["pets"])
    words = refused(place, "--run", migrated["run"])
    assert f"--backup-path {migrated['backup']} writes it anew" in words
    place.rolled_back(
        "--backup-path", migrated["backup"], "--restore-url", place.target.url, "--database", place.target.name
    )
    assert_holds(place.target.records("pets"), FORMER.records, "l2")


def test_refused_where_the_kept_collection_was_changed(place: Place) -> None:
    migrated = replaced(place)
    place.target.delete(migrated["kept"]["pets"], FORMER.records[0].id)
    assert "is not what its snapshot says it was (89 records, 90 then)" in refused(place, "--run", migrated["run"])


def test_refused_where_the_snapshot_is_damaged(place: Place) -> None:
    migrated = replaced(place)
    (shard, *_) = sorted(Path(migrated["backup"]).glob("pets/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    for options in (
        ["--run", migrated["run"]],
        ["--backup-path", migrated["backup"], "--restore-url", place.target.url, "--database", place.target.name],
    ):
        before = place.state()
        ended = place.rollback(*options)
        assert ended.code == 3, ended.err
        assert str(shard) in ended.complaint
        assert place.state() == before


def test_refused_where_the_snapshot_is_gone(place: Place) -> None:
    migrated = replaced(place)
    shutil.rmtree(migrated["backup"])
    assert "nothing proves what pets was" in refused(place, "--run", migrated["run"])


def test_refused_where_somebody_replaced_the_collection_since(place: Place) -> None:
    migrated = replaced(place)
    place.target.drop("pets")
    place.target.put(Made("pets", "l2", plain(3)))
    assert "is not what run" in refused(place, "--run", migrated["run"])


def test_refused_where_a_later_run_replaced_it(place: Place) -> None:
    first = place.migrate()["run"]
    imported = place.target.records("pets")
    place.source.drop("pets")
    place.source.put(Made("pets", "cosine", plain(5, 16, seed=9)))
    second = place.migrate("--batch-size", "50")
    words = refused(place, "--run", first)
    assert f"undo that one first (--run {second['run']})" in words
    place.rolled_back("--run", second["run"])
    assert_holds(place.target.records("pets"), imported.values(), "cosine")
    place.rolled_back("--run", first)
    assert [name for name in place.target.names() if "--before-" not in name] == []


def test_refused_unknown_runs_and_strange_backups(place: Place, tmp_path: Path) -> None:
    run = place.migrate()["run"]
    assert f"it knows {run}" in refused(place, "--run", "20200101T000000-abcdef")
    where = ["--restore-url", place.target.url, "--database", place.target.name]
    (tmp_path / "empty").mkdir()
    ended = place.rollback("--backup-path", tmp_path / "empty", *where)
    assert ended.code == 3
    for wrong, words in (
        ([], "one of them says what to go back to"),
        (["--run", run, "--backup-path", "x.json"], "give one of them"),
        (["--backup-path", "x.json"], "--restore-url is missing"),
        (["--run", run, "--restore-url", "http://127.0.0.1:1"], "wrote to"),
        (["--run", run, "--collection", "none"], "has none of this name"),
        (["--backup-path", "x.json", "--restore-url", "snapshot:x"], "never changed once it is complete"),
    ):
        ended = place.rollback(*wrong)
        assert ended.code == 2, ended.err
        assert words in ended.complaint
    place.holds(PETS, NASTY)


def test_refused_to_take_the_backup_of_a_delta_for_all_there_was(place: Place) -> None:
    place.migrate()
    place.source.delete("pets", PETS.records[0].id)
    delta = place.migrate()
    words = refused(
        place, "--backup-path", delta["backup"], "--restore-url", place.target.url, "--database", place.target.name
    )
    assert f"--run {delta['run']}" in words


def test_refused_while_another_chromactl_changes_the_database(place: Place) -> None:
    run = place.migrate()["run"]
    with locked(Access(location.parse(place.target.url), "restore", database=place.target.name)):
        ended = place.rollback("--run", run)
    assert ended.code == 5
    assert "another chromactl is changing this database" in ended.complaint
    place.holds(PETS, NASTY)
