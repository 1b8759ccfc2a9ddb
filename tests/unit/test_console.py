from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from chromactl import console as module
from chromactl.console import Console, unseen


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_lines_go_to_stderr_and_nothing_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    Console().line("✓ [bold]not markup[/bold] :smile:")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == "✓ [bold]not markup[/bold] :smile:\n"


def test_a_long_line_stays_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    Console().line("word " * 100)
    assert capfd.readouterr().err.count("\n") == 1


def test_a_quiet_console_only_logs(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("chromactl").propagate = True
    caplog.set_level(logging.INFO, logger="chromactl.console")
    console = Console(quiet=True)
    console.line("said")
    with console.progress(10, "export") as advance:
        advance("export", 10)
    assert capfd.readouterr() == ("", "")
    assert "said" in caplog.text


def test_without_a_terminal_a_line_comes_every_few_seconds(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with Console().progress(10_000, "import") as advance:
        for _ in range(100):
            clock.now += 0.2
            advance("import", 100)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "import 2,500 of 10,000; 500/s, 15 s left",
        "import 5,000 of 10,000; 500/s, 10 s left",
        "import 7,500 of 10,000; 500/s, 5 s left",
        "import 10,000 of 10,000; 500/s, 0 s left",
    ]


def test_a_short_step_says_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with Console().progress(10, "import") as advance:
        clock.now += module.SECONDS_BETWEEN_LINES - 0.1
        advance("import", 10)
    assert capfd.readouterr() == ("", "")


def test_a_stalled_step_divides_by_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with Console().progress(10, "import") as advance:
        clock.now += 10
        advance("import", 0)
    assert capfd.readouterr().err == "import 0 of 10; 0/s, time left not known yet\n"


def test_steps_at_the_same_time_share_a_line_and_the_last_one_tells_the_rate(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with Console().progress(100, "export", "import") as advance:
        advance("export", 80)
        clock.now += 10
        advance("import", 20)
    assert capfd.readouterr().err == "export 80, import 20 of 100; 2/s, 40 s left\n"


def test_no_line_is_lost_between_threads(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with Console().progress(4000, "import") as advance:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: advance("import", 1), range(3999)))
        clock.now += 10
        advance("import", 1)
    assert capfd.readouterr().err == "import 4,000 of 4,000; 400/s, 0 s left\n"


def test_progress_that_nobody_sees() -> None:
    unseen("import", 5)
