"""Trouble on the way to a server: what is waited for, what is tried again, and how it ends when it does not get better.

Everything goes through real sockets to a real server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest

from chromactl.errors import ChromactlError, PreconditionError, UnreachableError
from chromactl.options import access
from chromactl.stores.http_target import HttpTarget
from chromactl.stores.opening import open_source, open_target
from chromactl.stores.transport import Network
from support.command import Chromactl
from support.databases import Database, assert_holds, new_database
from support.forwarder import Fault, Forwarder, forwarder
from support.records import Made, batch_of, plain, spec_of
from support.servers import Server
from support.store_contract import LATER_RUN, RUN

# Where time has to run out, and where it must not: a busy machine takes a second for an answer now and then.
QUICK = Network(timeout_seconds=2, max_retries=2)
PATIENT = Network(timeout_seconds=60, max_retries=2)
RECORDS = plain(60)
PETS = Made("pets", "l2", RECORDS)

PASSING = {
    "429": Fault("answer", status=429),
    "503": Fault("answer", status=503),
    "502": Fault("answer", status=502),
    "408": Fault("answer", status=408),
    "hang": Fault("hang"),
    "reset": Fault("reset"),
    "lost": Fault("lost"),
    "cut": Fault("cut"),
    "short": Fault("short"),
    "drip": Fault("drip"),
}
SILENT = ("hang", "drip")
"""Those that only the deadline ends."""


@contextmanager
def troubled(server: Server, network: Network = PATIENT) -> Iterator[tuple[Forwarder, HttpTarget, Database]]:
    """A database behind a forwarder, open as a target."""
    database = new_database(server)
    with forwarder(server.url) as between:
        entry = replace(access(between.url, "target", None, "default_tenant", database.name), network=network)
        with closing(open_target(entry, "")) as target:
            assert isinstance(target, HttpTarget)
            yield between, target, database


def patience(kind: str) -> Network:
    """No longer than the fault asks for."""
    return QUICK if kind in SILENT else PATIENT


@pytest.mark.parametrize("kind", [*PASSING, "500"])
def test_a_write_in_passing_trouble_lands_once(receiving: Server, kind: str) -> None:
    with troubled(receiving, patience(kind)) as (between, target, database):
        staged = target.stage(spec_of(PETS), RUN)
        fault = PASSING.get(kind, Fault("answer", status=500))
        between.faults += [fault, fault]
        assert target.write(staged, batch_of(RECORDS)) == []
        assert between.faults == []
        assert between.times("/add") == 3
        target.swap([staged], RUN)
    assert_holds(database.records("pets"), RECORDS, "l2")


@pytest.mark.parametrize("kind", PASSING)
def test_a_read_in_passing_trouble_gives_everything(receiving: Server, kind: str) -> None:
    with troubled(receiving, patience(kind)) as (between, target, database):
        database.put(PETS)
        (collection,) = target.collections()
        fault = replace(PASSING[kind], on=("/get",))
        between.faults += [fault, fault]
        batch, unreadable = target.read(collection, [one.id for one in RECORDS])
        assert between.faults == []
        assert (sorted(batch.ids), unreadable) == ([one.id for one in RECORDS], [])


def test_a_read_that_is_answered_500_is_halved_not_repeated(receiving: Server) -> None:
    with troubled(receiving) as (between, target, database):
        database.put(PETS)
        (collection,) = target.collections()
        between.faults.append(Fault("answer", on=("/get",), status=500))
        batch, unreadable = target.read(collection, [one.id for one in RECORDS])
        assert (len(batch), unreadable) == (60, [])
        assert between.times("/get") == 3


@pytest.mark.parametrize("kind", ["stage", "rename", "discard"])
def test_what_was_done_though_the_answer_was_lost_is_not_done_twice(receiving: Server, kind: str) -> None:
    with troubled(receiving) as (between, target, database):
        if kind == "stage":
            between.faults.append(Fault("lost", on=("/collections",)))
        staged = target.stage(spec_of(PETS), RUN)
        target.write(staged, batch_of(RECORDS))
        if kind == "discard":
            between.faults += [Fault("lost", on=("/delete",)), Fault("lost", on=("--m" + RUN,))]
            between.faults.insert(0, Fault("cut", on=("--m" + RUN,)))
            target.discard(staged)
            assert database.names() == []
            return
        if kind == "rename":
            between.faults.append(Fault("lost", on=(staged.key,)))
        assert target.swap([staged], RUN) == {}
        assert between.faults == []
    assert_holds(database.records("pets"), RECORDS, "l2")


@pytest.mark.parametrize("header", ["1", "date"])
def test_a_server_that_asks_to_wait_is_not_asked_before(receiving: Server, header: str) -> None:
    with troubled(receiving) as (between, target, _):
        staged = target.stage(spec_of(PETS), RUN)
        begun = time.time()
        # A date has whole seconds, so that it asks for between one and two of them.
        value = formatdate(begun + 2, usegmt=True) if header == "date" else header
        between.faults += [Fault("answer", status=429, headers=(("Retry-After", value),))]
        target.write(staged, batch_of(RECORDS))
        assert time.time() - begun >= 1
        between.faults += [Fault("answer", status=429, headers=(("Retry-After", "soon"),))]
        target.write(staged, batch_of(RECORDS))


def test_a_server_that_asks_to_wait_for_long_is_left_alone(receiving: Server) -> None:
    with troubled(receiving) as (between, target, _):
        staged = target.stage(spec_of(PETS), RUN)
        between.faults += [Fault("answer", status=503, headers=(("Retry-After", "3600"),))]
        with pytest.raises(ChromactlError, match="asks to wait 3600 s; run the same command again then"):
            target.write(staged, batch_of(RECORDS))
        assert between.times("/add") == 1


@pytest.mark.parametrize("kind", [*PASSING, "500"])
@pytest.mark.parametrize("verb", ["/add", "/get"])
def test_trouble_that_does_not_pass_ends_with_one_sentence(receiving: Server, kind: str, verb: str) -> None:
    fault = replace(PASSING.get(kind, Fault("answer", status=500)), on=(verb,))
    with troubled(receiving, patience(kind)) as (between, target, database):
        database.put(PETS)
        (collection,) = target.collections()
        between.faults += [fault] * 30
        if (kind, verb) == ("500", "/get"):
            # The server counts, and cannot read a single one of them: so it is about the records.
            batch, unreadable = target.read(collection, ["r00001", "r00002"])
            assert (len(batch), [entry.ids for entry in unreadable]) == (0, [["r00001"], ["r00002"]])
            return
        new = batch_of(plain(5, prefix="new"))
        tried = partial(target.write, collection, new) if verb == "/add" else partial(target.read, collection, ["x"])
        with pytest.raises(ChromactlError) as failed:
            tried()
        assert between.times(verb) == 3
    assert not isinstance(failed.value, PreconditionError)
    assert failed.value.exit_code == 1
    assert "given up after 3 tries (--max-retries)" in str(failed.value)
    assert "\n" not in str(failed.value)
    assert between.url in str(failed.value)


def test_a_server_that_hangs_after_its_disk_was_full_is_not_taken_for_a_slow_one(receiving: Server) -> None:
    """As 1.5.9 was seen to do: 500 first, and then no answer any more, whatever room there is."""
    with troubled(receiving, QUICK) as (between, target, _):
        staged = target.stage(spec_of(PETS), RUN)
        between.faults += [Fault("answer", status=500), Fault("hang"), Fault("hang")]
        with pytest.raises(ChromactlError, match=r"no answer in time.*it answered 500: not now.*disk.*restart it"):
            target.write(staged, batch_of(RECORDS))


def test_without_retries_there_is_one_try(receiving: Server) -> None:
    with troubled(receiving, replace(QUICK, max_retries=0)) as (between, target, _):
        staged = target.stage(spec_of(PETS), RUN)
        between.faults.append(Fault("hang"))
        with pytest.raises(ChromactlError, match="no answer in time") as failed:
            target.write(staged, batch_of(RECORDS))
        assert (failed.value.exit_code, between.times("/add")) == (1, 1)


@pytest.mark.parametrize("kind", ["hang", "reset", "drip"])
def test_a_server_that_is_not_well_at_the_start_is_said_at_once(receiving: Server, kind: str) -> None:
    with forwarder(receiving.url) as between:
        between.faults += [replace(PASSING[kind], on=("/heartbeat",))] * 5
        entry = replace(access(between.url, "source", None, "default_tenant", "default_database"), network=QUICK)
        with pytest.raises(UnreachableError):
            open_source(entry)
        assert len(between.passed) == 1


# The command line


def test_the_options_of_the_network(chromactl: Chromactl, receiving: Server) -> None:
    database = new_database(receiving)
    with forwarder(receiving.url) as between:
        place = ["sample", "--url", between.url, "--database", database.name, "--chunks", 40, "--dim", 8]
        between.faults += [Fault("hang")] * 2
        ended = chromactl(*place, "--timeout", "1.5", "--max-retries", 1)
        assert ended.code == 1
        assert "--timeout 1.5" in ended.err.splitlines()[-1]
        assert "given up after 2 tries" in ended.err.splitlines()[-1]
        assert between.times("/add") == 2


@pytest.mark.parametrize(("name", "value"), [("--timeout", "0"), ("--timeout", "-1"), ("--max-retries", "-1")])
def test_impossible_options_are_refused(chromactl: Chromactl, name: str, value: str) -> None:
    ended = chromactl("sample", "--url", "http://127.0.0.1:1", name, value)
    assert ended.code == 2
    assert name in ended.err


# Making a database


def test_a_database_is_made_only_when_asked_for_and_only_of_a_tenant_that_is_there(receiving: Server) -> None:
    name = f"{new_database(receiving).name}_new"
    entry = access(receiving.url, "target", None, "default_tenant", name)
    with pytest.raises(PreconditionError, match="--database"):
        open_target(entry, "")
    wanted = replace(entry, create_database=True)
    for _ in range(2):
        with closing(open_target(wanted, "")) as target:
            assert target.collections() == []
            assert name in target.databases()
    with pytest.raises(PreconditionError, match="--tenant"):
        open_target(replace(wanted, tenant="nobody"), "")
    with pytest.raises(PreconditionError, match="--tenant"):
        open_target(replace(entry, tenant="nobody"), "")
    with pytest.raises(PreconditionError, match="cannot be made either"):
        open_target(replace(wanted, database="x"), "")


def test_a_database_is_made_in_a_directory_too(tmp_path: Path) -> None:
    entry = access(f"path:{tmp_path}/data", "target", None, "default_tenant", "other", create_database=True)
    with closing(open_target(entry, "")) as target:
        staged = target.stage(spec_of(PETS), RUN)
        target.write(staged, batch_of(RECORDS))
        target.swap([staged], RUN)
    with closing(open_source(entry)) as source:
        assert source.databases() == ["default_database", "other"]
        assert source.count(source.collections()[0]) == 60
    with pytest.raises(PreconditionError, match="--database"):
        open_source(replace(entry, database="third"))


# Swapping names


@pytest.mark.parametrize("renames", range(4))
def test_a_swap_that_was_cut_off_anywhere_ends_right_when_it_is_repeated(receiving: Server, renames: int) -> None:
    old, new = plain(3, seed=8), plain(5, seed=9)
    made = [Made(name, "l2", new) for name in ("one", "two")]
    with troubled(receiving, replace(PATIENT, max_retries=0)) as (between, target, database):
        database.put(*(Made(name, "l2", old) for name in ("one", "two")))
        staged = [target.stage(spec_of(one), LATER_RUN) for one in made]
        for collection in staged:
            target.write(collection, batch_of(new))
        done = 0

        def guard(path: str, body: dict[str, object]) -> None:
            nonlocal done
            done += "new_name" in body
            if done == renames:
                between.faults += [Fault("reset", on=("",))] * 20

        between.guard = guard
        if renames == 0:
            between.faults += [Fault("reset", on=("",))] * 20
        with pytest.raises(ChromactlError):
            target.swap(staged, LATER_RUN)
        assert done == renames
        between.guard = None
        between.faults.clear()
        kept = {name: f"{name}--before-{LATER_RUN}" for name in ("one", "two")}
        with closing(open_target(access(receiving.url, "", None, "default_tenant", database.name), "")) as again:
            for _ in range(2):
                assert again.swap(staged, LATER_RUN) == kept
    assert database.names() == sorted([*kept, *kept.values()])
    for name, before in kept.items():
        assert_holds(database.records(name), new, "l2")
        assert_holds(database.records(before), old, "l2")


def test_a_collection_made_in_the_middle_of_a_swap_is_not_lost(receiving: Server) -> None:
    with troubled(receiving) as (_, target, database):
        database.put(Made(f"pets--before-{LATER_RUN}", "l2", plain(3)), Made("pets", "l2", plain(4)))
        staged = target.stage(spec_of(PETS), LATER_RUN)
        with pytest.raises(ChromactlError, match="somebody made pets anew"):
            target.swap([staged], LATER_RUN)
        assert database.counts()["pets"] == 4
