"""Two databases, and the commands between them that migrate and roll back."""

from __future__ import annotations

from typing import Any

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.ended import Ended
from support.records import Made, nasty, plain

Pair = tuple[Database, Database]
PETS = Made("pets", "cosine", plain(700, 16))
NASTY = Made("nasty", "l2", nasty(lists=True))
FORMER = Made("pets", "l2", plain(90, 8, seed=5, prefix="former"), {"about": "what was there before", "n": 1})


class Place:
    """Two databases, and the commands between them."""

    def __init__(self, pair: Pair, chromactl: Chromactl) -> None:
        self.source, self.target = pair
        self.chromactl = chromactl

    def migrate(self, *more: str) -> dict[str, Any]:
        place = ["--source-url", self.source.url, "--target-url", self.target.url, "--database", self.source.name]
        ended = self.chromactl("migrate", *place, "--profile", "identity", "--json", *more)
        assert ended.code == 0, ended.err
        return ended.json

    def rollback(self, *more: object) -> Ended:
        return self.chromactl("rollback", "--json", *more)

    def rolled_back(self, *more: object) -> dict[str, Any]:
        ended = self.rollback(*more)
        assert ended.code == 0, ended.err
        return ended.json

    def state(self) -> dict[str, tuple[str, int, Any]]:
        """Names, keys, counts and metadata of everything in the target."""
        counts = self.target.counts()
        about = {name: self.target.description(name) for name in counts}
        return {name: (about[name]["id"], counts[name], about[name]["metadata"]) for name in counts}

    def holds(self, *collections: Made) -> None:
        """Exactly these collections, beside what runs have kept."""
        assert [name for name in self.target.names() if "--before-" not in name] == sorted(
            made.name for made in collections
        )
        for made in collections:
            assert_holds(self.target.records(made.name), made.records, made.space)
