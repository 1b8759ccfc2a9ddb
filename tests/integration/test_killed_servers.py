"""Source or target server killed or hung at random moments, in every phase: the run survives, or can be gone on with.

The moments are drawn from a seeded generator, and counted in requests that passed forwarders to the two servers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from support.databases import Database, assert_holds
from support.forwarder import forwarder
from support.moments import Watch
from support.process import last_line, running
from support.records import Made, nasty, plain
from support.servers import Server, Version, chroma_server

SEED = 4
DATA = [Made("nasty", "cosine", nasty(lists=False)), Made("pets", "l2", plain(2300, 16))]

Side = Literal["source", "target"]
SIDES: list[Side] = ["source", "target"]


FEWEST: dict[Side, int] = {"source": 16, "target": 32}
"""How many requests each side gets at least in a run that nothing disturbs (a test counts them)."""


@dataclass
class Pair:
    """Two servers of a test's own, a forwarder before each, and the command that brings the data over."""

    folder: Path
    stack: ExitStack
    watch: Watch = field(default_factory=Watch)
    servers: dict[Side, Server] = field(default_factory=dict)
    urls: dict[Side, str] = field(default_factory=dict)

    def start(self, side: Side, version: Version = "1.5.9") -> None:
        """The server; on its former port if there was one."""
        before = self.servers.get(side)
        port = None if before is None else before.port
        version = version if before is None else before.version
        server = self.stack.enter_context(chroma_server(self.folder / side, port=port, version=version))
        if before is None:
            between = self.stack.enter_context(forwarder(server.url, guard=self.watch.guard(side)))
            self.urls[side] = between.url
        self.servers[side] = server

    def wake(self) -> None:
        """Let those go on that hang: the forwarders end when their last request does."""
        for server in self.servers.values():
            if server.process.running:
                server.resume()

    def options(self, *more: str) -> list[str]:
        place = ["--source-url", self.urls["source"], "--target-url", self.urls["target"]]
        return ["migrate", *place, "--profile", "identity", "--json", "--batch-size", "250", *more]

    def check(self) -> None:
        """Everything is there, once, and nothing else."""
        target = Database(self.servers["target"])
        assert target.names() == [made.name for made in DATA]
        for made in DATA:
            assert_holds(target.records(made.name), made.records, made.space)


@pytest.fixture
def pair_of(tmp_path: Path) -> Iterator[Callable[[Version], Pair]]:
    """Makes the servers, the source one of this version, and puts the data there."""
    with ExitStack() as stack:

        def make(version: Version) -> Pair:
            pair = Pair(tmp_path, stack)
            pair.start("source", version)
            pair.start("target")
            Database(pair.servers["source"]).put(*DATA)
            stack.callback(pair.wake)
            return pair

        yield make


def moment(side: Side, number: int, parts: int) -> int:
    """The request to this side at which it happens, in the `number`-th part of the run.

    Not the first: whoever is not there at all is not waited for.
    """
    chance = random.Random(f"{SEED} {side} {number}")  # noqa: S311 (a test has to be repeatable)
    return 2 + int((number + chance.random()) / parts * (FEWEST[side] - 2))


def at(pair: Pair, side: Side, number: int, act: Callable[[], None]) -> None:
    """Do this at the number-th request to the side."""
    pair.watch.counts = lambda to, path, body: to == side
    pair.watch.begin(at=number, act=act)


def finish(pair: Pair) -> None:
    with running(pair.folder, *pair.options()) as run:
        ended = run.end()
    assert ended.code == 0, ended.err
    pair.check()


def test_the_moments_are_within_a_run(pair_of: Callable[[Version], Pair]) -> None:
    pair = pair_of("1.5.9")
    pair.watch.begin()
    finish(pair)
    for side in SIDES:
        passed = sum(to == side for to, _, _ in pair.watch.seen)
        assert FEWEST[side] <= passed <= 2 * FEWEST[side]


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("side", SIDES)
def test_a_server_that_is_killed_and_comes_back_at_once_is_waited_for(
    side: Side, part: int, pair_of: Callable[[Version], Pair]
) -> None:
    pair = pair_of("1.5.9")
    at(pair, side, moment(side, part, 4), pair.servers[side].kill)
    with running(pair.folder, *pair.options()) as run:
        assert run.until(pair.watch.happened.is_set)
        pair.start(side)
        ended = run.end()
    assert ended.code == 0, ended.err
    pair.check()


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize(("side", "version"), [("source", "0.6.3"), ("target", "1.5.9")])
def test_a_run_whose_server_is_killed_says_which_and_goes_on_when_it_is_back(
    side: Side, version: Version, part: int, pair_of: Callable[[Version], Pair]
) -> None:
    pair = pair_of(version)
    at(pair, side, moment(side, part, 3), pair.servers[side].kill)
    with running(pair.folder, *pair.options("--max-retries", "1")) as run:
        assert run.until(pair.watch.happened.is_set)
        ended = run.end()
    assert pair.urls[side] in last_line(ended)
    assert not set(Database(pair.servers["target"]).names() if side == "source" else ()) & {"nasty", "pets"}
    pair.start(side)
    finish(pair)


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("side", SIDES)
def test_a_server_that_hangs_for_a_while_is_asked_again(
    side: Side, part: int, pair_of: Callable[[Version], Pair]
) -> None:
    """It wakes up when the same has been asked of it again; then it does all that it was asked meanwhile too."""
    pair = pair_of("1.5.9")
    at(pair, side, moment(side, part, 3), pair.servers[side].pause)
    with running(pair.folder, *pair.options("--timeout", "1")) as run:
        assert run.until(pair.watch.happened.is_set)
        asked = pair.watch.counted
        run.until(lambda: pair.watch.counted > asked + 2)
        pair.servers[side].resume()
        ended = run.end()
    assert ended.code == 0, ended.err
    pair.check()


@pytest.mark.parametrize("side", SIDES)
def test_a_run_whose_server_hangs_says_which_and_goes_on_when_it_wakes(
    side: Side, pair_of: Callable[[Version], Pair]
) -> None:
    pair = pair_of("1.5.9")
    at(pair, side, moment(side, 1, 2), pair.servers[side].pause)
    with running(pair.folder, *pair.options("--timeout", "1", "--max-retries", "1")) as run:
        assert run.until(pair.watch.happened.is_set)
        ended = run.end()
    assert pair.urls[side] in last_line(ended)
    pair.servers[side].resume()
    finish(pair)
