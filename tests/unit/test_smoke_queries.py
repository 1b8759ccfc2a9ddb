from __future__ import annotations

from pathlib import Path

import pytest

from chromactl.errors import UsageError
from chromactl.smoke import Answer, Query, SmokeReport, read_queries


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "queries.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_queries_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """[{"text": "a", "collection": "c", "category": "x", "where": {"n": {"$gt": 1}}},
            {"text": "ü", "collection": null, "category": "y"}, {"text": "b"}]""",
    )
    assert read_queries(path) == [
        Query(text="a", collection="c", category="x", where={"n": {"$gt": 1}}),
        Query(text="ü", category="y"),
        Query(text="b"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe[", "not JSON"),
        ("{}", "list"),
        ('{"queries": []}', "list"),
        ("[]", "holds no queries"),
        ("[1]", "entry 0"),
        ('[{"text": "a"}, {"collection": "c"}]', "entry 1.text"),
        ('[{"text": 5}]', "entry 0.text"),
        ('[{"text": "a", "colection": "c"}]', "entry 0.colection"),
        ('[{"text": "a", "where": "x"}]', "entry 0.where"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_with_the_place(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as refused:
        read_queries(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: cannot be read"):
        read_queries(tmp_path / "none.json")


def report(results: int, milliseconds: float, limit: float = 300.0) -> SmokeReport:
    return SmokeReport("x", [Answer(Query(text="q", collection="c"), results, [milliseconds] * 10)], limit)


def test_answers_in_time_pass() -> None:
    assert report(5, 20).failures == []


def test_an_empty_answer_and_a_slow_one_are_said() -> None:
    assert report(0, 20).failures == ["no result for 'q' in c"]
    assert report(5, 400).failures == ["p95 is 400 ms, the limit 300 ms"]
    assert report(5, 20, limit=10).failures == ["p95 is 20 ms, the limit 10 ms"]


def test_the_object_for_programs() -> None:
    body = report(0, 20).as_json()
    assert (body["command"], body["changed"], body["passed"]) == ("smoke", False, False)
    assert body["latency_ms"] == {"p50": 20.0, "p95": 20.0}
