"""Schemathesis against the running service: whatever is sent, the answer is one that the OpenAPI page has."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import Postgres
from support.stack import Stack, stack

EXAMPLES = "30"
# Valid by the schema is not all: a cursor is one that was given, a filter has a grammar, a text is not blank.
TOO_STRICT = "positive_data_acceptance"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("openapi"), postgres, {"RAG_COLLECTIONS": "*"}) as made:
        client = made.of()
        for body in ({"content": "rain", "metadata": {"n": 1}}, {"content": "snow"}):
            client.post("/memories", json=body).raise_for_status()
        client.post("/rag/documents", json={"content": "hail", "source": "almanac.md"}).raise_for_status()
        made.index()
        yield made


def schemathesis(running: Stack, folder: Path, *options: str) -> int:
    """Run it with a valid key, the same each time; the number of requests that it made."""
    ended = subprocess.run(  # noqa: S603 (the test's own arguments)
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"{running.api.url}/openapi.json", "--header", f"Authorization: Bearer {running.key()}"),
            *("--checks", "all", "--exclude-checks", TOO_STRICT, "--max-examples", EXAMPLES),
            *("--generation-deterministic", "--no-color", "--continue-on-failure", "--suppress-health-check", "all"),
            *("--request-timeout", "60", "--warnings", "off"),
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    generated = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert generated is not None, ended.stdout[-2000:]
    assert generated[1] == generated[2]
    return int(generated[1])


def test_no_request_gets_a_5xx_or_an_answer_that_is_not_documented(running: Stack, tmp_path: Path) -> None:
    assert schemathesis(running, tmp_path) > 500
    assert "unexpected" not in running.api.process.text()
    assert running.api.http.get("/health/ready").json()["status"] == "ready"


def test_nor_while_chroma_is_down(running: Stack, tmp_path: Path) -> None:
    running.chroma.kill()
    searches = ("--include-path-regex", "search|query", "--phases", "examples,coverage,fuzzing")
    # what only Chroma has cannot be searched then: a 503, and documented
    assert schemathesis(running, tmp_path, *searches, "--exclude-checks", f"{TOO_STRICT},not_a_server_error") > 50
    assert "unexpected" not in running.api.process.text()
