"""Embeddings out of a server's JSON: the same float32 as the plain way makes of it, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some
from numpy.typing import NDArray

from chromactl.errors import ChromactlError
from chromactl.stores import answer

FLOAT32 = some.floats(width=32, allow_nan=False, allow_infinity=False)


def plainly(content: bytes) -> NDArray[np.float32]:
    return np.asarray(orjson.loads(content)["embeddings"], np.float32)


def same_bits(content: bytes) -> bool:
    expected = plainly(content)
    found: NDArray[np.float32] = answer.decode(content)["embeddings"]
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@given(some.integers(1, 6).flatmap(lambda n: some.lists(some.lists(FLOAT32, min_size=n, max_size=n), min_size=1)))
def test_every_float32_survives_as_servers_write_it(rows: list[list[float]]) -> None:
    shortest = orjson.dumps({"ids": [], "embeddings": [np.asarray(row, "<f4") for row in rows]}, option=16)
    assert same_bits(shortest)
    assert same_bits(orjson.dumps({"embeddings": rows, "documents": None}))
    assert answer.decode(shortest)["embeddings"].tobytes() == np.asarray(rows, np.float32).tobytes()


@given(some.floats(-3.4e38, 3.4e38), some.floats(-3.4e38, 3.4e38))
def test_float64_is_rounded_as_before(one: float, two: float) -> None:
    assert same_bits(b'{"embeddings":[[%s,%s]]}' % (repr(one).encode(), repr(two).encode()))


@pytest.mark.parametrize(
    "rows",
    [
        b"[[1]]",
        b"[[-0.0,0.0,-0,0]]",
        b"[[1e-45,1.4e-45,7e-46,1e-400]]",
        b"[[3.4028235e38,-3.4028235E+38]]",
        b"[[16777217,16777219.0,9007199254740993]]",
        b"[[0.1,2.5E-3],[1e5,1E5]]",
        b"[[null,1.0],[2.0,null]]",
        b"[[]]",
        b"[[],[]]",
        b"[ [1.0, 2.0],\n [3.0, 4.0] ]",
        b"[[1.0, 2.0], [3.0, 4.0]]",
        b"[[1.0,2.0] ,[3.0,4.0]]",
        b"[[1.0,2.0],[3.0,4.0] ]",
    ],
)
def test_edges(rows: bytes) -> None:
    assert same_bits(b'{"ids":["a"],"embeddings":%b,"documents":["d"]}' % rows)


def test_what_is_not_embeddings_is_left_as_it_is() -> None:
    other: dict[str, Any] = {
        "ids": ['"embeddings":[[', "b"],
        "documents": ['{"embeddings":[[1.0]]}', None],
        "metadatas": [{"embeddings": '"embeddings":[[9.0]]', "list": ["]]", "[["]}, {"embeddings": [1.5, 2.5]}],
        "uris": [None, '\\"embeddings\\":[[7.0]]'],
    }
    rows = [[1.0, 2.0], [3.0, 4.0]]
    for body in ({"embeddings": rows, **other}, {**other, "embeddings": rows}):
        found = answer.decode(orjson.dumps(body))
        assert found.pop("embeddings").tolist() == rows
        assert found == other


@pytest.mark.parametrize("embeddings", [b"null", b"[]"])
def test_an_answer_without_embeddings(embeddings: bytes) -> None:
    found = answer.batch(answer.decode(b'{"ids":[],"embeddings":%b,"documents":[]}' % embeddings))
    assert (len(found), found.embeddings.shape) == (0, (0, 0))
    assert found.embeddings.dtype == np.float32
    text = answer.batch(answer.decode(b'{"ids":["a"],"embeddings":null,"documents":["d"],"metadatas":[{}]}'))
    assert (text.embeddings.shape, text.documents, text.uris, text.metadatas) == ((1, 0), ["d"], [None], [None])


@pytest.mark.parametrize("rows", [b"[[1.0,2.0],[3.0]]", b"[[1.0],null]", b"[[1.0],[]]"])
def test_rows_of_different_length_are_a_damaged_source(rows: bytes) -> None:
    with pytest.raises(ChromactlError, match="different dimensions"):
        answer.decode(b'{"ids":["a","b"],"embeddings":%b}' % rows)


@pytest.mark.parametrize("content", [b"<html>", b'{"embeddings":[[1.0,NaN]]}', b'{"embeddings":[[1.0,2.0', b""])
def test_what_is_no_json_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        answer.decode(content)


@pytest.mark.parametrize("content", [b"true", b"null", b"3", b'["a"]'])
def test_other_json_is_given_back_as_it_is(content: bytes) -> None:
    assert answer.decode(content) == orjson.loads(content)
