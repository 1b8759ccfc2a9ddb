"""Records that can never be indexed, and an index that was put back: what workers and operators make of them.

The service, its index worker, PostgreSQL and Chroma are processes of their own; the embedding provider answers from
here, and the commands run here.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

from support.embedding_server import MODEL, EmbeddingServer, embedding_server
from support.killable import Caller, Stack, stack, until
from support.servers import chroma_server
from support.service import DIMENSION, app_in_process

# So many that none is given up by itself while a test looks: that would take minutes.
ATTEMPTS = 10


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddingServer]:
    with embedding_server(DIMENSION) as server:
        yield server


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, provider: EmbeddingServer, module_ready_url: str
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("poison")
    variables = {
        "EMBEDDING_PROVIDER": "openai",
        "EMBEDDING_URL": provider.url,
        "EMBEDDING_MODEL": MODEL,
        "INDEX_MAX_ATTEMPTS": str(ATTEMPTS),
        "INDEX_POLL_SECONDS": "0.1",
        "SEARCH_DEGRADED": "false",
    }
    with (
        chroma_server(folder / "chroma") as chroma,
        stack(folder, chroma, module_ready_url, api_workers=1, **variables) as running,
    ):
        yield running
        assert "Traceback" not in running.said()


@pytest.fixture
def refusing(provider: EmbeddingServer) -> Iterator[EmbeddingServer]:
    """The provider takes no text about the plague."""

    def judge(body: dict[str, Any]) -> tuple[int, Any] | None:
        plague = any("plague" in text for text in body["input"])
        return (400, {"error": {"message": "not this one"}}) if plague else None

    provider.judge = judge
    yield provider
    provider.judge = None


def app(whole: Stack, *arguments: str) -> dict[str, Any]:
    """What `app … --json` says."""
    ended = app_in_process(whole.folder, whole.variables, *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def remember(caller: Caller, *contents: str) -> list[int]:
    """Write memories; their ids."""

    async def post(client: httpx.AsyncClient, content: str) -> int:
        answer = await client.post("/memories", json={"content": content, "metadata": {"exactly": content}})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    return asyncio.run(caller.each([partial(post, content=one) for one in contents]))


def change(caller: Caller, memory: int, **fields: Any) -> None:
    """PATCH it."""
    with httpx.Client(base_url=caller.url, headers=caller.headers, timeout=60, trust_env=False) as http:
        assert http.patch(f"/memories/{memory}", json=fields).status_code == 200


def forget(caller: Caller, memory: int) -> None:
    """DELETE it."""
    with httpx.Client(base_url=caller.url, headers=caller.headers, timeout=60, trust_env=False) as http:
        assert http.delete(f"/memories/{memory}").status_code == 204


def all_found(caller: Caller, *contents: str) -> bool:
    """Whether a search finds each of them, in Chroma."""

    async def search(client: httpx.AsyncClient, content: str) -> bool:
        body = {"query": content, "where": {"exactly": content}, "limit": 1}
        answer = await client.post("/memories/search", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["degraded"] is False
        return [result["content"] for result in answer.json()["results"]] == [content]

    return all(asyncio.run(caller.each([partial(search, content=one) for one in contents])))


def texts(name: str) -> list[str]:
    return [f"{name} {number}" for number in range(10)]


def for_the_provider(whole: Stack, caller: Caller) -> int:
    """One that is fine but for its text."""
    return remember(caller, "all about the plague")[0]


def for_chroma(whole: Stack, caller: Caller) -> int:
    """One of another writer than the service, which would not take it."""
    raw_data = Jsonb({"content": "deep", "metadata": {"nested": {"a": [{"b": 1}]}}})
    ((memory,),) = whole.sql(
        "INSERT INTO memory_logs (user_id, project_id, raw_data) VALUES (%s, %s, %s) RETURNING id",
        *(caller.tenant.user_id, caller.tenant.project_id, raw_data),
    )
    return int(memory)


def waiting_after_the_first_try(whole: Stack) -> list[int]:
    """Whose events are left when one has been tried in vain. A batch's are struck off at one moment."""
    rows: list[tuple[int, int]] = []

    def tried() -> bool:
        rows[:] = whole.sql("SELECT memory_id, attempts FROM outbox")
        return any(attempts for _, attempts in rows)

    until(tried, "it is tried")
    return [memory for memory, _ in rows]


def tried_until_given_up(whole: Stack, memory: int) -> dict[str, Any]:
    """Let the time pass that it waits for; its dead letter, as the operator sees it."""

    def given_up() -> bool:
        whole.sql("UPDATE outbox SET next_attempt_at = now() WHERE memory_id = %s", memory)
        return whole.truth.letters() == 1

    until(given_up, "it is given up")
    listed = app(whole, "dead-letters", "list")
    assert listed["total"] == 1
    (letter,) = listed["dead_letters"]
    assert (letter["memory_id"], letter["attempts"], letter["kind"]) == (memory, ATTEMPTS, "memory")
    found: dict[str, Any] = letter
    return found


