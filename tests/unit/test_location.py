from __future__ import annotations

from pathlib import Path

import pytest

from chromactl.errors import UsageError
from chromactl.location import Kind, parse


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost", "http://localhost:8000"),
        ("HTTP://LocalHost:9/", "http://localhost:9"),
        ("https://chroma.example.org", "https://chroma.example.org:443"),
        ("https://example.org/chroma/", "https://example.org:443/chroma"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_has_one_canonical_form(text: str, canonical: str) -> None:
    location = parse(text)
    assert (location.kind, location.text, location.path) == (Kind.HTTP, canonical, None)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("path:data", Kind.DIRECTORY), ("snapshot:data", Kind.SNAPSHOT), ("data.json", Kind.JSON)],
)
def test_a_path_is_made_absolute(tmp_path: Path, text: str, kind: Kind) -> None:
    location = parse(text)
    assert location.kind is kind
    assert location.path == tmp_path / text.partition(":")[2] or location.path == tmp_path / text
    assert str(tmp_path) in location.text


def test_a_bare_folder_is_taken_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert parse("data").kind is Kind.DIRECTORY
    (tmp_path / "data" / "manifest.json").write_text("{}")
    assert parse("data").kind is Kind.SNAPSHOT


def test_the_canonical_form_of_a_path_names_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert parse("path:link") == parse("path:data/../data")


@pytest.mark.parametrize(
    "text",
    [
        "ftp://example.org",
        "postgres://example.org/db",
        "http://",
        "http:///path",
        "http://example.org:port",
        "http://example.org:99999",
        "http://[::1",
        "http://example.org/?tenant=a",
        "http://example.org/#x",
        "path:",
        "snapshot:",
        "no-such-folder",
        "localhost:8000",
        "",
    ],
)
def test_what_is_no_database_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert "\n" not in str(refused.value)
    assert "snapshot:/dir" in str(refused.value) or "--tenant" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://me:hunter2@example.org",
        "https://:hunter2@example.org",
        "http://hunter2@example.org",
        "http://me:hunter2@example.org:port",
        "http://me:hunter2@example.org:99999",
        "ftp://me:hunter2@example.org",
    ],
)
def test_a_password_in_an_address_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert "hunter2" not in str(refused.value)
