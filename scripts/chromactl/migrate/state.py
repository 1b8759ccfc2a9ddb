"""The state of a run on disk: a lock, checkpoints after each phase, and a ledger of shards in between."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from chromactl import files
from chromactl.errors import LockedError, PreconditionError
from chromactl.migrate.config import MigrateConfig
from chromactl.snapshot.shard import Shard

VERSION = 1
PHASES = ("preflight", "export", "transform", "validate", "import", "verify", "complete")


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What one phase did: records, and seconds of work in this run and those it resumed."""

    name: str
    seconds: float
    records: int

    @property
    def records_per_second(self) -> float:
        """The rate; 0 for a phase too short to measure."""
        return self.records / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One collection of the run. `space` is the proven metric; `target_key` and `digest` are of the finished run."""

    name: str
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


@contextlib.contextmanager
def locked(config: MigrateConfig) -> Iterator[None]:
    """Hold the target for this run.

    Raises:
        LockedError: another run has it.
    """
    path = files.make_folder(config.checkpoint_dir) / f".lock-{config.target_key}"
    with files.explained(path), path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{config.target.location.text}: another migration to this target is running "
                f"(it holds {path}); wait for it, or end it"
            ) from error
        yield


class RunFolder:
    """Where a run keeps its exported shards, its ledger and its rejects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ledger = path / "ledger.jsonl"

    def make(self) -> None:
        """Make the folder, once there is something to keep in it."""
        files.make_folder(self.path)

    @property
    def rejects(self) -> Path:
        """The file of rejected records, one JSON object a line."""
        return self.path / "rejects.jsonl"

    def note(self, step: str, collection: str, number: int, **more: Any) -> None:
        """Add a finished shard to the ledger, durably."""
        entry = {"step": step, "collection": collection, "number": number, **more}
        with files.explained(self._ledger), self._ledger.open("a+b") as file:
            # A line that a crash or a full disk cut off must not swallow this one too.
            torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read() != b"\n"
            file.write((b"\n" if torn else b"") + orjson.dumps(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def noted(self, step: str, collection: str) -> dict[int, dict[str, Any]]:
        """The finished shards of a step, by number. A last line that was cut off by a crash does not count."""
        entries: dict[int, dict[str, Any]] = {}
        if self._ledger.exists():
            for line in self._ledger.read_bytes().splitlines():
                with contextlib.suppress(orjson.JSONDecodeError):
                    entry = orjson.loads(line)
                    if (entry["step"], entry["collection"]) == (step, collection):
                        entries[entry["number"]] = entry
        return entries

    def shards(self, collection: str) -> list[Shard]:
        """The exported shards of a collection, in order."""
        return [Shard(**entry["shard"]) for _, entry in sorted(self.noted("export", collection).items())]

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


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
        body["collections"] = tuple(CollectionState(**entry) for entry in body["collections"])
        return Checkpoint(**body)
    except OSError as error:
        raise PreconditionError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise PreconditionError(f"{path}: not a checkpoint of chromactl ({error!r})") from error


def checkpoints(config: MigrateConfig, *, same_target: bool = False) -> list[tuple[Path, Checkpoint]]:
    """All checkpoints of this very migration, or of all migrations to its target, oldest first."""
    keys = ("target", "target database") if same_target else tuple(config.fingerprint)
    found = []
    for path in sorted(config.checkpoint_dir.glob("checkpoint_*.json")):
        with contextlib.suppress(PreconditionError):
            checkpoint = read_checkpoint(path)
            if all(checkpoint.fingerprint.get(key) == config.fingerprint[key] for key in keys):
                found.append((path, checkpoint))
    return found


def finished(config: MigrateConfig) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint of a finished run of this very migration."""
    complete = [(path, checkpoint) for path, checkpoint in checkpoints(config) if checkpoint.phase == "complete"]
    return complete[-1] if complete else None


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
