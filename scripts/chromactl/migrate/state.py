"""The state of a run on disk: checkpoints after each phase (the ledger in between: chromactl.migrate.ledger)."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from chromactl import files
from chromactl.errors import PreconditionError
from chromactl.migrate.config import MigrateConfig

VERSION = 2
PHASES = ("preflight", "export", "transform", "validate", "import", "verify", "complete")


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What one phase did: records, and seconds from its first to its last (phases overlap unless told not to)."""

    name: str
    seconds: float
    records: int

    @property
    def records_per_second(self) -> float:
        """The rate; 0 for a phase too short to measure."""
        return self.records / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One collection of the target, and how many records of the source went to it.

    `space` is the proven metric; `target_key` and `digest` are of the finished run.
    """

    name: str
    sources: tuple[str, ...]
    source: int
    space: str
    rejected: int = 0
    imported: int = 0
    verified: int = 0
    target_key: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after its phase `phase`."""

    run: str
    phase: str
    fingerprint: dict[str, str]
    phases: tuple[PhaseResult, ...] = ()
    collections: tuple[CollectionState, ...] = ()
    rejects: dict[str, int] = field(default_factory=dict)

    def reached(self, phase: str) -> bool:
        """Whether the run has finished this phase."""
        return PHASES.index(self.phase) >= PHASES.index(phase)

    def after(self, result: PhaseResult, **changes: Any) -> Checkpoint:
        """The checkpoint after a phase; a phase that a resumed run goes through again counts once, and not back."""
        others = tuple(phase for phase in self.phases if phase.name != result.name)
        furthest = self.phase if self.reached(result.name) else result.name
        return replace(self, phase=furthest, phases=(*others, result), **changes)


def new_run() -> str:
    """A run's name: its start in UTC and six random digits, fit for a collection's name."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def run_folder(config: MigrateConfig, run: str) -> Path:
    """The folder of a run."""
    return config.checkpoint_dir / f"run-{run}"


def write_checkpoint(config: MigrateConfig, checkpoint: Checkpoint) -> Path:
    """Write `checkpoint_<YYYYmmdd_HHMMSS>.json`; the name's time moves on where a second has one already."""
    moment = datetime.now(UTC)
    while (path := config.checkpoint_dir / f"checkpoint_{moment:%Y%m%d_%H%M%S}.json").exists():
        moment += timedelta(seconds=1)
    body = {"version": VERSION, "written": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(checkpoint)}
    files.write_atomically(path, orjson.dumps(body, option=orjson.OPT_INDENT_2))
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in this file.

    Raises:
        PreconditionError: it is missing, or not a checkpoint.
    """
    try:
        body = orjson.loads(path.read_bytes())
        if body.pop("version") != VERSION:
            raise PreconditionError(f"{path}: a checkpoint of another version of chromactl; start without it")
        del body["written"]
        body["phases"] = tuple(PhaseResult(**entry) for entry in body["phases"])
        body["collections"] = tuple(
            CollectionState(**{**entry, "sources": tuple(entry["sources"])}) for entry in body["collections"]
        )
        return Checkpoint(**body)
    except OSError as error:
        raise PreconditionError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise PreconditionError(f"{path}: not a checkpoint of chromactl ({error!r})") from error


def all_checkpoints(folder: Path) -> list[tuple[Path, Checkpoint]]:
    """Every checkpoint in the folder that can be read, oldest first."""
    found = []
    for path in sorted(folder.glob("checkpoint_*.json")):
        with contextlib.suppress(PreconditionError):
            found.append((path, read_checkpoint(path)))
    return found


def checkpoints(config: MigrateConfig, keys: Iterable[str]) -> list[tuple[Path, Checkpoint]]:
    """All checkpoints in the folder that agree with this command in these parts of its fingerprint, oldest first."""
    wanted = {key: config.fingerprint[key] for key in keys}
    return [entry for entry in all_checkpoints(config.checkpoint_dir) if wanted.items() <= entry[1].fingerprint.items()]


def finished(config: MigrateConfig) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint of a finished run of this very migration, whatever its batch size was."""
    complete = [entry for entry in checkpoints(config, config.identity) if entry[1].phase == "complete"]
    return complete[-1] if complete else None


def is_complete(config: MigrateConfig, run: str) -> bool:
    """Whether the run came to its end, whatever checkpoint of it is at hand."""
    return any(entry.run == run and entry.phase == "complete" for _, entry in checkpoints(config, config.identity))


def unfinished(config: MigrateConfig) -> list[Checkpoint]:
    """The last checkpoint of every run of this migration that did not come to its end, oldest first."""
    last = {checkpoint.run: checkpoint for _, checkpoint in checkpoints(config, config.identity)}
    return [checkpoint for checkpoint in last.values() if checkpoint.phase != "complete"]


def named_checkpoint(config: MigrateConfig, path: Path) -> Checkpoint:
    """The checkpoint that the operator named, found agreeing with this command.

    A bare file name is looked for in the checkpoint folder too.

    Raises:
        PreconditionError: it is of another migration; the message shows both values.
    """
    if not path.exists() and (config.checkpoint_dir / path).exists():
        path = config.checkpoint_dir / path
    checkpoint = read_checkpoint(path)
    for key, value in config.fingerprint.items():
        if checkpoint.fingerprint.get(key) != value:
            raise PreconditionError(
                f"{path}: this checkpoint is of another migration: its {key} is "
                f"{checkpoint.fingerprint.get(key)!r}, the command's is {value!r}; name the right one, or none"
            )
    return checkpoint


def remove_folder(config: MigrateConfig, run: str) -> None:
    """Remove a run's folder."""
    shutil.rmtree(run_folder(config, run), ignore_errors=True)


def forget(config: MigrateConfig, run: str) -> None:
    """Remove a run's folder and its checkpoints."""
    remove_folder(config, run)
    for path, checkpoint in checkpoints(config, ()):
        if checkpoint.run == run:
            path.unlink(missing_ok=True)
