"""Log lines: one each, for machines or people, and never what somebody said."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app import logs
from support.loggers import loggers_as_they_were

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """The loggers, after each test."""
    with loggers_as_they_were():
        yield


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Lines:
    """What was logged as JSON since the last look."""
    logs.configure("DEBUG", "json")
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_is_an_object(lines: Lines) -> None:
    logging.getLogger("app.x").info("said %s", "this", extra={"fields": {"status": 200, "ms": 1.5}})
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "logger": "app.x", "message": "said this", "status": 200, "ms": 1.5}


NASTY = {
    "new line": "a\nb",
    "colour": "\x1b[31mred",
    "line separator": "\u2028",
    "lone surrogate": "\ud800",
    "NUL": "\x00",
    "quote": '"',
    "not ASCII": "Grüße 東京",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_what_would_end_or_colour_a_line_does_not(lines: Lines, capfd: pytest.CaptureFixture[str], text: str) -> None:
    logging.getLogger("app").warning("it says %s", text)
    (line,) = lines()
    assert line["message"] == f"it says {text}"
    logs.configure("DEBUG", "text")
    logging.getLogger("app").warning("it says %s", text.encode(errors="replace").decode())
    written = capfd.readouterr().err
    assert len(written.splitlines()) == 1
    assert written[:-1].isprintable()


def test_an_exception_is_told_without_its_words(lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        try:
            raise KeyError("the s3cret")
        except KeyError as error:
            raise ValueError("a s3cret too") from error

    for form in ("json", "text"):
        logs.configure("DEBUG", form)
        try:
            fail()
        except ValueError:
            logging.getLogger("app").exception("it failed")
        written = capfd.readouterr().err
        assert "s3cret" not in written
        for told in ("it failed", "builtins.ValueError", "builtins.KeyError", "test_logs.py", " fail"):
            assert told in written


def test_exceptions_that_cause_each_other_come_to_an_end(lines: Lines) -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert list(logs.shown(one)) == ["builtins.ValueError", "builtins.KeyError"]


def test_a_failed_task_does_not_show_what_it_failed_with(lines: Lines) -> None:
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=X('the s3cret')>")
    (line,) = lines()
    assert line["message"] == "Task exception was never retrieved"


def test_libraries_are_heard_from_warning_up_whatever_our_level_is(lines: Lines) -> None:
    logging.getLogger("httpx").info("HTTP Request: POST http://x?q=s3cret")
    logging.getLogger("sqlalchemy.engine").debug("SELECT 's3cret'")
    logging.getLogger("httpx").warning("it is slow")
    logging.getLogger("app").debug("a detail")
    assert [line["message"] for line in lines()] == ["it is slow", "a detail"]
    logs.configure("ERROR", "json")
    logging.getLogger("app").warning("never mind")
    assert lines() == []


def test_uvicorn_takes_our_form_and_leaves_access_lines_to_us(lines: Lines) -> None:
    access = logging.getLogger("uvicorn.access")
    access.addHandler(logging.StreamHandler())
    logs.configure("INFO", "json")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    access.info('127.0.0.1 - "GET /memories?q=s3cret" 200')
    assert [line["message"] for line in lines()] == ["Invalid HTTP request received."]
    assert not access.hasHandlers()  # by which uvicorn decides whether to make the line at all


def test_configuring_twice_says_everything_once(lines: Lines) -> None:
    logs.configure("INFO", "json")
    logs.configure("INFO", "json")
    logging.getLogger("app").info("once")
    assert len(lines()) == 1


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO, True), (_Terminal, False)])
def test_auto_is_text_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], io.StringIO], is_json: bool
) -> None:
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    logs.configure("INFO", "auto")
    logging.getLogger("app.x").info("hello", extra={"fields": {"status": 200}})
    assert written.getvalue().startswith("{") == is_json
    if not is_json:
        assert written.getvalue().endswith(" INFO    app.x: hello status=200\n")


def test_a_very_long_message_is_cut(lines: Lines) -> None:
    logging.getLogger("app").info("x" * 100_000)
    (line,) = lines()
    assert len(line["message"]) == logs.MAX_MESSAGE
