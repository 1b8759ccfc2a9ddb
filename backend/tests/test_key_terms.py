from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.core.keys import terms
from app.core.keys.key import Key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["a", "ann@example.com", "Jörg Müller", "プロジェクト", "a.b:c+d_e-f", "'; DROP TABLE x --", "x" * 128]
)
def test_names_are_taken_as_given(name: str) -> None:
    tenant = terms.tenant(name, name)
    assert (tenant.user_id, tenant.project_id) == (name, name)


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "a/b", "/", " a", "a ", "a\nb", "a\tb", "a\x00b", "\ud800", "a\u2028b", "\u200b", "\x7f"]
)
def test_names_that_could_be_mistaken_are_refused(name: str) -> None:
    for user, project in ((name, "p"), ("u", name)):
        with pytest.raises(ValueError, match=r"a (user|project) has"):
            terms.tenant(user, project)


def test_labels_fit_on_a_line() -> None:
    assert terms.label("") == ""
    assert terms.label("CI of the shop, 2026") == "CI of the shop, 2026"
    for text in ("a\nb", "\x1b[31m", "x" * 201):
        with pytest.raises(ValueError, match="the label has"):
            terms.label(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        (" 4w ", NOW + timedelta(weeks=4)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31T12:00:00Z", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_ends_are_spans_or_moments(text: str, moment: datetime) -> None:
    assert terms.end(text, NOW) == moment
    assert terms.end(text, NOW).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text", ["", "90", "d", "1m", "-1d", "90 d", "tomorrow", "999999w", "9999-99-99", "२d", "0001-01-01T00:00:00+23:00"]
)
def test_what_is_no_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="that is no time; give 90d"):
        terms.end(text, NOW)


@pytest.mark.parametrize("text", ["0d", "2026-11-20", "2026-11-20T12:00:00", "1999-01-01"])
def test_an_end_that_is_past_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is past"):
        terms.end(text, NOW)


def test_no_two_keys_are_alike_and_none_shows_its_secret() -> None:
    one, other = Key.new(), Key.new()
    assert one.id != other.id
    assert one.reveal() != other.reveal()
    assert one.secret.get_secret_value() not in f"{one} {one!r}"
    assert Key.parse(one.reveal()) == one


def test_only_a_whole_key_is_one() -> None:
    key = Key.new().reveal()
    for text in ("", f"{key}A", key[:-1], f" {key}", f"{key}\n", key.upper(), key.replace("cs_", "cs-")):
        assert Key.parse(text) is None


def test_a_secret_fits_its_hash_alone() -> None:
    key = Key.new()
    assert key.matches(key.hash())
    assert not Key(key.id, Key.new().secret).matches(key.hash())
    assert len(key.hash()) == 32
