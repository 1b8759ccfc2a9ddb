"""Texts of test queries embedded over HTTP: the same answers as by hand, and one clear line for all that goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import Chromactl
from support.databases import Database
from support.embedding_server import MODEL, EmbeddingServer, Spoil, embedding_server
from support.ended import Ended
from support.records import Made, plain

Pair = tuple[Database, Database]
OPENAI = ["--embedding-provider", "openai"]
KEY = "k3y-of-the-tests"
DIMENSION = 768
QUERIES: list[dict[str, Any]] = [
    {"text": "conscientiousness values", "collection": "cats"},
    {"text": "metaphor systems thinking"},
    {"vector": [0.5] * DIMENSION, "collection": "dogs"},
]


@pytest.fixture
def model() -> Iterator[EmbeddingServer]:
    with embedding_server(DIMENSION, KEY) as server:
        yield server


@pytest.fixture
def both(pair: Pair, _own_folder: None, tmp_path: Path) -> Pair:
    """The same collections on both sides."""
    for database in pair:
        database.put(Made("cats", "cosine", plain(20, DIMENSION)), Made("dogs", "cosine", plain(20, DIMENSION, seed=1)))
    (tmp_path / "queries.json").write_text(json.dumps(QUERIES))
    (tmp_path / "key").write_text(f"{KEY}\n")
    return pair


def provider(model: EmbeddingServer, *more: object) -> list[object]:
    return [*OPENAI, "--embedding-url", model.url, "--embedding-model", MODEL, *more]


def validate(chromactl: Chromactl, pair: Pair, *more: object) -> Ended:
    place = ["--old-db-url", pair[0].url, "--new-db-url", pair[1].url, "--database", pair[0].name]
    asked = ["--test-queries", "queries.json", "--stored-queries", "0", "--profile", "identity", "--limit-ms", "60000"]
    return chromactl("validate", *place, *asked, "--max-retries", "1", "--json", *more)


def smoke(chromactl: Chromactl, pair: Pair, *more: object) -> Ended:
    Path("texts.json").write_text(json.dumps(QUERIES[:2]))
    place = ["--db-url", pair[1].url, "--database", pair[1].name, "--test-queries", "texts.json"]
    return chromactl("smoke", *place, "--limit-ms", "60000", "--max-retries", "1", "--json", *more)


def test_texts_are_embedded_by_the_model(both: Pair, chromactl: Chromactl, model: EmbeddingServer) -> None:
    by_hand = validate(chromactl, both)
    ended = validate(chromactl, both, *provider(model, "--embedding-key-file", "key"))
    assert ended.code == 0, ended.err
    texts = {"conscientiousness values", "metaphor systems thinking"}
    assert sorted(model.texts) == sorted(texts)
    asked = [(one["collection"], one["text"], one["overlap"]) for one in ended.json["queries"]]
    assert asked == [(one["collection"], one["text"], one["overlap"]) for one in by_hand.json["queries"]]
    notes = ended.json["tests"][3]["notes"]
    assert f"texts of test queries embedded by {model.url}: {MODEL}" in notes
    assert "texts of test queries embedded by the hashing embedder" in by_hand.json["tests"][3]["notes"]


def test_smoke_asks_with_the_model_too(
    both: Pair, chromactl: Chromactl, model: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMACTL_EMBEDDING_KEY", KEY)
    ended = smoke(chromactl, both, *provider(model))
    assert ended.code == 0, ended.err
    assert sorted(model.texts) == sorted(query["text"] for query in QUERIES[:2])
    assert all(query["results"] == 5 for query in ended.json["queries"])


def test_the_key_goes_to_the_model_alone(
    both: Pair, chromactl: Chromactl, model: EmbeddingServer, tmp_path: Path
) -> None:
    ended = validate(chromactl, both, *provider(model, "--embedding-key-file", "key"), "--verbose")
    assert ended.code == 0, ended.err
    ((path, headers),) = model.requests
    assert path == "/v1/embeddings"
    assert [name for name, value in headers.items() if KEY in value] == ["authorization"]
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "key"]
    assert written
    assert not [file for file in written if KEY.encode() in file.read_bytes()]
    assert KEY not in ended.out + ended.err


@pytest.mark.parametrize("command", [validate, smoke])
def test_a_passing_500_is_tried_again(both: Pair, chromactl: Chromactl, model: EmbeddingServer, command: Any) -> None:
    model.refuse = [500]
    assert command(chromactl, both, *provider(model, "--embedding-key-file", "key")).code == 0


def without(name: str, count: int) -> Spoil:
    return lambda good: {**good, name: good[name][:count]}


def vectors(*numbers: Any) -> Spoil:
    return lambda good: {**good, "data": [{"index": n, "embedding": list(numbers)} for n in range(len(good["data"]))]}


@pytest.mark.parametrize("command", [validate, smoke])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda _: b"<html>hello</html>", "no JSON"),
        (lambda _: {"vectors": []}, "no list `data`"),
        (lambda _: [], "no list `data`"),
        (without("data", 1), "vectors come back for"),
        (lambda good: {**good, "data": [{**one, "index": 0} for one in good["data"]]}, "numbering"),
        (vectors("a"), "no list of finite numbers"),
        (vectors(0.0, 0.0), "is zero"),
        (vectors(1e300), "too large for 32 bits"),
        (vectors(1.0, 2.0, 3.0), "dimension 3"),
    ],
)
def test_what_is_no_answer_is_said_in_one_line(
    both: Pair, chromactl: Chromactl, model: EmbeddingServer, command: Any, spoil: Spoil, words: str
) -> None:
    model.spoil = spoil
    ended = command(chromactl, both, *provider(model, "--embedding-key-file", "key"))
    assert (ended.code, ended.out) == (3, "")
    assert words in ended.complaint
    assert model.url in ended.complaint
    if "dimension" in words:
        assert "768" in ended.complaint
    assert not list(Path().glob("*report*"))


def test_a_wrong_key(both: Pair, chromactl: Chromactl, model: EmbeddingServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("an0ther")
    for more in ([], ["--embedding-key-file", "key"]):
        ended = validate(chromactl, both, *provider(model, *more))
        assert (ended.code, ended.out) == (3, "")
        assert "--embedding-key-file" in ended.complaint
        assert "an0ther" not in ended.complaint


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [(None, 3, "this key file cannot be read"), ("", 3, "the key is empty"), ("two words", 2, "a key is one word")],
)
def test_a_key_file_that_holds_none(
    both: Pair, chromactl: Chromactl, model: EmbeddingServer, content: str | None, code: int, words: str
) -> None:
    if content is not None:
        Path("odd").write_text(content)
    ended = smoke(chromactl, both, *provider(model, "--embedding-key-file", "odd"))
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.complaint
    assert model.requests == []


def test_refusals_are_the_models_own_words(both: Pair, chromactl: Chromactl, model: EmbeddingServer) -> None:
    options = ["--embedding-key-file", "key"]
    model.refuse = [500, 500]
    ended = validate(chromactl, both, *provider(model, *options))
    assert (ended.code, ended.out) == (3, "")
    assert "the model is on fire" in ended.err.splitlines()[-1]
    ended = validate(chromactl, both, *provider(model, *options, "--embedding-model", "other"))
    assert (ended.code, ended.out) == (3, "")
    assert "no model other" in ended.complaint


def test_nobody_there(both: Pair, chromactl: Chromactl, model: EmbeddingServer) -> None:
    place = [*OPENAI, "--embedding-model", MODEL, "--max-retries", "0"]
    ended = validate(chromactl, both, *place, "--embedding-url", "http://127.0.0.1:9/v1")
    assert (ended.code, ended.out) == (3, "")
    assert "connection refused" in ended.complaint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (OPENAI, "--embedding-url"),
        ([*OPENAI, "--embedding-url", "http://a/v1"], "--embedding-model"),
        (["--embedding-url", "http://a/v1"], "--embedding-provider openai"),
        (["--embedding-key-file", "key"], "--embedding-provider openai"),
        (
            ["--embedding-provider", "openai", "--embedding-url", "http://u:p@a/v1", "--embedding-model", "m"],
            "without key",
        ),
        (["--embedding-provider", "openai", "--embedding-url", "a", "--embedding-model", "m"], "http://host:port/v1"),
    ],
)
def test_options_that_do_not_go_together(both: Pair, chromactl: Chromactl, options: list[str], words: str) -> None:
    ended = validate(chromactl, both, *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.complaint
