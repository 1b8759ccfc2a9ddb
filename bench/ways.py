"""The ways of moving or reading the data that are measured: their names, in the order of a round."""

from __future__ import annotations

from collections.abc import Iterable

INSERTS = "inserts"
READERS = {
    "client": "Chroma's client, pages of 1,000",
    "offset-1": "REST, pages of 500 by offset",
    "offset-4": "REST, pages of 500 by offset, 4 threads",
    "ids-1": "REST, by ids in chunks of 500",
    "ids-4": "REST, by ids in chunks of 500, 4 threads",
}
SERVERS = ("1.5.9", "0.6.3")

WAYS = {
    INSERTS: "bare inserts",
    "migrate-1.5.9": "chromactl migrate, from 1.5.9",
    "migrate-0.6.3": "chromactl migrate, from 0.6.3",
    "migrate-path": "chromactl migrate, from a copied 0.6.3 directory",
    "validate-1.5.9": "chromactl validate, of that from 1.5.9",
    "strict-1.5.9": "chromactl migrate --strict-phases, from 1.5.9",
    **{f"naive-{server}": f"naive client loop, nothing verified, from {server}" for server in SERVERS},
    **{f"again-{server}": f"finished run again, from {server}" for server in SERVERS},
    "exact-0.6.3": "finished run again with --exact-recheck, from 0.6.3",
    **{f"export-{server}": f"chromactl's export, from {server}" for server in SERVERS},
    **{f"read-{server}-{reader}": f"{what}, from {server}" for server in SERVERS for reader, what in READERS.items()},
}
"""Names, and what the table calls them."""

ONCE = frozenset({"strict-1.5.9"})
"""What is gone in the first round only."""

LARGE_INSERTS, LARGE_MIGRATE = "large-inserts", "large-migrate"


def source_of(way: str) -> str | None:
    """Where a way reads: a server's version or `path`; None where it only writes."""
    return next((source for source in (*SERVERS, "path") if source in way.split("-")), None)


def chosen(words: Iterable[str]) -> tuple[str, ...]:
    """The ways of these names, or whose names begin with them; all without any. Bare inserts are always among them.

    Raises:
        ValueError: a word is no way's name and none begins with it.
    """
    words = list(words)
    for word in words:
        if not any(_means(word, way) for way in WAYS):
            raise ValueError(f"--ways {word}: no such way; there are {', '.join(WAYS)}")
    wanted = {way for way in WAYS if not words or any(_means(word, way) for word in words)}
    # A run can only be done again, and validated, where it was done.
    wanted |= {f"migrate-{source_of(way)}" for way in wanted if way.startswith(("again-", "exact-", "validate-"))}
    return tuple(way for way in WAYS if way in wanted | {INSERTS})


def _means(word: str, way: str) -> bool:
    return way == word or way.startswith(f"{word}-")
