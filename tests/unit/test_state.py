from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from chromactl.errors import LockedError, PreconditionError
from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.state import Checkpoint, CollectionState, PhaseResult, RunFolder
from chromactl.options import access
from chromactl.schema import profile
from chromactl.stores.names import before_name, is_work_collection, staged_name


def made(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.make()
    return folder


def config(folder: Path, source: str = "http://old:1", target: str = "http://new:2", **more: Any) -> MigrateConfig:
    settings: dict[str, Any] = {"profile": profile.load("identity")} | more
    return MigrateConfig(
        source=access(source, "source", None, "t", "d"),
        target=access(target, "target", None, "t", "d"),
        checkpoint_dir=folder,
        log_dir=folder,
        backup_dir=folder,
        **settings,
    )


def checkpoint(of: MigrateConfig, phase: str = "export", **more: Any) -> Checkpoint:
    return Checkpoint(state.new_run(), phase, of.fingerprint, **more)


# Checkpoints


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    written = checkpoint(
        config(tmp_path),
        "verify",
        phases=(PhaseResult("export", 1.5, 10),),
        collections=(CollectionState("pets", 10, "cosine", 1, 9, 9, "key", "digest"),),
    )
    path = state.write_checkpoint(config(tmp_path), written)
    assert re.fullmatch(r"checkpoint_\d{8}_\d{6}\.json", path.name)
    assert state.read_checkpoint(path) == written
    assert state.checkpoints(config(tmp_path)) == [(path, written)]


def test_checkpoints_of_the_same_second_keep_their_order(tmp_path: Path) -> None:
    of = config(tmp_path)
    written = [checkpoint(of) for _ in range(5)]
    paths = [state.write_checkpoint(of, entry) for entry in written]
    assert len(set(paths)) == 5
    assert [found for _, found in state.checkpoints(of)] == written


def test_only_checkpoints_of_this_very_migration_are_taken_up(tmp_path: Path) -> None:
    of = config(tmp_path)
    others = [
        config(tmp_path, source="http://other:1"),
        config(tmp_path, target="http://other:1"),
        config(tmp_path, profile=profile.load("sergio")),
        config(tmp_path, collections=("pets",)),
    ]
    for other in others:
        state.write_checkpoint(other, checkpoint(other))
    assert state.checkpoints(of) == []
    assert len(state.checkpoints(of, same_target=True)) == 3


def test_settings_that_change_no_data_may_change_between_tries(tmp_path: Path) -> None:
    of = config(tmp_path)
    state.write_checkpoint(of, checkpoint(of))
    assert len(state.checkpoints(replace(of, batch_size=7, max_reject_rate=0.5, replace=True))) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b'{"version": 1}', b'{"version": 2, "run": "x"}', b"\xff"])
def test_a_file_that_is_no_checkpoint_is_passed_over_or_refused_when_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint_20250101_000000.json"
    path.write_bytes(content)
    assert state.checkpoints(config(tmp_path)) == []
    with pytest.raises(PreconditionError, match=path.name) as refused:
        state.named_checkpoint(config(tmp_path), path)
    assert "\n" not in str(refused.value)


def test_a_named_checkpoint_is_found_in_its_folder_too(tmp_path: Path) -> None:
    of = config(tmp_path / "points")
    (tmp_path / "points").mkdir()
    path = state.write_checkpoint(of, checkpoint(of))
    assert state.named_checkpoint(of, Path(path.name)) == state.named_checkpoint(of, path)


def test_a_named_checkpoint_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"no-such\.json: cannot be read"):
        state.named_checkpoint(config(tmp_path), Path("no-such.json"))


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"source": "http://other:9"}, ("http://old:1", "http://other:9")),
        ({"target": "http://other:9"}, ("http://new:2", "http://other:9")),
        ({"profile": profile.load("sergio")}, ("identity", "sergio")),
        ({"collections": ("pets",)}, ("'all'", "'pets'")),
    ],
)
def test_a_checkpoint_of_another_migration_is_refused_with_both_values(
    tmp_path: Path, changes: dict[str, Any], values: tuple[str, str]
) -> None:
    of = config(tmp_path)
    path = state.write_checkpoint(of, checkpoint(of))
    with pytest.raises(PreconditionError) as refused:
        state.named_checkpoint(config(tmp_path, **changes), path)
    assert all(value in str(refused.value) for value in values)


def test_a_repeated_phase_counts_once_and_never_leads_back(tmp_path: Path) -> None:
    later = checkpoint(config(tmp_path), "import").after(PhaseResult("transform", 1.0, 5))
    assert later.phase == "import"
    later = later.after(PhaseResult("transform", 2.0, 5)).after(PhaseResult("verify", 1.0, 5))
    assert later.phase == "verify"
    assert [(phase.name, phase.seconds) for phase in later.phases] == [("transform", 2.0), ("verify", 1.0)]


def test_no_checkpoint_says_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMACTL_TARGET_TOKEN", "hunter2")
    of = config(tmp_path)
    assert b"hunter2" not in state.write_checkpoint(of, checkpoint(of)).read_bytes()


# The ledger


def test_the_ledger_gives_back_what_was_noted(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    folder.note("import", "pets", 0, records=5)
    folder.note("import", "pets", 2, records=6)
    folder.note("import", "other", 1, records=7)
    folder.note("export", "pets", 1)
    noted = RunFolder(tmp_path / "run").noted("import", "pets")
    assert {number: entry["records"] for number, entry in noted.items()} == {0: 5, 2: 6}


@pytest.mark.parametrize("tail", [b'{"step":"import","coll', b"\x00\x00\x00", b'{"step":"import"', b"{", b"\xc3"])
def test_a_torn_last_line_does_not_count_nor_spoil_the_next(tmp_path: Path, tail: bytes) -> None:
    folder = made(tmp_path)
    folder.note("import", "pets", 0, records=5)
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(tail)
    assert set(folder.noted("import", "pets")) == {0}
    folder.note("import", "pets", 1, records=6)
    folder.note("import", "pets", 2, records=7)
    assert set(folder.noted("import", "pets")) == {0, 1, 2}


def test_an_empty_ledger_is_no_ledger(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).noted("import", "pets") == {}


def test_a_removed_folder_is_gone(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    folder.note("import", "pets", 0)
    folder.remove()
    assert not (tmp_path / "run").exists()


# The lock


def test_only_one_run_holds_a_target(tmp_path: Path) -> None:
    of = config(tmp_path)
    with state.locked(of):
        with pytest.raises(LockedError, match="http://new:2: another migration to this target"), state.locked(of):
            raise AssertionError("both hold it")
        with state.locked(config(tmp_path, target="http://another:2")):
            pass
    with state.locked(of):
        pass


# Names


def test_work_collections_are_known_by_their_names() -> None:
    run = state.new_run()
    assert is_work_collection(staged_name("pets", run))
    assert is_work_collection(before_name("pets", run))
    assert not any(map(is_work_collection, ["pets", "pets--mine", "pets--before-lunch", "m2025"]))


def test_two_runs_never_have_one_name() -> None:
    assert len({state.new_run() for _ in range(200)}) == 200


def test_checkpoints_are_readable_json(tmp_path: Path) -> None:
    path = state.write_checkpoint(config(tmp_path), checkpoint(config(tmp_path)))
    assert orjson.loads(path.read_bytes())["version"] == 1
