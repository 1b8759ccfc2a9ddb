"""Reading what an OpenAI-compatible API answers: nothing of it is taken on trust."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy import float32
from numpy.typing import NDArray

from app.core.errors import WrongDimension

MAX_WORDS = 200
# A run of a text this long in a message gives the text away, and so does what the message puts in quotation marks.
_TELLTALE = 12
_QUOTED = re.compile(r"""'([^']{4,})'|"([^"]{4,})"|`([^`]{4,})`|“([^”]{4,})”""")


class NotAnAnswer(ValueError):
    """It is no answer of such an API; says why, to come after "it answers, but"."""


class UselessVector(ValueError):
    """The vector for a text cannot be used."""


def read_vectors(content: bytes, count: int, dimension: int) -> NDArray[float32]:
    """The vectors in the order of the texts, made unit length: float32[count, dimension].

    Raises NotAnAnswer, WrongDimension, UselessVector.
    """
    answer = _parsed(content)
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise NotAnAnswer("there is no list `data` in it, as OpenAI's API has")
    if len(entries) != count:
        raise NotAnAnswer(f"{len(entries)} vectors come back for {count} texts")
    in_order = {entry.get("index", place): entry.get("embedding") for place, entry in enumerate(entries)}
    if in_order.keys() != set(range(count)):
        raise NotAnAnswer("the numbers of the vectors are not those of the texts")
    rows = [_vector(in_order[place]) for place in range(count)]
    others = {len(row) for row in rows} - {dimension}
    if others:
        made = ", ".join(map(str, sorted(others)))
        raise WrongDimension(
            f"makes vectors of dimension {made}, EMBEDDING_DIMENSION is {dimension}.",
            hint="Set EMBEDDING_DIMENSION to what the model makes, or EMBEDDING_SEND_DIMENSION=true for a model "
            "that can make others.",
        )
    return _normalised(np.stack(rows))


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)  # takes the NaN that Python's servers write for one text, and that is no JSON
    except (ValueError, RecursionError):
        raise NotAnAnswer("what comes back is no JSON") from None


def _vector(given: Any) -> NDArray[np.float64]:
    if isinstance(given, str):
        try:
            return np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4").astype(np.float64)
        except (binascii.Error, ValueError):
            raise NotAnAnswer("a vector is no base64 of 32-bit floats") from None
    if not isinstance(given, list) or not all(type(number) in (int, float) or number is None for number in given):
        raise NotAnAnswer("what comes back as a vector is no list of numbers")
    try:
        return np.array(given, dtype=np.float64)  # a null, which others write for NaN, becomes one
    except OverflowError:
        raise UselessVector("it makes a vector of it with a number that no float holds") from None


def _normalised(rows: NDArray[np.float64]) -> NDArray[float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise UselessVector("it makes a vector of it that is zero or not finite")
    unit: NDArray[float32] = (rows / norms).astype(float32)
    return unit


def said(content: bytes, secrets: Sequence[str]) -> str:
    """`: <the API's words>` for a message, or nothing: no words without a meaning, none that quote what is secret."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(answer, dict) and key in answer:
            answer = answer[key]
    words = " ".join(answer.split())[:MAX_WORDS].rstrip(".") if isinstance(answer, str) else ""
    return f": {words}" if words and not any(_quotes(words, secret) for secret in secrets) else ""


def _quotes(words: str, secret: str) -> bool:
    """Whether a part of the secret is in the words: a longer one, all of a short one, or one in quotation marks."""
    plain = " ".join(secret.split())
    if len(plain) <= _TELLTALE:
        return plain in words
    runs = (words[start : start + _TELLTALE] for start in range(len(words) - _TELLTALE + 1))
    quoted = ("".join(match.groups("")) for match in _QUOTED.finditer(words))
    return any(part in plain for part in (*quoted, *runs))
