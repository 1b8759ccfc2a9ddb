from __future__ import annotations

from app.core.silence import Silence


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_everybody_is_admitted_while_there_are_answers() -> None:
    silence = Silence(2.0, Clock())
    assert not silence.on
    assert [silence.admits() for _ in range(3)] == [True, True, True]


def test_after_a_failure_nobody_is_and_then_one_who_finds_out() -> None:
    clock = Clock()
    silence = Silence(2.0, clock)
    silence.begin()
    clock.now = 1.9
    assert silence.on
    assert not silence.admits()
    clock.now = 2.0
    assert [silence.admits() for _ in range(3)] == [True, False, False]
    clock.now = 1000.0  # however long that one takes
    assert not silence.admits()


def test_what_the_one_found_out_counts_for_all() -> None:
    clock = Clock()
    silence = Silence(2.0, clock)
    silence.begin()
    clock.now = 2.0
    assert silence.admits()
    silence.begin()
    clock.now = 3.9
    assert not silence.admits()
    clock.now = 4.0
    assert silence.admits()
    silence.end()
    assert not silence.on
    assert [silence.admits() for _ in range(3)] == [True, True, True]
