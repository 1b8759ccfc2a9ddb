from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from chromactl.errors import PreconditionError
from chromactl.migrate import state
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.state import Checkpoint, CollectionState, PhaseResult
from chromactl.options import access
from chromactl.schema import profile
from chromactl.stores.names import before_name, is_work_collection, staged_name


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
        collections=(CollectionState("pets", ("cats", "dogs"), 10, "cosine", 1, 9, 9, "key", "digest"),),
    )
    path = state.write_checkpoint(config(tmp_path), written)
    assert re.fullmatch(r"checkpoint_\d{8}_\d{6}\.json", path.name)
    assert state.read_checkpoint(path) == written
    assert state.checkpoints(config(tmp_path), ()) == [(path, written)]


def test_checkpoints_of_the_same_second_keep_their_order(tmp_path: Path) -> None:
    of = config(tmp_path)
    written = [checkpoint(of) for _ in range(5)]
    paths = [state.write_checkpoint(of, entry) for entry in written]
    assert len(set(paths)) == 5
    assert [found for _, found in state.checkpoints(of, ())] == written


def test_only_checkpoints_of_this_very_migration_are_taken_up(tmp_path: Path) -> None:
    of = config(tmp_path)
    others = [
        config(tmp_path, source="http://other:1"),
        config(tmp_path, target="http://other:1"),
        config(tmp_path, profile=profile.load("sergio")),
        config(tmp_path, collections=("pets",)),
        config(tmp_path, renames=(("pets", "animals"),)),
    ]
    for other in others:
        state.write_checkpoint(other, checkpoint(other))
    assert state.checkpoints(of, of.identity) == []
    assert state.unfinished(of) == []
    assert len(state.checkpoints(of, ("target", "target database"))) == 4


def test_settings_that_change_no_data_may_change_between_tries(tmp_path: Path) -> None:
    of = config(tmp_path)
    path = state.write_checkpoint(of, checkpoint(of))
    again = replace(of, max_reject_rate=0.5, replace=True, workers=5, strict_phases=True, exact_recheck=True)
    assert again.fingerprint == of.fingerprint
    assert state.named_checkpoint(again, path).run == state.unfinished(again)[0].run


def test_another_batch_size_is_the_same_migration_but_not_the_same_run(tmp_path: Path) -> None:
    of = config(tmp_path)
    written = checkpoint(of)
    path = state.write_checkpoint(of, written)
    other = replace(of, batch_size=7)
    assert state.unfinished(other) == [written]
    with pytest.raises(PreconditionError, match=r"its batch size is '500', the command's is '7'"):
        state.named_checkpoint(other, path)


def test_the_newest_finished_run_is_the_one_to_go_by(tmp_path: Path) -> None:
    of = config(tmp_path)
    runs = [checkpoint(of, "complete") for _ in range(3)]
    paths = [state.write_checkpoint(of, run) for run in runs]
    state.write_checkpoint(of, checkpoint(of, "export"))
    assert state.finished(of) == (paths[-1], runs[-1])
    assert len(state.unfinished(of)) == 1


def test_a_forgotten_run_leaves_neither_checkpoint_nor_folder(tmp_path: Path) -> None:
    of = config(tmp_path)
    one, other = checkpoint(of), checkpoint(of)
    for written in (one, other):
        state.run_folder(of, written.run).mkdir()
        for phase in ("preflight", "export"):
            state.write_checkpoint(of, replace(written, phase=phase))
    state.forget(of, one.run)
    assert {found.run for _, found in state.checkpoints(of, ())} == {other.run}
    assert [path.name for path in tmp_path.glob("run-*")] == [f"run-{other.run}"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"1", b'{"version": 1}', b'{"version": 2, "run": "x"}', b'{"version": 99}', b"\xff"]
)
def test_a_file_that_is_no_checkpoint_is_passed_over_or_refused_when_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint_20250101_000000.json"
    path.write_bytes(content)
    assert state.checkpoints(config(tmp_path), ()) == []
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
        ({"renames": (("pets", "animals"),)}, ("'none'", "'pets=animals'")),
        ({"batch_size": 7}, ("'500'", "'7'")),
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
    assert orjson.loads(path.read_bytes())["version"] == state.VERSION
