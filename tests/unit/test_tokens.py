from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from chromactl.errors import ChromactlError, PreconditionError, UsageError
from chromactl.migrate.config import MigrateConfig
from chromactl.options import access
from chromactl.schema import profile
from chromactl.stores.opening import Access

TOKEN = "s3cret-token-that-nobody-sees"


def with_token(path: Path | None = None, side: str = "source") -> Access:
    return access("http://127.0.0.1:1", side, path, "t", "d")


def test_a_token_file_gives_its_one_word(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    token = with_token(file).token
    assert token is not None
    assert token.get_secret_value() == TOKEN


@pytest.mark.parametrize(("side", "twin"), [("source", "CHROMACTL_SOURCE_TOKEN"), ("", "CHROMACTL_TOKEN")])
def test_the_environment_gives_a_token_too(monkeypatch: pytest.MonkeyPatch, side: str, twin: str) -> None:
    monkeypatch.setenv(twin, TOKEN)
    token = with_token(side=side).token
    assert token is not None
    assert token.get_secret_value() == TOKEN


def test_a_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("of-the-file")
    monkeypatch.setenv("CHROMACTL_SOURCE_TOKEN", "of-the-environment")
    token = with_token(tmp_path / "token").token
    assert token is not None
    assert token.get_secret_value() == "of-the-file"


def test_without_either_there_is_no_token() -> None:
    assert with_token().token is None


@pytest.mark.parametrize("content", ["", " \n\t"])
def test_an_empty_token_is_not_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(PreconditionError, match=r"token: the token is empty"):
        with_token(tmp_path / "token")
    monkeypatch.setenv("CHROMACTL_SOURCE_TOKEN", content)
    with pytest.raises(PreconditionError, match="CHROMACTL_SOURCE_TOKEN: the token is empty"):
        with_token()


@pytest.mark.parametrize("content", ["gehëim-s3cret", "two s3cret words", "s3cret\nlines", "s3cret\x07"])
def test_a_token_that_no_header_can_hold_is_refused_unseen(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="printable ASCII") as refused:
        with_token(tmp_path / "token")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("case", ["missing", "a folder", "bytes"])
def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path, case: str) -> None:
    file = tmp_path / "token"
    if case == "a folder":
        file.mkdir()
    elif case == "bytes":
        file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PreconditionError, match=f"{file}: this token file cannot be read"):
        with_token(file)


def test_the_token_is_in_no_repr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMACTL_SOURCE_TOKEN", TOKEN)
    entry = with_token()
    config = MigrateConfig(entry, entry, profile.load("identity"), tmp_path, tmp_path, tmp_path)
    assert TOKEN not in f"{entry!r}{entry}{config!r}{config}{config.fingerprint}"


def test_the_token_is_in_no_message_and_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from chromactl.stores.opening import open_source

    monkeypatch.setenv("CHROMACTL_SOURCE_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ChromactlError) as failed:
        open_source(with_token())
    logging.getLogger("test").debug("seen", exc_info=failed.value)
    assert TOKEN not in caplog.text + str(failed.value)
    assert TOKEN in os.environ["CHROMACTL_SOURCE_TOKEN"]
