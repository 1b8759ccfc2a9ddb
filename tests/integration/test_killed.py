"""Killed at random moments, in every phase, again and again: the same command ends with exactly the right data.

The moments are drawn from a seeded generator, and counted in requests that passed a forwarder, or in what the run's
folder holds. A run that nothing disturbs tells how many there are.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.databases import Database, assert_holds, new_database
from support.forwarder import forwarder
from support.moments import Notes, Watch, a_rename
from support.process import Running, running
from support.records import Made, nasty, plain
from support.servers import Server, chroma_server

SEED = 3
KILLS = 3
"""For each way; the first lies in the first third of the run, and so on."""
BATCH = 250


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where, and how."""

    source: str
    target: str
    strict: bool = False
    delta: bool = False

    def __str__(self) -> str:
        how = [word for word, on in (("strict", self.strict), ("delta", self.delta)) if on]
        return " ".join([self.source, "to", self.target, *how])


WAYS = [
    Way("1.5.9", "1.5.9"),
    Way("1.5.9", "1.5.9", strict=True),
    Way("0.6.3", "1.5.9"),
    Way("0.6.3", "path", strict=True),
    Way("path", "1.5.9"),
    Way("path", "path"),
    Way("1.5.9", "1.5.9", delta=True),
    Way("1.5.9", "path", delta=True),
]


@cache
def data(lists: bool) -> tuple[Made, ...]:
    """Four pieces in two collections."""
    return Made("nasty", "cosine", nasty(lists=lists)), Made("pets", "l2", plain(2300, 16))


CHANGED = plain(40, 16, seed=9)
NEW = plain(300, 16, prefix="new", seed=8)
GONE = [f"r{number:05d}" for number in range(2000, 2100)]


def changed(made: Made) -> Made:
    """What a delta run has to bring about."""
    records = {record.id: record for record in (*made.records, *CHANGED, *NEW)}
    return made.only([record for name, record in records.items() if name not in GONE])


@dataclass
class Sources:
    """Databases with the data in them, which are only ever read; delta runs have one each."""

    modern: Database
    legacy: Database
    folder: Path

    @contextmanager
    def of(self, way: Way) -> Iterator[Database | None]:
        """The server's database that the way begins at; None for the directory."""
        if way.delta:
            database = new_database(self.modern.server)
            database.put(*data(True))
            yield database
        else:
            yield {"1.5.9": self.modern, "0.6.3": self.legacy}.get(way.source)


