"""A dry run reads everything, writes nothing, and says what a real run would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command import Chromactl
from support.databases import Database
from support.records import Made, Record, menagerie, plain
from support.trees import tree

Pair = tuple[Database, Database]


def arguments(source: Database, target: str) -> list[str]:
    return ["migrate", "--source-url", source.url, "--target-url", target, "--database", source.name, "--dry-run"]


def test_it_touches_nothing_and_says_proceed(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, target = pair
    source.put(*menagerie(lists=True))
    before = source.counts()
    ended = chromactl(*arguments(source, target.url), "--profile", "identity", "--json")
    assert (ended.code, ended.err) == (0, "")
    report = ended.json
    assert (report["status"], report["advice"], report["changed"]) == ("dry-run", "PROCEED", True)
    assert source.counts() == before
    assert target.names() == []
    (log,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert str(log) == report["log_file"]


def test_its_lines_are_for_people(pair: Pair, chromactl: Chromactl) -> None:
    source, target = pair
    source.put(Made("pets", "l2", plain(30)))
    ended = chromactl(*arguments(source, target.url), "--profile", "identity")
    assert (ended.code, ended.out) == (0, "")
    assert "[DRY-RUN] Would import 30 chunks into 1 collections" in ended.err
    assert "[DRY-RUN] Recommendation: PROCEED" in ended.err


def test_changed_says_whether_a_real_run_would(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, target = pair
    source.put(Made("pets", "cosine", plain(30)))
    dry = [*arguments(source, target.url), "--profile", "identity", "--json"]
    real = [word for word in dry if word != "--dry-run"]
    assert chromactl(*dry).json["changed"] is True
    assert chromactl(*real).json["changed"] is True
    checkpoints = tree(tmp_path / "migration_checkpoints")
    assert chromactl(*dry).json["changed"] is False
    source.upsert("pets", *plain(1, prefix="new"))
    assert chromactl(*dry).json["changed"] is True
    assert tree(tmp_path / "migration_checkpoints") == checkpoints
    assert target.counts() == {"pets": 30}


def test_too_many_rejects_are_to_be_investigated(pair: Pair, chromactl: Chromactl) -> None:
    source, target = pair
    bad = [Record(one.id, one.embedding, one.document, None, {"line": -1}) for one in plain(10, 768)]
    source.put(Made("sergio_corpus", "cosine", [*bad, *plain(10, 768, prefix="good")]))
    ended = chromactl(*arguments(source, target.url), "--json")
    assert ended.code == 0, ended.err
    assert ended.json["advice"] == "INVESTIGATE"
    assert ended.json["rejects"]["by_reason"] == {"invalid_source_line": 10}
    assert target.names() == []


def test_targets_that_are_not_there_yet_stay_so(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(5)))
    for target in ("path:out", "snapshot:out", "out.json"):
        ended = chromactl(*arguments(source, target), "--profile", "identity", "--json")
        assert (ended.code, ended.json["changed"]) == (0, True), ended.err
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.json").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("url", ["snapshot:out", "out.json"])
def test_of_a_finished_file_it_says_what_a_real_run_would(
    pair: Pair, chromactl: Chromactl, tmp_path: Path, url: str
) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(5)))
    dry = [*arguments(source, url), "--profile", "identity", "--json"]
    real = [word for word in dry if word != "--dry-run"]
    assert chromactl(*real).code == 0
    before = tree(tmp_path / "migration_checkpoints")
    ended = chromactl(*dry)
    assert (ended.code, ended.json["changed"]) == (0, False), ended.err
    source.upsert("pets", *plain(1, prefix="new"))
    for command in (dry, real):
        ended = chromactl(*command)
        assert ended.code == 3
        assert "give a new name" in ended.complaint
        assert "--replace" not in ended.complaint
    source.delete("pets", "new00000")
    source.put(Made("late", "l2", plain(2)))
    for command in (dry, real):
        ended = chromactl(*command)
        assert (ended.code, "give a new name" in ended.complaint) == (3, True)
    assert tree(tmp_path / "migration_checkpoints") == before


def test_somebody_elses_file_is_refused_by_it_too(pair: Pair, chromactl: Chromactl, tmp_path: Path) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(5)))
    (tmp_path / "out.json").write_text("{}")
    ended = chromactl(*arguments(source, "out.json"), "--profile", "identity")
    assert ended.code == 3
    assert "give a new name" in ended.err


def test_a_directory_that_is_there_stays_byte_for_byte(
    pair: Pair, directories: dict[str, Path], chromactl: Chromactl
) -> None:
    source, _ = pair
    before = tree(directories["1.5.9"])
    place = ["--source-url", source.url, "--target-url", f"path:{directories['1.5.9']}", "--profile", "identity"]
    ended = chromactl("migrate", *place, "--dry-run", "--json")
    assert (ended.code, ended.json["changed"]) == (0, False), ended.err
    assert tree(directories["1.5.9"]) == before
