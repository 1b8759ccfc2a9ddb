"""What README and .env.example say of the service is what the service has."""

from __future__ import annotations

import re
from pathlib import Path

from app import problems
from app.config import Settings

BACKEND = Path(__file__).resolve().parents[1]
README = (BACKEND / "README.md").read_text(encoding="utf-8")
SETTINGS = {name.upper() for name in Settings.model_fields}


def section(heading: str) -> list[str]:
    """The first cells of the rows of the section's tables."""
    text = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (.*?) \| ", text, flags=re.MULTILINE)


def test_readme_has_every_setting_and_no_other() -> None:
    told = [name for cell in section("Settings") for name in re.findall(r"`([A-Z_]+)`", cell)]
    assert sorted(told) == sorted(SETTINGS)


def test_env_example_has_every_setting_and_no_other() -> None:
    lines = (BACKEND / ".env.example").read_text(encoding="utf-8").splitlines()
    told = [match[1] for line in lines if (match := re.match(r"#? ?([A-Z_]+)=", line))]
    assert sorted(told) == sorted(SETTINGS)


def test_readme_has_every_problem_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (`.*`)", README, flags=re.MULTILINE)
    told = {slug: int(status) for status, slugs in rows for slug in re.findall(r"`([a-z-]+)`", slugs)}
    known = {slug: status for slug, (status, _) in problems._KNOWN.items()}
    assert told == known | {"not-found": 404, "method-not-allowed": 405, "unexpected": 500}