@pytest.fixture(scope="module")
def sources(modern: Server, legacy: Server, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("directory") / "data"
    with chroma_server(folder) as server:
        Database(server).put(*data(True))
    made = Sources(new_database(modern), new_database(legacy), folder)
    made.modern.put(*data(True))
    made.legacy.put(*data(False))
    return made


@dataclass
class Place:
    """Where one migration goes: its options, and how to look at what it left."""

    way: Way
    folder: Path
    watch: Watch
    options: list[str]
    source: Database | None = None
    target: Database | None = None

    @contextmanager
    def result(self) -> Iterator[Database]:
        if self.target is not None:
            yield self.target
        else:
            with chroma_server(self.folder / "out") as server:
                yield Database(server)

    @contextmanager
    def running(self) -> Iterator[Running]:
        with running(self.folder, *self.options) as run:
            yield run


@contextmanager
def new_place(way: Way, sources: Sources, receiving: Server, folder: Path) -> Iterator[Place]:
    """A new target, forwarders on the way there, and for a delta run all that comes before it."""
    place = Place(way, folder, Watch(), ["migrate", "--profile", "identity", "--json", "--batch-size", str(BATCH)])
    with ExitStack() as stack:
        source = place.source = stack.enter_context(sources.of(way))
        if source is None:
            place.options += ["--source-url", f"path:{sources.folder}"]
        else:
            between = stack.enter_context(forwarder(source.url, guard=place.watch.guard("source")))
            place.options += ["--source-url", between.url, "--database", source.name]
            if source.server.token is not None:
                (folder / "token").write_text(source.server.token)
                place.options += ["--source-token-file", "token"]
        if way.target == "path":
            place.options += ["--target-url", "path:out", "--target-database", "default_database"]
        else:
            target = place.target = new_database(receiving)
            between = stack.enter_context(forwarder(target.url, guard=place.watch.guard("target")))
            place.options += ["--target-url", between.url, "--target-database", target.name]
        if way.strict:
            place.options.append("--strict-phases")
        if way.delta and source is not None:
            finish(place)
            source.upsert("pets", *CHANGED, *NEW)
            source.delete("pets", *GONE)
        yield place


def finish(place: Place) -> None:
    """The command, undisturbed."""
    place.watch.begin()
    with place.running() as run:
        ended = run.end()
    assert ended.code == 0, ended.err


def check(place: Place) -> None:
    """Everything is there, once, and nothing else; the ledger has every step of every piece once."""
    collections = data(place.way.source != "0.6.3")
    wanted = [changed(made) if place.way.delta and made.name == "pets" else made for made in collections]
    with place.result() as target:
        assert target.names() == [made.name for made in wanted]
        for made in wanted:
            assert_holds(target.records(made.name), made.records, made.space)
    (plan,) = place.folder.glob("migration_checkpoints/run-*/plan.json")
    ledger = plan.with_name("ledger.jsonl")
    notes = Counter((entry["step"], entry["collection"], entry["number"]) for entry in entries(ledger))
    assert {step for (step, *_), times in notes.items() if times > 1} <= {"import-begun"}
    pieces = {key[1:] for key in notes}
    assert {(step, *piece) for step in ("export", "examine", "import", "verify") for piece in pieces} <= set(notes)


def entries(ledger: Path) -> list[dict[str, Any]]:
    """The lines of a ledger that are whole."""
    return [orjson.loads(line) for line in ledger.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def done(place: Place, step: str) -> set[str]:
    """The ids of the pieces of which the unfinished run has noted this step."""
    checkpoints = [orjson.loads(path.read_bytes()) for path in place.folder.glob("*/checkpoint_*.json")]
    ended = {checkpoint["run"] for checkpoint in checkpoints if checkpoint["phase"] == "complete"}
    begun = {checkpoint["run"] for checkpoint in checkpoints} - ended
    found: set[str] = set()
    for run in begun:
        folder = place.folder / "migration_checkpoints" / f"run-{run}"
        if not (folder / "plan.json").exists():
            continue
        plan = orjson.loads((folder / "plan.json").read_bytes())
        pieces = {entry["spec"]["name"]: entry["pieces"] for entry in plan["collections"]}
        for entry in entries(folder / "ledger.jsonl") if (folder / "ledger.jsonl").exists() else ():
            if entry["step"] == step:
                found.update(pieces[entry["collection"]][entry["number"]])
    return found


@pytest.fixture
def place_for(
    sources: Sources, receiving: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Way], Place]]:
    """Makes the place of a migration; copies of directories do not outlive it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with ExitStack() as stack:
        yield lambda way: stack.enter_context(new_place(way, sources, receiving, tmp_path))
    assert list(temporary.glob("chromactl-*")) == []


@pytest.fixture(scope="module")
def length(sources: Sources, receiving: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Way], int]:
    """How many moments a run of this way has when nothing disturbs it."""

    @cache
    def count(way: Way) -> int:
        with new_place(way, sources, receiving, tmp_path_factory.mktemp("undisturbed")) as place:
            notes = Notes(place.folder)
            finish(place)
            passed = place.watch.counted
            check(place)
            return notes.count() if way.target == "path" else passed

    return count


def kill_at(place: Place, moment: int, *, drop: bool) -> bool:
    """Run until this moment, and no further; False if it came to its end before that."""
    notes = Notes(place.folder)
    with place.running() as run:
        if place.way.target == "path":
            struck = run.until(lambda: notes.count() >= moment)
            run.strike()
        else:
            place.watch.begin(at=moment, act=run.strike, drop=drop)
            run.process.wait()
            struck = place.watch.happened.is_set()
        ended = run.gone()
    assert struck or ended.code == 0, ended.err
    return struck


@pytest.mark.parametrize("part", range(KILLS))
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_run_killed_at_a_random_moment_is_finished_by_the_same_command(
    way: Way, part: int, length: Callable[[Way], int], place_for: Callable[[Way], Place]
) -> None:
    chance = random.Random(f"{SEED} {way} {part}")  # noqa: S311 (a test has to be repeatable)
    moment = max(1, int((part + chance.random()) / KILLS * length(way)))
    place = place_for(way)
    assert kill_at(place, moment, drop=chance.random() < 0.5)
    exported, imported = done(place, "export"), done(place, "import")
    finish(place)
    check(place)
    assert not place.watch.asked("source", "/get") & exported
    assert not place.watch.asked("target", "/add") & imported


@pytest.mark.parametrize("way", [WAYS[0], WAYS[3]], ids=str)
def test_a_run_killed_again_and_again_goes_further_each_time(way: Way, place_for: Callable[[Way], Place]) -> None:
    chance = random.Random(f"{SEED} {way}")  # noqa: S311 (a test has to be repeatable)
    place = place_for(way)
    few, many = (4, 8) if way.target == "path" else (12, 36)  # what comes before the first piece counts too
    kills = 0
    while kill_at(place, chance.randint(few, many), drop=chance.random() < 0.5):
        kills += 1
        assert kills < 40
    assert kills >= 3
    finish(place)
    check(place)


@pytest.mark.parametrize(("rename", "drop"), [(1, False), (2, True), (2, False), (3, False), (4, True)])
def test_a_run_killed_between_the_renames_of_the_swap(
    rename: int, drop: bool, place_for: Callable[[Way], Place]
) -> None:
    """Two collections take the place of others, by two renames each; it dies before or after one of them is done."""
    place = place_for(WAYS[0])
    assert place.target is not None
    before = [Made("nasty", "l2", plain(7)), Made("pets", "ip", plain(9))]
    place.target.put(*before)
    place.options.append("--replace")
    place.watch.counts = a_rename
    assert kill_at(place, rename, drop=drop)
    names = place.target.names()  # once: a rename that was passed on may be under way
    staged_and_kept = [name for name in names if "--" in name]
    assert len(staged_and_kept) + len(set(names) & {"nasty", "pets"}) == 4
    finish(place)
    kept = {name for name in place.target.names() if "--before-" in name}
    for made in before:
        (name,) = (name for name in kept if name.startswith(made.name))
        assert_holds(place.target.records(name), made.records, made.space)
        place.target.drop(name)
    check(place)


def test_a_run_killed_right_after_the_swap_has_only_to_say_so(place_for: Callable[[Way], Place]) -> None:
    place = place_for(WAYS[0])
    place.watch.counts = a_rename
    assert kill_at(place, len(data(True)), drop=False)
    finish(place)
    check(place)
    assert not place.watch.asked("target", "/get")
    assert not place.watch.asked("target", "/add")


@pytest.mark.parametrize("delta", [False, True])
def test_a_run_killed_while_its_plan_is_written_begins_anew(delta: bool, place_for: Callable[[Way], Place]) -> None:
    """The moment is when the run's folder is made; what it left there is cleared away."""
    place = place_for(Way("1.5.9", "1.5.9", delta=delta))
    folders = place.folder / "migration_checkpoints"
    before = set(folders.glob("run-*"))
    with place.running() as run:
        while set(folders.glob("run-*")) <= before:
            assert run.process.poll() is None, "the folder was never seen"
        run.strike()
        run.gone()
    finish(place)
    check(place)
