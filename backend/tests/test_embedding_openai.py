"""Texts embedded over HTTP: right vectors, or the right one to blame."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.core.embedding import check_provider, make_provider
from app.core.embedding.hashing import HashingEmbedder
from app.core.embedding.openai import ATTEMPTS, OpenAIEmbedder
from app.core.errors import EmbeddingUnavailable, StartupError, TextRefused, WrongDimension
from support.embedding_server import MODEL, EmbeddingServer, Judge, Spoil, embedding_server

KEY = "k3y-of-the-tests"
DIMENSION = 32
TEXTS = [f"text number {n}" for n in range(10)]
POISON = "a p0ison that nobody takes"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server(DIMENSION, KEY) as running:
        yield running


@pytest.fixture
def make(server: EmbeddingServer) -> Iterator[Callable[..., OpenAIEmbedder]]:
    """A provider for the server, from settings as an operator would write them."""
    made: list[OpenAIEmbedder] = []

    def one(**more: Any) -> OpenAIEmbedder:
        given: dict[str, Any] = {
            "embedding_provider": "openai",
            "embedding_url": server.url,
            "embedding_model": MODEL,
            "embedding_dimension": DIMENSION,
            "embedding_batch": 4,
            "embedding_timeout_seconds": 5,
        }
        key = {} if "embedding_api_key_file" in more else {"embedding_api_key": SecretStr(KEY)}
        provider = make_provider(Settings.model_validate(given | key | more))
        assert isinstance(provider, OpenAIEmbedder)
        made.append(provider)
        return provider

    yield one
    for provider in made:
        provider.close()


Make = Callable[..., OpenAIEmbedder]


def refusing(what: Callable[[str], bool], status: int = 400, words: str = "no") -> Judge:
    """Refuses a request with such a text in it."""

    def judge(body: dict[str, Any]) -> tuple[int, Any] | None:
        return (status, {"error": {"message": words}}) if any(map(what, body["input"])) else None

    return judge


def poisoned(text: str) -> bool:
    return "p0ison" in text


def everything(_: str) -> bool:
    return True


def test_the_vectors_are_the_models_in_the_order_of_the_texts(server: EmbeddingServer, make: Make) -> None:
    provider = make()
    rows = provider.embed(TEXTS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, HashingEmbedder(DIMENSION).embed(TEXTS), atol=1e-7)
    assert [len(body["input"]) for body in server.bodies] == [4, 4, 2]
    assert {body["model"] for body in server.bodies} == {MODEL}
    assert provider.embed([]).shape == (0, DIMENSION)
    assert (provider.name, provider.model) == ("openai", f"openai:{MODEL}:{DIMENSION}")


def test_the_key_goes_into_one_header_and_is_read_anew(server: EmbeddingServer, make: Make, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    provider = make(embedding_api_key_file=file)
    with pytest.raises(EmbeddingUnavailable, match="EMBEDDING_API_KEY_FILE") as caught:
        provider.embed(["a"])
    assert "old" not in str(caught.value)
    file.write_text(f"{KEY}\n")
    provider.embed(["a"])
    assert [name for name, value in server.requests[-1][1].items() if KEY in value] == ["authorization"]
    file.unlink()
    with pytest.raises(EmbeddingUnavailable, match="No such file"):
        provider.embed(["a"])


@pytest.mark.parametrize("tail", ["", "/", "/embeddings"])
def test_the_address_may_be_written_in_several_ways(server: EmbeddingServer, make: Make, tail: str) -> None:
    make(embedding_url=server.url + tail).embed(["a"])
    assert server.requests[-1][0] == "/v1/embeddings"


def test_asks_for_the_dimension_where_told_to(server: EmbeddingServer, make: Make) -> None:
    make().embed(["a"])
    make(embedding_send_dimension=True).embed(["a"])
    assert [body.get("dimensions") for body in server.bodies] == [None, DIMENSION]


def test_takes_numbers_where_base64_is_not_offered(server: EmbeddingServer, make: Make) -> None:
    server.judge = lambda body: (400, {"error": {"message": "float only"}}) if _wants_base64(body) else None
    provider = make()
    expected = HashingEmbedder(DIMENSION).embed(TEXTS)
    np.testing.assert_allclose(provider.embed(TEXTS), expected, atol=1e-7)
    assert [_wants_base64(body) for body in server.bodies] == [True, False, False, False]


def _wants_base64(body: dict[str, Any]) -> bool:
    return bool(body["encoding_format"] == "base64")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_passes_is_tried_again(server: EmbeddingServer, make: Make, status: int) -> None:
    server.refuse = [status, status]
    server.retry_after = "0"
    assert make().embed(["a"]).shape == (1, DIMENSION)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_what_does_not_pass_is_told_and_others_are_not_kept_waiting(
    server: EmbeddingServer, make: Make, status: int
) -> None:
    server.judge = refusing(everything, status, "come back later")
    provider = make()
    with pytest.raises(EmbeddingUnavailable, match=f"HTTP {status}: come back later"):
        provider.embed(TEXTS)
    assert len(server.requests) == ATTEMPTS
    with pytest.raises(EmbeddingUnavailable, match="a moment ago"):
        provider.embed(TEXTS)
    assert len(server.requests) == ATTEMPTS


def test_does_not_wait_longer_than_it_may(server: EmbeddingServer, make: Make) -> None:
    server.judge = refusing(everything, 429)
    server.retry_after = "3600"
    with pytest.raises(EmbeddingUnavailable, match="HTTP 429"):
        make().embed(["a"])
    assert len(server.requests) == 1


def test_nobody_there(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(EmbeddingUnavailable, match=rf"127\.0\.0\.1:{port}.*[Rr]efused.*EMBEDDING_URL"):
        make(embedding_url=f"http://127.0.0.1:{port}/v1").embed(["a"])


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_text_that_is_refused_is_to_blame_and_no_other(server: EmbeddingServer, make: Make, status: int) -> None:
    server.judge = refusing(poisoned, status, "this model reads 512 tokens at most")
    provider = make()
    with pytest.raises(TextRefused, match="512 tokens"):
        provider.embed([POISON])
    with pytest.raises(TextRefused):
        provider.embed([*TEXTS[:5], POISON, *TEXTS[5:]])
    assert provider.embed(TEXTS).shape == (10, DIMENSION)  # it is there all the same


def test_who_refuses_everything_is_to_blame_and_no_text(server: EmbeddingServer, make: Make) -> None:
    server.judge = refusing(everything, 400, "the model `x` is not loaded")
    with pytest.raises(EmbeddingUnavailable, match="refuses every text: HTTP 400: the model `x` is not loaded"):
        make().embed(TEXTS)


@pytest.mark.parametrize(
    "content",
    [
        b'{"data": [{"index": 0, "embedding": [' + b"9" * 400 + b", 1.0" * (DIMENSION - 1) + b"]}]}",
        b'{"data": [{"index": 0, "embedding": [NaN' + b", 1.0" * (DIMENSION - 1) + b"]}]}",
        json.dumps({"data": [{"index": 0, "embedding": [None] * DIMENSION}]}).encode(),
        json.dumps({"data": [{"index": 0, "embedding": [0.0] * DIMENSION}]}).encode(),
        json.dumps({"data": [{"index": 0, "embedding": [1e200] * DIMENSION}]}).encode(),
    ],
)
def test_a_text_without_a_usable_vector_is_to_blame(server: EmbeddingServer, make: Make, content: bytes) -> None:
    server.judge = lambda body: (200, content) if body["input"] == [POISON] else None
    with pytest.raises(TextRefused, match="makes a vector of it"):
        make().embed([POISON])


def test_learns_how_many_texts_are_taken_at_once(server: EmbeddingServer, make: Make) -> None:
    server.judge = lambda body: (422, {"error": "batch size 4 > maximum 2"}) if len(body["input"]) > 2 else None
    provider = make()
    np.testing.assert_allclose(provider.embed(TEXTS), HashingEmbedder(DIMENSION).embed(TEXTS), atol=1e-7)
    server.bodies.clear()
    provider.embed(TEXTS)
    assert [len(body["input"]) for body in server.bodies] == [2] * 5


def test_takes_fewer_texts_at_once_when_many_take_too_long(server: EmbeddingServer, make: Make) -> None:
    over = threading.Event()

    def slow(body: dict[str, Any]) -> None:
        if len(body["input"]) > 2:
            over.wait(20)

    server.judge = slow
    try:
        provider = make(embedding_timeout_seconds=0.5)
        np.testing.assert_allclose(provider.embed(TEXTS), HashingEmbedder(DIMENSION).embed(TEXTS), atol=1e-7)
    finally:
        over.set()


def test_a_provider_that_hangs_costs_the_deadline(server: EmbeddingServer, make: Make) -> None:
    over = threading.Event()

    def hang(_: dict[str, Any]) -> None:
        over.wait(20)

    server.judge = hang
    try:
        provider = make(embedding_timeout_seconds=0.3)
        with pytest.raises(EmbeddingUnavailable, match=r"did not answer within 0\.3 s"):
            provider.embed(["a"])
        with pytest.raises(EmbeddingUnavailable, match="a moment ago"):
            provider.embed(["a"])
    finally:
        over.set()


def without(name: str, count: int) -> Spoil:
    return lambda good: {**good, name: good[name][:count]}


def vectors(made: Any) -> Spoil:
    return lambda good: {**good, "data": [{"index": n, "embedding": made} for n in range(len(good["data"]))]}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _: b"<html>hello</html>", "no JSON"),
        (lambda _: b"[" * 100_000, "no JSON"),
        (lambda _: {"vectors": []}, "no list `data`"),
        (lambda _: [], "no list `data`"),
        (lambda good: {**good, "data": [1, 2]}, "no list `data`"),
        (without("data", 1), "1 vectors come back for 2 texts"),
        (lambda good: {**good, "data": [{**one, "index": 0} for one in good["data"]]}, "numbers of the vectors"),
        (vectors(["a"]), "no list of numbers"),
        (vectors([True]), "no list of numbers"),
        (vectors({"a": 1}), "no list of numbers"),
        (vectors(None), "no list of numbers"),
        (vectors("no base64"), "no base64"),
        (vectors("AAA="), "no base64"),
    ],
)
def test_what_is_no_answer_is_told(server: EmbeddingServer, make: Make, spoil: Spoil, says: str) -> None:
    server.spoil = spoil
    with pytest.raises(EmbeddingUnavailable, match=says) as caught:
        make().embed(["a", "b"])
    line = str(caught.value)
    assert server.url in line
    assert "EMBEDDING_URL" in line
    assert "\n" not in line


@pytest.mark.parametrize("status", [301, 402, 404, 405])
def test_what_is_at_the_wrong_place_is_told(server: EmbeddingServer, make: Make, status: int) -> None:
    server.judge = refusing(everything, status)
    with pytest.raises(EmbeddingUnavailable, match=f"HTTP {status}.*EMBEDDING_URL and EMBEDDING_MODEL"):
        make().embed(["a"])
    assert len(server.requests) == 1


def test_vectors_of_another_length_are_told_at_start(server: EmbeddingServer, make: Make) -> None:
    provider = make(embedding_dimension=768)
    with pytest.raises(WrongDimension, match=f"dimension {DIMENSION}, EMBEDDING_DIMENSION is 768"):
        provider.embed(["a"])
    with pytest.raises(StartupError, match="EMBEDDING_SEND_DIMENSION"):
        check_provider(provider)
    check_provider(make())


def test_one_that_is_not_there_at_start_is_told_of(
    server: EmbeddingServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server.judge = refusing(everything, 503, "loading the model")
    server.retry_after = "3600"
    check_provider(make())
    assert "loading the model" in caplog.text


@pytest.mark.parametrize("text", ["a s3cret told to nobody at all, of some length", "s3cret"])
@pytest.mark.parametrize("shape", [{"error": {"message": "{}"}}, {"error": "{}"}, {"detail": [{"input": "{}"}]}])
def test_words_that_quote_the_text_or_the_key_are_not_repeated(
    server: EmbeddingServer, make: Make, text: str, shape: dict[str, Any]
) -> None:
    for quoted in (text, KEY):
        echo = json.loads(json.dumps(shape).replace("{}", f"cannot embed '{quoted}'"))
        server.judge = lambda body, echo=echo: (400, echo) if body["input"] == [text] else None
        with pytest.raises(TextRefused, match="HTTP 400") as caught:
            make().embed([text])
        assert "s3cret" not in str(caught.value)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "repeated"),
    [
        ("the token 's3cret' is unknown", False),
        ("the token `s3cret` is unknown", False),
        ("cannot embed …rd is a s3cret t…", False),
        ("the input is longer than 512 tokens", True),
        ("the model 'x' is not loaded", True),
    ],
)
def test_a_part_of_a_text_is_not_repeated_either(
    server: EmbeddingServer, make: Make, words: str, repeated: bool
) -> None:
    text = "the longer word is a s3cret told to nobody"
    server.judge = refusing(lambda given: given == text, 400, words)
    with pytest.raises(TextRefused) as caught:
        make().embed([text])
    assert (words in str(caught.value)) is repeated
