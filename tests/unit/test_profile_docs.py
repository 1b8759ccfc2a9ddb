"""The profiles that docs/migration.md shows do what the page says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromactl.schema import profile as profiles
from chromactl.schema.profile import Profile
from chromactl.schema.rules import CollectionRules, Rule
from chromactl.schema.transform import Transform
from support.records import Record, batch_of

PAGE = (Path(__file__).resolve().parents[2] / "docs/migration.md").read_text(encoding="utf-8")
EXAMPLES = [profiles.parse(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
BY_NAME = {example.name: example for example in EXAMPLES}


def through(name: str, source: str, *metadatas: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Each target's ids with their metadata, and the reasons of rejects."""
    records = [
        Record(f"r{number}", np.ones(8, np.float32), "three little words", None, metadata)
        for number, metadata in enumerate(metadatas)
    ]
    targets, rejects = Transform(BY_NAME[name], source).apply(batch_of(records))
    landed = {target: dict(zip(batch.ids, batch.metadatas, strict=True)) for target, batch in targets.items()}
    return landed, [reject.reason for reject in rejects]


def test_every_example_on_the_page_is_a_profile() -> None:
    assert [example.name for example in EXAMPLES] == ["support-tickets", "notes-by-language", "one-library"]


def test_the_fields_of_the_first_example() -> None:
    old = {"lang": "spanish", "prio": "2", "score": 5, "file": "in/2023-05.txt", "tags": ["a"], "other": 1.0}
    landed, reasons = through("support-tickets", "tickets_web", old, {"priority": 9}, {"score": 1})
    assert landed["tickets_web"]["r0"] == {
        "language": "es", "priority": 2, "score": 5.0, "urgent": False, "tags": ["a"], "schema_version": 2,
        "year": 2023, "product": "web", "words": 3, "origin": "from tickets_web", "reference": "",
        "file": "in/2023-05.txt", "other": 1.0,
    }  # fmt: skip
    assert reasons == ["invalid_priority", "missing_priority"]


def test_one_into_several() -> None:
    landed, reasons = through(
        "notes-by-language",
        "notes",
        {"language": "es"},
        {"language": "english", "draft": False},
        {"language": "en", "draft": True},
        {"language": "fr"},
    )
    assert {name: list(rows) for name, rows in landed.items()} == {
        "notes_es": ["r0"],
        "notes_en": ["r1"],
        "notes_rest": ["r2", "r3"],
    }
    assert reasons == []


@pytest.mark.parametrize("year", [2022, 2023, 2024])
def test_several_into_one(year: int) -> None:
    landed, reasons = through("one-library", f"letters_{year}", {"a": "b"})
    assert landed == {"library": {f"letters_{year}/r0": {"year": year, "a": "b"}}}
    assert reasons == []


@pytest.mark.parametrize("model", [Profile, Rule, CollectionRules])
def test_every_key_that_a_profile_may_have_is_explained(model: type[Profile] | type[Rule]) -> None:
    section = PAGE[PAGE.index("## Profiles") :]
    keys = {str(one.validation_alias or name) for name, one in model.model_fields.items()}
    assert {key for key in keys if f"`{key}`" not in section and f"\n{key}:" not in section} == set()


def test_every_reason_to_reject_is_explained() -> None:
    code = (Path(__file__).resolve().parents[2] / "scripts/chromactl/landing.py").read_text(encoding="utf-8")
    reasons = set(re.findall(r'"([a-z]+_[a-z_]+)"', code))
    assert len(reasons) > 10
    assert {reason for reason in reasons if f"`{reason}`" not in PAGE} == set()
