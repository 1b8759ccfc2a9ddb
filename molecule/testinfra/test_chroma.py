"""The Chroma instances: who answers, who is refused."""

from __future__ import annotations

from typing import Any

from conftest import Ask


def test_open_instance_answers(ask: Ask, open_instance: dict[str, Any]) -> None:
    """An instance behind no token answers its heartbeat."""
    answer = ask(f"{open_instance['url']}/api/v2/heartbeat")
    assert answer.status == 200
    assert answer.json()["nanosecond heartbeat"] > 0


def test_reset_is_refused(ask: Ask, open_instance: dict[str, Any]) -> None:
    """No request can wipe an instance."""
    assert ask(f"{open_instance['url']}/api/v2/reset", method="POST").status == 403


def test_no_token_is_refused(ask: Ask, token_instance: dict[str, Any]) -> None:
    """An instance with a token refuses who shows none."""
    assert (
        ask(f"{token_instance['url']}/api/v2/tenants/default_tenant/databases/default_database/collections").status
        == 403
    )


def test_wrong_token_is_refused(ask: Ask, token_instance: dict[str, Any]) -> None:
    """An instance with a token refuses who shows another."""
    url = f"{token_instance['url']}/api/v2/tenants/default_tenant/databases/default_database/collections"
    assert ask(url, token="x" * 43).status == 403


def test_token_opens(host: Any, ask: Ask, token_instance: dict[str, Any]) -> None:
    """An instance with a token answers who shows it."""
    token = host.file(token_instance["token_file"]).content_string.strip()
    url = f"{token_instance['url']}/api/v2/tenants/default_tenant/databases/default_database/collections"
    assert ask(url, token=token).status == 200


def test_live_collection_is_whole(ask: Ask, expected: dict[str, Any], collection: tuple[str, int]) -> None:
    """The live instance holds every record of a collection."""
    name, count = collection
    database = f"{expected['live_url']}/api/v2/tenants/default_tenant/databases/default_database"
    identity = ask(f"{database}/collections/{name}").json()["id"]
    assert ask(f"{database}/collections/{identity}/count").json() == count
