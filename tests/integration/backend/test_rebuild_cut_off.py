"""Rebuilds that are killed, stopped, or left alone by a server: the live index stays right, and the next run ends."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from app.core.memory.tenant import Kind, Tenant
from support.databases import Database, new_database
from support.forwarder import forwarder
from support.indexes import ANN, BOB, Place, writing
from support.moments import Watch, a_rename
from support.postgres import Postgres
from support.servers import Process, Server, chroma_server
from support.service import index_worker

KILLS = 12
SEED = 5
TENANTS: dict[Tenant, Kind] = {ANN: "memory", BOB: "memory"}


@pytest.fixture
def place(tmp_path: Path, database_url: str, receiving: Server) -> Place:
    """Three live collections that are old: two hundred records have come since, and one collection has strays."""
    return filled(Place(tmp_path, database_url, new_database(receiving)))


def filled(place: Place) -> Place:
    assert place.app("database", "upgrade").returncode == 0
    place.remember(ANN, range(150))
    place.remember(ANN, range(40), "passage")
    place.remember(BOB, range(50))
    place.without_events()
    place.rebuild()
    place.remember(ANN, range(200, 400))
    return place


@pytest.fixture
def watch() -> Watch:
    return Watch()


@contextmanager
def rebuilding(place: Place, watch: Watch, *arguments: str) -> Iterator[Process]:
    """A rebuild whose requests to Chroma are watched."""
    with forwarder(place.chroma.server.url, guard=watch.guard("chroma")) as between:
        with place.rebuilding(*arguments, CHROMA_PORT=between.url.rpartition(":")[2]) as process:
            yield process


def kill_at(place: Place, watch: Watch, moment: int, *, drop: bool) -> bool:
    """Run until this moment and no further; False if it came to its end before."""
    with rebuilding(place, watch) as process:
        watch.begin(at=moment, act=lambda: process.popen.send_signal(signal.SIGKILL), drop=drop)
        code = process.start().wait(60)
    assert code in (0, -signal.SIGKILL), process.text()
    return code != 0


def undisturbed(place: Place, watch: Watch) -> int:
    """How many requests a rebuild makes."""
    watch.begin()
    with rebuilding(place, watch) as process:
        assert process.start().wait(60) == 0, process.text()
    return watch.counted


def ids_of(place: Place) -> dict[str, str]:
    return {name: str(place.chroma.description(name)["id"]) for name in place.chroma.names()}


def test_killed_at_random_moments_while_others_write_and_index(place: Place, watch: Watch) -> None:
    chance = random.Random(SEED)  # noqa: S311 (a test has to be repeatable)
    length = undisturbed(place, watch)
    kills = 0
    with index_worker(place.folder, place.variables), index_worker(place.folder, place.variables):
        with writing(place, TENANTS):
            for part in range(KILLS):
                moment = max(1, int((part + chance.random()) / KILLS * length))
                kills += kill_at(place, watch, moment, drop=chance.random() < 0.5)
        place.wait_for_workers()
        # nobody has cleared up yet, and the index is right all the same
        place.assert_indexed(with_leftovers=True)
        place.rebuild()
    assert kills >= KILLS - 2
    place.assert_indexed()
    assert place.verify()["same"] is True


@pytest.mark.parametrize(("rename", "drop"), [(1, True), (1, False), (2, True), (2, False), (3, False), (6, False)])
def test_killed_before_or_after_a_rename(place: Place, watch: Watch, rename: int, drop: bool) -> None:
    """Each of three collections takes another's place by two renames. Index workers go on with what is live."""
    place.sql("UPDATE outbox SET next_attempt_at = now() + interval '1 hour'")
    watch.counts = a_rename
    assert kill_at(place, watch, rename, drop=drop)
    left = place.chroma.names()
    assert any("--" in name for name in left)
    place.sql("UPDATE outbox SET next_attempt_at = now()")
    place.sql("DELETE FROM memory_logs WHERE user_id = 'ann' AND mod(id, 10) = 0")
    with index_worker(place.folder, place.variables):
        place.wait_for_workers()
    place.assert_indexed(with_leftovers=True)
    assert set(place.chroma.names()) == set(left)  # nobody took a half swapped one for a missing one
    assert place.verify()["same"] is True
    place.rebuild()
    place.assert_indexed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("collection", [1, 2])
