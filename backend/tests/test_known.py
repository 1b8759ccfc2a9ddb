"""What is known of collections by name: how old it may be, what Chroma is asked, and who waits for whom."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from chromadb.types import Collection

from app.core.chroma.known import ABSENT_SECONDS, Known
from app.core.chroma.resolver import staged_name
from app.core.errors import ChromaUnavailable

RUN = "20261120T101500-0a1b2c"


def collection(name: str) -> Collection:
    return Collection.model_validate(
        {
            "id": uuid4(),
            "name": name,
            "configuration_json": {},
            "serialized_schema": None,
            "metadata": None,
            "dimension": None,
            "tenant": "t",
            "database": "d",
        }
    )


class Chroma:
    """Collections that can be asked for by name or all together, and a clock; counts what it was asked."""

    def __init__(self, ttl: float = 5.0, most: int = 100) -> None:
        self.now = 0.0
        self.live: dict[str, Collection] = {}
        self.got: list[str] = []
        self.listings = 0
        self.error: Exception | None = None
        self.hold: threading.Event | None = None
        self.inside = threading.Event()
        self.known = Known(ttl, self._get, self._every, lambda: self.now, most)

    def make(self, name: str) -> Collection:
        self.live[name] = collection(name)
        return self.live[name]

    def rename(self, name: str, other: str) -> None:
        self.live[other] = self.live.pop(name).model_copy(update={"name": other})

    def _get(self, name: str) -> Collection | None:
        self.got.append(name)
        found = self.live.get(name)
        if self.hold is not None:
            self.inside.set()
            assert self.hold.wait(10)
        if self.error is not None:
            raise self.error
        return found

    def _every(self) -> list[Collection]:
        self.listings += 1
        return list(self.live.values())


def test_a_name_is_asked_for_again_only_when_time_is_up() -> None:
    chroma = Chroma()
    first = chroma.make("x")
    assert chroma.known.find("x") == first
    second = chroma.make("x")
    chroma.now = 3.9
    assert chroma.known.find("x") == first
    chroma.now = 5.0
    assert chroma.known.find("x") == second
    assert (chroma.got, chroma.listings) == (["x", "x"], 0)


def test_the_list_is_asked_for_again_only_when_time_is_up() -> None:
    chroma = Chroma()
    chroma.make("x")
    chroma.make(staged_name("x", RUN))
    assert set(chroma.known.all()) == {"x"}
    chroma.make("y")
    chroma.now = 4.9
    assert set(chroma.known.all()) == {"x"}
    chroma.now = 5.0
    assert set(chroma.known.all()) == {"x", "y"}
    assert chroma.listings == 2


def test_an_id_that_is_gone_is_asked_for_at_once() -> None:
    chroma = Chroma()
    first = chroma.make("x")
    assert chroma.known.find("x") == first
    del chroma.live["x"]
    assert chroma.known.find("x", gone=first.id) is None
    second = chroma.make("x")
    assert chroma.known.find("x") == second
    assert chroma.known.find("x", gone=first.id) == second  # another found out before


def test_a_list_with_an_id_that_is_gone_is_not_believed() -> None:
    chroma = Chroma(ttl=3600)
    first = chroma.make("x")
    assert chroma.known.find("x") == first
    chroma.now = 1.0
    assert chroma.known.all()["x"] == first
    del chroma.live["x"]
    chroma.now = 2.0
    assert chroma.known.find("x", gone=first.id) is None


def test_what_is_not_there_is_found_as_soon_as_it_is() -> None:
    chroma = Chroma()
    for _ in range(10):
        assert chroma.known.find("x") is None
    made = chroma.make("x")
    assert chroma.known.find("x") == made
    assert (len(chroma.got), chroma.listings) == (11, 1)  # by name each time, and never by the list of all


def test_names_that_nobody_has_cost_one_list_now_and_then_together() -> None:
    chroma = Chroma()
    for second in range(int(3 * ABSENT_SECONDS)):
        chroma.now = float(second)
        assert chroma.known.find(f"x{second}") is None
    assert chroma.listings == 3


def test_between_the_renames_of_a_swap_the_old_one_is_found() -> None:
    chroma = Chroma()
    old = chroma.make("x")
    new = chroma.make(staged_name("x", RUN))
    assert chroma.known.find("x") == old
    assert chroma.known.find("nobody") is None  # a list from when the name was not in doubt
    chroma.now = 5.0
    chroma.rename("x", f"x--before-{RUN}")
    for now in (5.0, 9.0, 10.0, 20.0):  # for longer than the clock runs
        chroma.now = now
        found = chroma.known.find("x")
        assert found is not None
        assert (found.id, found.name) == (old.id, "x")
    chroma.rename(staged_name("x", RUN), "x")
    chroma.now = 25.0
    found = chroma.known.find("x")
    assert found is not None
    assert found.id == new.id


def test_who_starts_between_the_renames_finds_the_old_one_too() -> None:
    chroma = Chroma()
    old = chroma.make(f"x--before-{RUN}")
    chroma.make(staged_name("x", RUN))
    found = chroma.known.find("x")
    assert found is not None
    assert (found.id, found.name) == (old.id, "x")


def test_what_a_list_says_is_as_old_as_the_list() -> None:
    chroma = Chroma()
    old = chroma.make(f"x--before-{RUN}")
    chroma.make(staged_name("x", RUN))
    assert chroma.known.find("nobody") is None
    chroma.now = 4.0
    found = chroma.known.find("x")
    assert found is not None
    assert found.id == old.id
    chroma.rename(staged_name("x", RUN), "x")
    chroma.now = 5.0
    assert chroma.known.find("x") == chroma.live["x"]


def test_a_failure_is_told_and_not_remembered() -> None:
    chroma = Chroma()
    chroma.error = ChromaUnavailable()
    with pytest.raises(ChromaUnavailable):
        chroma.known.find("x")
    chroma.error = None
    made = chroma.make("x")
    assert chroma.known.find("x") == made


def test_threads_that_want_a_name_at_once_share_one_answer() -> None:
    chroma = Chroma()
    made = chroma.make("x")
    chroma.hold = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(chroma.known.find, "x") for _ in range(8)]
        assert chroma.inside.wait(10)
        chroma.hold.set()
        assert [one.result(10) for one in found] == [made] * 8
    # those that came after the answer use it; those that waited for it share it
    assert chroma.got == ["x"]


def test_a_name_that_is_slow_to_come_holds_up_no_other() -> None:
    chroma = Chroma()
    made = chroma.make("y")
    assert chroma.known.find("y") == made
    chroma.hold = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(chroma.known.find, "x")
        assert chroma.inside.wait(10)
        assert chroma.known.find("y") == made
        chroma.hold.set()
        assert slow.result(10) is None


def test_one_asks_before_time_is_up_and_the_others_go_on_meanwhile() -> None:
    chroma = Chroma()
    old = chroma.make("x")
    assert chroma.known.find("x") == old
    new = chroma.make("x")
    chroma.now = 4.5
    chroma.hold = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(chroma.known.find, "x")
        assert chroma.inside.wait(10)
        assert chroma.known.find("x") == old
        chroma.now = 5.0  # from here on nobody may be given the old one
        late = pool.submit(chroma.known.find, "x")
        assert not late.done()
        chroma.hold.set()
        assert [first.result(10), late.result(10)] == [new, new]
    assert chroma.got == ["x", "x"]


def test_no_more_names_are_kept_than_there_is_room_for() -> None:
    chroma = Chroma(most=3)
    for name in ("a", "b", "c"):
        chroma.make(name)
        chroma.known.find(name)
    for number in range(10):
        assert chroma.known.find(f"made up {number}") is None
    chroma.got.clear()
    for name in ("a", "b", "c"):
        chroma.known.find(name)
    assert chroma.got == []  # what is made up drives nobody out
    chroma.make("d")
    chroma.known.find("d")
    for name in ("d", "c", "b", "a"):
        chroma.known.find(name)
    assert chroma.got == ["d", "a"]
