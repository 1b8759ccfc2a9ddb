from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from app.core.flow import Stage, Stop, Stopped, flow


def test_every_piece_goes_through_every_stage_in_order() -> None:
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    done: set[int] = set()

    def first(piece: list[int]) -> None:
        piece.append(1)
        seen["a"].append(piece[0])

    def second(piece: list[int]) -> None:
        assert piece[1:] == [1]
        seen["b"].append(piece[0])

    def third(piece: list[int]) -> None:
        done.add(piece[0])
        seen["c"].append(piece[0])

    flow(([number] for number in range(50)), [Stage(first, 3), Stage(second), Stage(third, 2)], Stop())
    assert seen["b"] == list(range(50))
    assert sorted(seen["a"]) == sorted(seen["c"]) == sorted(done) == list(range(50))


def test_stages_work_at_the_same_time() -> None:
    """The second stage waits for what only the first one's next piece brings."""
    arrived = [threading.Event() for _ in range(5)]

    def first(number: int) -> None:
        arrived[number].set()

    def second(number: int) -> None:
        assert arrived[min(number + 1, 4)].wait(10)

    flow(range(5), [Stage(first, 1), Stage(second, 1)], Stop())


def test_what_a_stage_raises_ends_it_and_the_making_of_pieces() -> None:
    closed = threading.Event()
    made: list[int] = []

    def pieces() -> Iterator[int]:
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            closed.set()

    def fail(number: int) -> None:
        if number == 3:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        flow(pieces(), [Stage(fail, 2), Stage(lambda _: None)], Stop())
    assert closed.is_set()
    assert len(made) < 20


def test_an_error_in_making_pieces_is_raised() -> None:
    def pieces() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    done: list[int] = []
    with pytest.raises(OSError, match="gone"):
        flow(pieces(), [Stage(done.append, 1)], Stop())
    assert done in ([], [1])


def test_it_stops_between_two_pieces() -> None:
    stop = Stop()
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        if number == 2:
            stop.set()

    with pytest.raises(Stopped):
        flow(range(1000), [Stage(work)], stop)
    assert done == [0, 1, 2]
    with pytest.raises(Stopped):
        stop.pause(60)
