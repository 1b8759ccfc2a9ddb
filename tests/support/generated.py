"""Records as hypothesis makes them: everything that a Chroma server takes, and what it does not."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from support.records import INT64_MAX, INT64_MIN, Made, Record

Strategy = SearchStrategy[Any]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LONG = st.sampled_from(["long " * 200, "ü\U0001f600" * 200, "a\x00b" * 200])
DOCUMENTS = st.one_of(st.none(), st.just(""), TEXT, LONG)
IDS = st.one_of(TEXT.filter(bool), st.sampled_from(["a/b?c#d %20", "..", "\x00", " ", "\U0001f600", "i" * 150]))
KEYS = st.one_of(
    TEXT.filter(lambda key: key and key[0] not in "#$" and not key.startswith("chroma:")),
    st.sampled_from(["a.b", "a b", "schlüssel", "Chroma:x", "a$", "\U0001f600", "id", "document", "k" * 100]),
)
INTS = st.one_of(st.integers(INT64_MIN, INT64_MAX), st.sampled_from([INT64_MAX, INT64_MIN, 0, -1, 2**53 + 1]))
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([-0.0, 5e-324, 1 / 3, 1e308, 1.0, 1e15])
)
SCALARS = st.one_of(st.booleans(), INTS, FLOATS, TEXT)
LISTS = st.one_of(*(st.lists(kind, min_size=1, max_size=3) for kind in (TEXT, INTS, FLOATS, st.booleans())))
WRONG: Strategy = st.one_of(
    st.sampled_from([None, [], {}, [None], [1, "a"], [1, 1.5], [True, 1], {"nested": 1}, [["a"]], 2**63]),
    st.just({"#type": "sparse_vector", "indices": [1], "values": [0.5]}),
)
WRONG_KEYS = st.sampled_from(["", "#id", "$and", "chroma:document", "chroma:x"])
ANY_FLOAT32 = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 1e-45, -1.1754944e-38, 3.4028234663852886e38, 1.0, 1e-30, 1e25]).map(
        lambda number: float(np.float32(number))
    ),
)
MODEST_FLOAT32 = st.one_of(
    st.just(0.0), st.floats(float(np.float32(1e-3)), float(np.float32(1e3)), width=32).map(lambda number: -number)
)


def reproducible(examples: int, *, shrink: bool = True) -> settings:
    """So many examples, the same ones every time in CI; servers take what time they take.

    Without `shrink` the first that fails is shown as it is: where each try takes seconds.
    """
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    return settings(max_examples=examples, deadline=None, derandomize="CI" in os.environ, database=None, phases=phases)


@st.composite
def made(
    draw: st.DrawFn,
    *,
    lists: bool,
    flags: bool = True,
    modest: tuple[str, ...] = (),
    wrong: bool = False,
    most: int = 6,
) -> Made:
    """A collection that a server takes.

    With `lists` as values, with `flags` in its own metadata; in `modest` metrics without very long or short vectors.

    With `wrong` some records hold what cannot land.
    """
    space = draw(st.sampled_from(["l2", "cosine", "ip"]))
    dimension = draw(st.integers(1, 4))
    numbers = MODEST_FLOAT32 if space in modest else ANY_FLOAT32
    values = st.one_of(SCALARS, LISTS) if lists else SCALARS
    fine = st.dictionaries(KEYS, values, max_size=4)
    both = st.dictionaries(st.one_of(KEYS, WRONG_KEYS), st.one_of(values, WRONG), min_size=1, max_size=3)
    metadata = st.one_of(fine, both) if wrong else fine
    names = draw(st.lists(IDS, unique=True, min_size=1, max_size=most))
    records = [
        Record(
            name,
            _vector(draw(st.lists(numbers, min_size=dimension, max_size=dimension))),
            draw(DOCUMENTS),
            draw(st.one_of(st.none(), TEXT.filter(bool))),
            draw(metadata) or None,
        )
        for name in names
    ]
    about = draw(st.dictionaries(KEYS, SCALARS if flags else st.one_of(INTS, FLOATS, TEXT), max_size=3))
    return Made("pets", space, records, about or None)


def _vector(numbers: list[float]) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)
