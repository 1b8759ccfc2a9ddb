"""Pieces through stages: all of them, in order, overlapping, and what an error leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromactl.migrate.flow import Stage, flow

PATIENCE = 30.0


class Log:
    """What each stage did, in order."""

    def __init__(self) -> None:
        self.done: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def stage(self, name: str, workers: int, first: Callable[[int], None] = lambda piece: None) -> Stage[int]:
        def do(piece: int) -> None:
            first(piece)
            with self._lock:
                self.done.setdefault(name, []).append(piece)

        return Stage(do, workers)


@given(st.integers(0, 40), st.lists(st.integers(0, 3), max_size=4))
def test_every_piece_goes_once_through_every_stage(count: int, workers: list[int]) -> None:
    log = Log()
    flow(range(count), [log.stage(str(number), threads) for number, threads in enumerate(workers)])
    expected = {str(number): list(range(count)) for number in range(len(workers))} if count else {}
    assert {name: sorted(pieces) for name, pieces in log.done.items()} == expected


@given(st.integers(0, 40), st.integers(0, 3))
def test_the_next_stage_gets_the_pieces_in_order(count: int, workers: int) -> None:
    log = Log()
    flow(range(count), [log.stage("first", workers), log.stage("second", 0)])
    assert log.done.get("second", []) == list(range(count))


def test_a_piece_is_in_one_stage_while_the_next_is_in_the_one_before() -> None:
    """Each stage waits for the other to have begun; one after the other they would never end."""
    second_at_0, first_at_1 = threading.Event(), threading.Event()

    def first(piece: int) -> None:
        if piece == 1:
            first_at_1.set()
            assert second_at_0.wait(PATIENCE)

    def second(piece: int) -> None:
        if piece == 0:
            second_at_0.set()
            assert first_at_1.wait(PATIENCE)

    flow(range(2), [Stage(first, 1), Stage(second, 1)])


def test_as_many_threads_as_asked_for_work_at_once() -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    def wait(piece: int) -> None:
        together.wait()

    flow(range(6), [Stage(wait, 3)])


def test_what_is_on_the_way_is_bounded() -> None:
    """The source is not read far ahead of a stage that does not get on."""
    taken = 0
    most = 0
    done = 0

    def pieces() -> Iterator[int]:
        nonlocal taken, most
        for number in range(500):
            taken += 1
            most = max(most, taken - done)
            yield number

    def last(piece: int) -> None:
        nonlocal done
        done += 1

    flow(pieces(), [Stage(lambda piece: None, 2), Stage(lambda piece: None, 2), Stage(last, 0)])
    assert done == 500
    assert most <= 8


class _Broken(Exception):
    pass


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("broken", ["first", "second", "third"])
def test_after_an_error_nothing_more_is_begun_and_the_error_is_the_stages_own(workers: int, broken: str) -> None:
    log = Log()

    def at(name: str) -> Callable[[int], None]:
        def do(piece: int) -> None:
            if name == broken and piece == 10:
                raise _Broken(name)

        return do

    with pytest.raises(_Broken, match=broken):
        flow(range(1000), [log.stage(name, workers, at(name)) for name in ("first", "second", "third")])
    assert all(len(pieces) < 40 for pieces in log.done.values())
    assert 10 not in log.done.get("third", [])


def test_what_is_under_way_is_finished_before_the_error_is_out() -> None:
    begun, go_on = threading.Event(), threading.Event()
    finished: list[int] = []

    def do(piece: int) -> None:
        if piece == 0:
            begun.set()
            assert go_on.wait(PATIENCE)
            finished.append(piece)
        elif piece == 1:
            assert begun.wait(PATIENCE)

    def fail(piece: int) -> None:
        raise _Broken

    def source() -> Iterator[int]:
        yield from range(2)
        assert begun.wait(PATIENCE)
        go_on.set()
        raise _Broken

    with suppress(_Broken):
        flow(source(), [Stage(do, 2), Stage(fail, 0)])
    assert finished == [0]
    assert threading.active_count() == 1


def test_an_interruption_of_the_caller_ends_it_too() -> None:
    log = Log()

    def interrupted(piece: int) -> None:
        if piece == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow(range(100), [log.stage("first", 2), log.stage("second", 0, interrupted)])
    assert log.done["second"] == [0, 1, 2]
    assert len(log.done["first"]) < 10
