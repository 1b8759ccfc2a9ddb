"""Signals: at once where nothing is under way, between two pieces where threads have work in hand."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from chromactl import interrupt
from chromactl.migrate.flow import Stage, flow

RAISED = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupt.TerminatedError)]


@pytest.fixture(autouse=True)
def heeded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(interrupt, "_came", None)
    before = {number: signal.getsignal(number) for number in interrupt.EXIT_CODES}
    interrupt.heed()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "raised"), RAISED)
def test_a_signal_ends_the_program_at_once(number: signal.Signals, raised: type[BaseException]) -> None:
    with pytest.raises(raised):
        signal.raise_signal(number)


@pytest.mark.parametrize(("number", "raised"), RAISED)
def test_a_held_signal_waits_for_the_end_of_the_block(number: signal.Signals, raised: type[BaseException]) -> None:
    reached: list[str] = []

    def block() -> None:
        with interrupt.held():
            with interrupt.held():
                signal.raise_signal(number)
            reached.append("the end")

    with pytest.raises(raised):
        block()
    assert reached


def test_a_held_signal_is_let_through_where_the_work_allows_it() -> None:
    reached: list[str] = []

    def block() -> None:
        with interrupt.held():
            interrupt.let_through()
            signal.raise_signal(signal.SIGTERM)
            interrupt.let_through()
            reached.append("the end")

    with pytest.raises(interrupt.TerminatedError):
        block()
    assert not reached


def test_an_error_in_the_block_is_not_hidden_by_the_signal() -> None:
    def block() -> None:
        with interrupt.held():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


def test_the_second_signal_ends_the_process() -> None:
    child = os.fork()
    if child == 0:
        with interrupt.held():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


@pytest.mark.parametrize("workers", [1, 3])
def test_a_signal_while_a_thread_is_started_leaves_no_work_behind(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Raised there, it would leave a thread that its pool does not know, and the stores would be closed under it."""
    began: list[int] = []
    finished: list[int] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if not began or thread.name.endswith("_0"):
            signal.raise_signal(signal.SIGTERM)

    def work(piece: int) -> None:
        began.append(piece)
        time.sleep(0.2)
        finished.append(piece)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(interrupt.TerminatedError):
        flow(range(10), [Stage(work, workers)])
    assert began == finished == [0]


def test_a_signal_ends_a_flow_that_another_thread_waits_in() -> None:
    done: list[int] = []
    errors: list[BaseException] = []
    begun = threading.Event()

    def work(piece: int) -> None:
        begun.set()
        time.sleep(0.02)
        done.append(piece)

    def beside() -> None:
        try:
            flow(range(500), [Stage(work, 1)])
        except BaseException as error:
            errors.append(error)

    def block() -> None:
        with interrupt.held():
            thread = threading.Thread(target=beside)
            thread.start()
            assert begun.wait(30)
            signal.raise_signal(signal.SIGTERM)
            thread.join()

    with pytest.raises(interrupt.TerminatedError):
        block()
    assert 0 < len(done) < 100
    assert [type(error) for error in errors] == [interrupt.TerminatedError]
