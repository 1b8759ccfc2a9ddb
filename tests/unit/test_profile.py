from __future__ import annotations

from pathlib import Path

import pytest

from chromactl.errors import UsageError
from chromactl.schema import profile


def written(folder: Path, text: str) -> str:
    path = folder / "own.yml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_built_in_profiles_load() -> None:
    assert profile.built_in() == ["identity", "sergio"]
    assert [profile.load(name).name for name in profile.built_in()] == ["identity", "sergio"]


def test_identity_takes_every_collection_and_sergio_its_four() -> None:
    assert profile.load("identity").names("anything")
    sergio = profile.load("sergio")
    assert sergio.names("sergio_corpus")
    assert not sergio.names("other")


def test_an_unknown_profile_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match=r"profile 'serge': neither a built-in profile \(identity, sergio\)"):
        profile.load("serge")


def test_a_file_of_ones_own_loads(tmp_path: Path) -> None:
    own = profile.load(written(tmp_path, "name: own\nfields: {a: {from: [b], default: '{collection}'}}\n"))
    assert own.rules("x")["a"].default == "{collection}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "not YAML"),
        ("name: a\n\tb: c", "not YAML"),
        ("", "valid dictionary"),
        ("- a\n- b\n", "valid dictionary"),
        ("fields: {}\n", "name"),
        ("name: a\nfeilds: {}\n", "feilds"),
        ("name: a\nfields: {x: {form: [y]}}\n", "fields.x.form"),
        ("name: a\nfields: {x: {type: text}}\n", "fields.x.type"),
        (
            "name: a\nfields: {x: {from: [{field: a, document: words}]}}\n",
            "exactly one of field, regex, document, collection",
        ),
        ("name: a\nfields: {x: {from: [{regex: {field: a, pattern: '('}}]}}\n", "pattern"),
        ("name: a\nfields: {x: {format: date}}\n", "fields.x.format"),
        ("name: a\ncollections: {c: {rules: {}}}\n", "collections.c.rules"),
    ],
)
def test_what_is_no_profile_is_refused_in_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        profile.load(written(tmp_path, text))
    assert said in str(refused.value)
    assert "own.yml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_bytes(b"\xff\xfename")
    with pytest.raises(UsageError, match=r"own\.yml"):
        profile.load(str(tmp_path / "own.yml"))


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    one = profile.load(written(tmp_path, "name: a\nfields: {x: {default: b}}\n")).digest
    same = profile.load(written(tmp_path, "fields:\n  x:\n    default: b\nname: a\n")).digest
    other = profile.load(written(tmp_path, "name: a\nfields: {x: {default: c}}\n")).digest
    assert one == same != other
