"""What playbooks and operators do with `app`: the schema, and keys in files."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.app_command import App, app_in
from support.ended import Ended


@pytest.fixture
def app(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    """The command line, with a database of its own."""
    return app_in(tmp_path, {"DATABASE_URL": database_url}, monkeypatch, capfd)


def said(ended: Ended) -> dict[str, Any]:
    """What it says when it went well."""
    assert ended.code == 0, ended.err
    return ended.json


def test_the_schema_is_made_once_and_a_dry_run_makes_nothing(app: App, database_url: str) -> None:
    upgraded = said(app("database", "upgrade", "--json", "--dry-run"))
    assert upgraded["changed"] is True
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('memory_logs')").fetchone() == (None,)
    done = said(app("database", "upgrade", "--json"))
    assert (upgraded["upgraded"], done["changed"]) == (done["upgraded"], True)
    again = {"changed": False, "upgraded": [], "version": done["version"]}
    assert said(app("database", "upgrade", "--json")) == again
    assert said(app("database", "upgrade", "--json", "--dry-run")) == again


def test_a_key_file_is_made_once_and_made_again_when_its_key_is_worth_nothing(
    app: App, database_url: str, tmp_path: Path
) -> None:
    said(app("database", "upgrade", "--json"))
    path = tmp_path / "operator.key"
    ensure = ("keys", "ensure", "--json", "--user", "ann", "--project", "first", "--file", str(path))
    assert said(app(*ensure, "--dry-run")) == {"changed": True}
    assert not path.exists()
    assert said(app(*ensure)) == {"changed": True}
    made = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert said(app(*ensure)) == {"changed": False}
    assert path.read_text() == made
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE api_keys SET revoked_at = now()")
    assert said(app(*ensure, "--dry-run")) == {"changed": True}
    assert path.read_text() == made
    assert said(app(*ensure)) == {"changed": True}
    assert path.read_text() != made
    assert {entry.name for entry in tmp_path.iterdir()} == {"operator.key"}


def test_a_file_that_is_somebody_elses_is_left_alone(app: App, tmp_path: Path) -> None:
    said(app("database", "upgrade", "--json"))
    path = tmp_path / "a.key"
    ensure = ("keys", "ensure", "--user", "ann", "--project", "first", "--file", str(path))
    for content, reason in (
        (
            app("keys", "issue", "--user", "bob", "--project", "first").out,
            "holds a valid key of bob/first, not of ann",
        ),
        ("root:x:0:0\n", "holds something that is no key"),
        ("\udcff\n", "holds something that is no key"),
    ):
        path.write_bytes(content.encode(errors="surrogateescape"))
        ended = app(*ensure)
        assert (ended.code, ended.out) == (3, "")
        assert reason in ended.complaint
        assert path.read_bytes() == content.encode(errors="surrogateescape")


def test_no_key_is_issued_that_cannot_be_kept(app: App, database_url: str, tmp_path: Path) -> None:
    said(app("database", "upgrade", "--json"))
    ended = app("keys", "ensure", "--user", "a", "--project", "b", "--file", str(tmp_path / "absent" / "a.key"))
    assert ended.code == 3
    assert "cannot be written: No such file or directory" in ended.complaint
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM api_keys").fetchone() == (0,)
