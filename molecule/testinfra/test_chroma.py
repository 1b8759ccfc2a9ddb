"""The Chroma instances: who answers, who is refused."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Ask, Count


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
    assert ask(f"{instance['database']}/collections").status == instance["stranger_status"]


def test_wrong_token(ask: Ask, instance: dict[str, Any]) -> None:
    """Who shows another token sees no more."""
    assert ask(f"{instance['database']}/collections", token="x" * 43).status == instance["stranger_status"]


def test_token_opens(host: Any, ask: Ask, instance: dict[str, Any]) -> None:
    """Who shows the instance's token, where it has one, is answered."""
    path = instance["token_file"]
    token = host.file(path).content_string.strip() if path else ""
    assert ask(f"{instance['database']}/collections", token=token).status == 200


@pytest.mark.phase("migrated")
def test_live_collection_is_whole(count: Count, expected: dict[str, Any], collection: tuple[str, int]) -> None:
    """The live instance holds every record of a collection."""
    name, records = collection
    assert count(expected["migration"]["target_database"], name) == records
