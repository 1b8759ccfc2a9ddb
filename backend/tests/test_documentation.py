"""What README and .env.example say of the service is what the service has."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from app import problems
from app.config import Settings
from app.metrics import OUTCOMES, Metrics
from app.metrics_backlog import Backlog, metrics_of

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


def test_readme_has_every_metric_with_its_type_and_labels_and_no_other() -> None:
    text = README.split("\n## Metrics\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?)\| ", text, flags=re.MULTILINE)
    told = [(name, kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows]
    metrics = Metrics()
    _ = metrics.index  # an index worker's, which are made when there is one
    known = [
        (_name(family), family.type, list(collector._labelnames))
        for collector in metrics.registry._collector_to_names
        if isinstance(collector, MetricWrapperBase)
        for family in collector.collect()
    ]
    backlog = metrics_of(Backlog(events=1, oldest_seconds=1.0, dead_letters=1))
    known += [(family.name, family.type, [*family.samples[0].labels]) for family in backlog]
    assert sorted(told) == sorted(known)


def _name(family: Metric) -> str:
    """As Prometheus shows it."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_readme_says_what_can_become_of_a_record() -> None:
    (row,) = re.findall(r"^\| `chroma_stack_index_records_total` .*$", README, flags=re.MULTILINE)
    assert re.findall(r"`([a-z]+)`", row.split(":", 2)[2]) == list(OUTCOMES)