@pytest.mark.parametrize(
    ("poison", "reason"),
    [(for_the_provider, "not this one"), (for_chroma, "refused the records")],
    ids=["for the provider", "for Chroma"],
)
def test_a_poison_record_holds_up_nobody_and_is_indexed_once_it_is_repaired(
    whole: Stack, refusing: EmbeddingServer, poison: Callable[[Stack, Caller], int], reason: str
) -> None:
    ann, bob = whole.caller(), whole.caller()
    whole.have_workers(0)  # so that the next one finds them all in one batch
    remember(ann, *texts("before"))
    memory = poison(whole, ann)
    remember(ann, *texts("with"))
    remember(bob, *texts("elsewhere"))
    whole.begin_worker()
    assert waiting_after_the_first_try(whole) == [memory]
    until(lambda: all_found(ann, *texts("before"), *texts("with")), "the tenant's others are found")
    until(lambda: all_found(bob, *texts("elsewhere")), "another tenant's are found")
    remember(ann, *texts("after"))
    until(lambda: all_found(ann, *texts("after")), "later ones are found")
    # all that while it has been waiting for its next attempt, and nothing else has
    ((waits, attempts),) = whole.sql("SELECT memory_id, attempts FROM outbox")
    assert waits == memory
    assert 1 <= attempts < ATTEMPTS
    assert whole.truth.letters() == 0

    letter = tried_until_given_up(whole, memory)
    assert (letter["user"], letter["project"]) == (ann.tenant.user_id, ann.tenant.project_id)
    assert reason in letter["error"]
    assert f"memory {memory} of tenant {ann.tenant.mark} is a dead letter after {ATTEMPTS} attempts" in whole.said()
    assert whole.truth.waiting() == 0
    change(ann, memory, content="cured", metadata={"exactly": "cured"})
    whole.until_indexed()
    whole.assert_right()
    assert all_found(ann, "cured")


def test_a_dead_letter_is_tried_again_when_the_operator_says_so(whole: Stack, refusing: EmbeddingServer) -> None:
    caller = whole.caller()
    whole.have_workers(1)
    memory = for_the_provider(whole, caller)
    letter = tried_until_given_up(whole, memory)
    # in vain: counted from the first attempt on
    assert app(whole, "dead-letters", "replay", str(letter["id"]))["replayed"] == 1
    until(lambda: whole.sql("SELECT attempts > 0 FROM outbox WHERE memory_id = %s", memory) == [(True,)], "it is tried")
    assert whole.truth.letters() == 0
    tried_until_given_up(whole, memory)
    # the provider has learned
    refusing.judge = None
    assert app(whole, "dead-letters", "replay", "--all") == {"changed": True, "replayed": 1}
    whole.until_indexed()
    whole.assert_right()
    assert app(whole, "dead-letters", "replay", "--all") == {"changed": False, "replayed": 0}


def test_a_dead_letter_that_is_dropped_is_forgotten(whole: Stack, refusing: EmbeddingServer) -> None:
    caller = whole.caller()
    whole.have_workers(1)
    memory = for_the_provider(whole, caller)
    letter = tried_until_given_up(whole, memory)
    named = str(letter["id"])
    assert app(whole, "dead-letters", "drop", named) == {"changed": True, "dropped": 1}
    assert app(whole, "dead-letters", "list")["total"] == 0
    assert (whole.truth.waiting(), len(whole.truth.differences())) == (0, 1)
    again = app_in_process(whole.folder, whole.variables, "dead-letters", "drop", named)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"There is no dead letter {named}." in again.stderr
    change(caller, memory, content="cured")  # a later change is indexed all the same
    whole.until_indexed()
    whole.assert_right()


def test_an_index_that_was_put_back_is_right_after_a_replay(whole: Stack, tmp_path: Path) -> None:
    """To an older copy of its directory: as after a rollback, or from a backup."""
    ann, bob = whole.caller(), whole.caller()
    whole.have_workers(1)
    remember(ann, *texts("long ago"))
    lately = remember(ann, *texts("lately"))
    whole.sql("SET session_replication_role = replica; UPDATE memory_logs SET updated_at = now() - interval '1 day'")
    whole.until_indexed()
    whole.chroma.stop()
    shutil.copytree(whole.chroma.path, tmp_path / "backup")
    whole.restart_chroma()
    for memory in lately[:5]:
        change(ann, memory, content=f"other {memory}")
    for memory in lately[5:8]:
        forget(ann, memory)
    remember(ann, *texts("new"))
    remember(bob, *texts("of a new tenant"))
    whole.until_indexed()
    whole.assert_right()

    whole.chroma.stop()
    shutil.rmtree(whole.chroma.path)
    (tmp_path / "backup").rename(whole.chroma.path)
    whole.restart_chroma()
    differences = whole.truth.differences()
    counts = [sum(words in line for line in differences) for words in ("the document is", "besides", "lacks")]
    assert counts == [5, 3, 10 + 10]
    said = app(whole, "replay", "--since", "1h")
    assert said["memories"] == 5 + 10 + 10
    assert said["deletions"] == 3
    assert said["deletions_forgotten"] is False
    whole.until_indexed()
    whole.assert_right()
    assert all_found(ann, *texts("new"), *texts("long ago"))
    assert all_found(bob, *texts("of a new tenant"))
