"""What every check of a running stack shares: expected values from the inventory, HTTP, secrets."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest

EXPECTED = "TESTINFRA_EXPECTED"


@cache
def expectations() -> dict[str, dict[str, Any]]:
    """The inventory's `testinfra_expected` of every host, as playbooks/verify.yml renders it."""
    if EXPECTED not in os.environ:
        pytest.exit(f"{EXPECTED} is not set: run this suite by `make verify ENV=local`", returncode=3)
    hosts: dict[str, dict[str, Any]] = json.loads(os.environ[EXPECTED])
    return hosts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test one call for each thing of the inventory that it names in its parameters."""
    for parameter, (list_name, identity) in PARAMETERS.items():
        if parameter in metafunc.fixturenames:
            found = {
                identity(value): value for expected in expectations().values() for value in _items(expected, list_name)
            }
            metafunc.parametrize(parameter, found.values(), ids=found.keys())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what holds in another phase of the migration only."""
    phases = {expected["phase"] for expected in expectations().values()}
    other = [item for item in items if (mark := item.get_closest_marker("phase")) and mark.args[0] not in phases]
    config.hook.pytest_deselected(items=other)
    items[:] = [item for item in items if item not in other]


def _items(expected: dict[str, Any], name: str) -> list[Any]:
    value = expected[name]
    return list(value.items()) if isinstance(value, dict) else list(value)


PARAMETERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "instance": ("instances", lambda instance: str(instance["name"])),
    "collection": ("collections", lambda pair: str(pair[0])),
    "process": ("processes", str),
    "port": ("ports", str),
    "index_metrics": ("index_metrics", str),
    "secret_file": ("secret_files", lambda entry: str(entry["pattern"])),
}


@pytest.fixture(scope="module")
def expected(host: Any) -> dict[str, Any]:
    """What the inventory says of the host under test."""
    return expectations()[host.backend.get_pytest_id().removeprefix("ansible://")]


class Answer:
    """Status and body of an HTTP answer."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.text)


Ask = Callable[..., Answer]


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Send one HTTP request and return the answer, whatever its status."""

    def send(url: str, method: str = "GET", body: Any = None, token: str = "") -> Answer:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.read().decode())
        connection.close()
        return answer

    return send


Count = Callable[..., int | None]


@pytest.fixture(scope="session")
def count(ask: Ask) -> Count:
    """How many records the collection of this name holds in a database; None where there is no such collection."""

    def asked(database: str, name: str, token: str = "") -> int | None:
        answer = ask(f"{database}/collections/{name}", token=token)
        if answer.status == 404:
            return None
        return int(ask(f"{database}/collections/{answer.json()['id']}/count", token=token).json())

    return asked


@pytest.fixture(scope="module")
def key(host: Any, expected: dict[str, Any]) -> str:
    """An API key of the tenant that the checks write as."""
    return str(host.file(expected["keys"]["own"]).content_string.strip())


@pytest.fixture(scope="module")
def other_key(host: Any, expected: dict[str, Any]) -> str:
    """A key of another tenant."""
    return str(host.file(expected["keys"]["other"]).content_string.strip())


@pytest.fixture(scope="module")
def as_service(expected: dict[str, Any]) -> str:
    """The psql command that asks as the service does; its database is still to be named."""
    postgres = expected["postgres"]
    return (
        f"PGPASSFILE={postgres['app_password_file']} {postgres['psql']} --no-psqlrc --no-password --tuples-only "
        f"--no-align --host={postgres['host']} --port={postgres['port']} --username={postgres['app']}"
    )


def until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    """What is first returned that is not empty; the test fails if that takes longer."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.1)
    return found
