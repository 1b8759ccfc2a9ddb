"""The reports of whole validations between files: JSON by its schema, Markdown and HTML with hostile data in them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # ships no types

from chromactl.stores.base import CollectionSpec
from chromactl.stores.snapshot import SnapshotTarget
from support.command import Chromactl
from support.records import Record, batch_of, plain

SCHEMA = Path(__file__).resolve().parents[2] / "docs/validation.schema.json"
HOSTILE = '<script>alert("x")</script> | `**&amp;'
RUN = "20260101T000000-000000"


def snapshot(name: str, records: list[Record], collection: str = "pets") -> None:
    target = SnapshotTarget(Path(name), "a test")
    staged = target.stage(CollectionSpec(collection, "l2"), RUN)
    target.write(staged, batch_of(records))
    target.swap([staged], RUN)


def validated(chromactl: Chromactl, *more: str, code: int = 0) -> dict[str, Any]:
    place = ["--old-db-url", "snapshot:old", "--new-db-url", "snapshot:new", "--profile", "identity", "--json"]
    ended = chromactl("validate", *place, *more)
    assert ended.code == code, ended.err
    return ended.json


def hostile(record: str, **metadata: Any) -> Record:
    return Record(record, plain(1)[0].embedding, HOSTILE, None, {HOSTILE: HOSTILE, **metadata})


@pytest.fixture
def report(chromactl: Chromactl) -> dict[str, Any]:
    snapshot("old", [*plain(40), hostile(HOSTILE, n=1), hostile("gone")])
    snapshot("new", [*plain(40)[:39], hostile(HOSTILE, n=1.0), hostile("new" + HOSTILE)])
    return validated(chromactl, code=4)


class Tags(HTMLParser):
    """The tags of a page, with what they refer to; an error if they are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in ("meta", "link", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_json_follows_its_schema(report: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    written = json.loads(Path("validation_report.json").read_text())
    for body in (report, written):
        Draft202012Validator(schema).validate(body)
    assert [test["number"] for test in written["tests"]] == list(range(1, 9))


def test_the_tests_found_what_was_done(report: dict[str, Any]) -> None:
    assert {test["number"]: test["status"] for test in report["tests"]} == {
        1: "FAILED",
        2: "PASSED",
        3: "PASSED",
        4: "SKIPPED",
        5: "PASSED",
        6: "PASSED",
        7: "FAILED",
        8: "SKIPPED",
    }
    lines = [json.loads(line) for line in Path("validation_report.offenders.jsonl").read_text().splitlines()]
    assert {(line["test"], line["id"], line["what"]) for line in lines} == {
        (1, "r00039", "missing"),
        (1, "gone", "missing"),
        (1, "new" + HOSTILE, "extra"),
        (7, HOSTILE, "float instead of int"),
    }


def test_the_page_is_sound_and_asks_the_network_for_nothing(report: dict[str, Any]) -> None:
    text = Path("validation_report.html").read_text()
    tags = Tags(text)
    assert "script" not in tags.names
    assert [link for link in tags.links if link != "data:,"] == []
    assert not re.search(r"@import|url\(", text)
    assert "&lt;script&gt;" in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "$" not in re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL)
    assert tags.names.count("details") == 8


def test_markdown_keeps_its_tables_whatever_ids_hold(report: dict[str, Any]) -> None:
    text = Path("validation_report.md").read_text()
    assert "<script>" not in text
    columns = [
        [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    ]
    assert columns
    assert all(len(set(counts)) == 1 for counts in columns)


def test_only_the_first_twenty_are_in_the_report(chromactl: Chromactl) -> None:
    snapshot("old", plain(1500))
    snapshot("new", plain(1500)[:5])
    report = validated(chromactl, code=4)
    first = report["tests"][0]["offenders"]
    assert (first["total"], first["records"], len(first["first"])) == (1495, 1495, 20)
    assert len(Path("validation_report.offenders.jsonl").read_text().splitlines()) == 1495
    assert report["rollback_reason"] == "Data Loss Detected"
    assert report["data_loss_percentage"] == pytest.approx(100 * 1495 / 1500, abs=1e-3)
    assert "1,475 more" in Path("validation_report.md").read_text()


def test_an_earlier_report_stays_if_nothing_could_be_compared(chromactl: Chromactl) -> None:
    Path("validation_report.md").write_text("earlier")
    ended = chromactl("validate", "--old-db-url", "snapshot:none", "--new-db-url", "snapshot:new", "--json")
    assert (ended.code, ended.out) == (3, "")
    assert Path("validation_report.md").read_text() == "earlier"
    assert not list(Path().glob(".*partial"))


def test_a_database_is_not_compared_with_itself(chromactl: Chromactl) -> None:
    snapshot("old", plain(5))
    ended = chromactl("validate", "--old-db-url", "snapshot:old", "--new-db-url", "snapshot:old")
    assert ended.code == 2
    assert "the same database" in ended.err