def test_a_signal_ends_it(place: Place, watch: Watch, number: signal.Signals, collection: int) -> None:
    """While this collection is filled. It goes; those before it are live, and what they replaced is left."""
    before = ids_of(place)
    with rebuilding(place, watch) as process:
        watch.counts = lambda side, path, body: path.endswith("/add")
        watch.begin(at=collection, act=lambda: process.popen.send_signal(number))
        assert process.start().wait(60) == 130, process.text()
        said = process.text()
    assert "Traceback" not in said
    assert "ending; once more to end at once" in said
    after = ids_of(place)
    assert sum(after[name] == before[name] for name in before) == 3 - (collection - 1)
    left = after.keys() - before.keys()
    assert len([name for name in left if "--before-" in name]) == len(left) == collection - 1
    assert ("also removes 1 replaced" in said) == (collection == 2)
    place.rebuild()
    place.without_events()
    place.assert_indexed()


def test_chroma_killed_in_the_middle_is_waited_for(tmp_path: Path, database_url: str, watch: Watch) -> None:
    with chroma_server(tmp_path / "chroma") as server:
        place = filled(Place(tmp_path, database_url, Database(server)))
        with rebuilding(place, watch) as process:
            watch.counts = lambda side, path, body: path.endswith("/add")
            watch.begin(at=2, act=server.kill, drop=True)
            process.start()
            assert watch.happened.wait(60)
            with chroma_server(server.path, port=server.port):
                assert process.wait(90) == 0, process.text()
                assert "every record is read once more" in process.text()
                place.without_events()
                place.assert_indexed()


def test_chroma_gone_for_good_ends_it(tmp_path: Path, database_url: str, watch: Watch) -> None:
    with chroma_server(tmp_path / "chroma") as server:
        place = filled(Place(tmp_path, database_url, Database(server)))
        before = ids_of(place)
        with rebuilding(place, watch, "--patience", "1") as process:
            watch.counts = lambda side, path, body: path.endswith("/add")
            watch.begin(at=1, act=server.kill, drop=True)
            assert process.start().wait(60) == 1, process.text()
            assert "run the same command again" in process.text()
            assert "Traceback" not in process.text()
        with chroma_server(server.path, port=server.port):
            assert {name: key for name, key in ids_of(place).items() if "--" not in name} == before
            place.rebuild()
            place.without_events()
            place.assert_indexed()


def test_postgres_restarted_in_the_middle_ends_it(tmp_path: Path, receiving: Server, watch: Watch) -> None:
    with Postgres(tmp_path / "postgres").running() as server:
        place = filled(Place(tmp_path, server.new_database(), new_database(receiving)))
        before = ids_of(place)
        with rebuilding(place, watch) as process:
            watch.counts = lambda side, path, body: path.endswith("/add")
            watch.begin(at=1, act=partial(server.stop, signal.SIGQUIT))
            assert process.start().wait(60) == 1, process.text()
            assert "PostgreSQL cannot be used" in process.text()
            assert "Traceback" not in process.text()
        server.start()
        assert {name: key for name, key in ids_of(place).items() if "--" not in name} == before
        place.rebuild()
        place.without_events()
        place.assert_indexed()


def lose(place: Place) -> None:
    """End the session that holds the gate, and wait until it is gone."""
    mine = "FROM pg_stat_activity WHERE application_name = 'chroma-stack rebuild' AND datname = current_database()"
    place.sql(f"SELECT pg_terminate_backend(pid, 5000) {mine}")


@pytest.mark.parametrize("rename", [1, 2])
def test_a_session_lost_in_the_swap(place: Place, watch: Watch, rename: int) -> None:
    """With it the gate is open. Before the second rename the old collection gets its name back."""
    before = ids_of(place)
    with rebuilding(place, watch) as process:
        watch.counts = a_rename
        watch.begin(at=rename, act=partial(lose, place))
        assert process.start().wait(60) == 1, process.text()
        assert "run the same command again" in process.text()
    after = ids_of(place)
    assert sum(after[name] == before[name] for name in before) == (3 if rename == 1 else 2)
    assert any("--before-" in name for name in after) == (rename == 2)
    assert not any("--m" in name for name in after)
    place.rebuild()
    place.without_events()
    place.assert_indexed()
