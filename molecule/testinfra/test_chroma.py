"""The Chroma instances: who answers, who is refused."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Ask

DATABASE = "api/v2/tenants/default_tenant/databases/default_database"


def test_instance_answers(ask: Ask, instance: dict[str, Any]) -> None:
    """An instance answers its heartbeat."""
    answer = ask(f"{instance['url']}/api/v2/heartbeat")
    assert answer.status == 200
    assert answer.json()["nanosecond heartbeat"] > 0


def test_reset_is_refused(ask: Ask, instance: dict[str, Any]) -> None:
    """No stranger can wipe an instance."""
    assert ask(f"{instance['url']}/api/v2/reset", method="POST").status == 403


def test_no_token(ask: Ask, instance: dict[str, Any]) -> None:
    """Who shows no token sees what the inventory says: nothing, where the instance checks one."""
    assert ask(f"{instance['url']}/{DATABASE}/collections").status == instance["stranger_status"]


def test_wrong_token(ask: Ask, instance: dict[str, Any]) -> None:
    """Who shows another token sees no more."""
    assert ask(f"{instance['url']}/{DATABASE}/collections", token="x" * 43).status == instance["stranger_status"]


def test_token_opens(host: Any, ask: Ask, instance: dict[str, Any]) -> None:
    """Who shows the instance's token, where it has one, is answered."""
    path = instance["token_file"]
    token = host.file(path).content_string.strip() if path else ""
    assert ask(f"{instance['url']}/{DATABASE}/collections", token=token).status == 200


@pytest.mark.phase("migrated")
def test_live_collection_is_whole(ask: Ask, expected: dict[str, Any], collection: tuple[str, int]) -> None:
    """The live instance holds every record of a collection."""
    name, count = collection
    database = f"{expected['live_url']}/{DATABASE}"
    identity = ask(f"{database}/collections/{name}").json()["id"]
    assert ask(f"{database}/collections/{identity}/count").json() == count


@pytest.mark.phase("rolled-back")
def test_collection_is_not_in_the_target(ask: Ask, expected: dict[str, Any], collection: tuple[str, int]) -> None:
    """What was rolled back is gone from the target, where nothing was before."""
    name, _ = collection
    assert ask(f"{expected['migration']['target_url']}/{DATABASE}/collections/{name}").status == 404
