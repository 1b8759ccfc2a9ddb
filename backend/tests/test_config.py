from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import VERSION
from app.config import Settings, load_settings
from app.core.errors import InvalidSettings
from support.service import child_environment

SECRET = "sesam-öffne-dich"


def test_without_configuration_it_is_persistent_and_needs_nothing() -> None:
    settings = load_settings()
    assert settings.chroma_mode == "persistent"
    assert settings.chroma_db_path == Path("data/chroma_memory")
    assert settings.chroma_persist_dir == Path("data/chroma")
    assert settings.token() is None
    assert settings.embedding_dimension == 768


def test_reads_environment_before_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHROMA_MODE=http\nCHROMA_HOST=from-file\nCHROMA_PORT=9000\nOTHER=1\n")
    monkeypatch.setenv("CHROMA_HOST", "from-environment")
    settings = load_settings()
    assert (settings.chroma_mode, settings.chroma_host, settings.chroma_port) == ("http", "from-environment", 9000)


def test_splits_collection_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_COLLECTIONS", " alpha, beta ,,alpha")
    assert load_settings().rag_collections == ("alpha", "beta")


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_AUTH_TOKEN", "")
    monkeypatch.setenv("CHROMA_PORT", "")
    assert load_settings().token() is None
    assert load_settings().chroma_port == 8000


def test_the_version_is_the_distributions() -> None:
    with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == VERSION


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().chroma_port = 1


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CHROMA_MODE", "cloud", "persistent"),
        ("CHROMA_PORT", "http", "valid integer"),
        ("CHROMA_PORT", "70000", "65535"),
        ("CHROMA_HOST", "http://localhost", "without http://"),
        ("CHROMA_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("EMBEDDING_PROVIDER", "word2vec", "hashing"),
        ("EMBEDDING_DIMENSION", "-1", "greater than or equal to 1"),
        ("LOG_LEVEL", "loud", "INFO"),
        ("SEARCH_DEGRADED", "perhaps", "PostgreSQL"),
        ("SEARCH_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("CHROMA_AUTH_TOKEN_FILE", "/does/not/exist", "No such file"),
    ],
)
def test_names_the_mistake_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        load_settings()
    line = str(caught.value)
    assert name in line
    assert says in line
    assert "\n" not in line


def test_says_where_a_mistake_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHROMA_PORT=abc\n")
    with pytest.raises(InvalidSettings, match=r"CHROMA_PORT='abc' \(\.env file\)"):
        load_settings()
    monkeypatch.setenv("CHROMA_PORT", "xyz")
    with pytest.raises(InvalidSettings, match=r"CHROMA_PORT='xyz' \(environment\)"):
        load_settings()


def test_an_env_file_that_is_not_text_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSettings, match=r"\.env cannot be read"):
        load_settings()


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_AUTH_TOKEN", SECRET)
    with pytest.raises(InvalidSettings, match="ASCII") as caught:
        load_settings()
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("CHROMA_AUTH_TOKEN", "sesam")
    assert "sesam" not in repr(load_settings())


def test_takes_a_token_from_one_place_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    monkeypatch.setenv("CHROMA_AUTH_TOKEN_FILE", str(file))
    token = load_settings().token()
    assert token is not None
    assert token.get_secret_value() == "from-file"
    monkeypatch.setenv("CHROMA_AUTH_TOKEN", "from-environment")
    with pytest.raises(InvalidSettings, match="both set"):
        load_settings()


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe"])
def test_refuses_a_file_that_holds_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    monkeypatch.setenv("CHROMA_AUTH_TOKEN_FILE", str(file))
    with pytest.raises(InvalidSettings, match="CHROMA_AUTH_TOKEN_FILE"):
        load_settings()


def test_a_rotated_token_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    settings = Settings.model_validate({"chroma_auth_token_file": file})
    file.write_text("new")
    token = settings.token()
    assert token is not None
    assert token.get_secret_value() == "new"


def test_the_process_ends_with_one_line_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "app.main:app"],
        env=child_environment(CHROMA_PORT="abc", CHROMA_AUTH_TOKEN="bad token"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "CHROMA_PORT='abc'" in done.stderr
    assert "bad token" not in done.stderr
