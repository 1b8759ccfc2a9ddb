"""What every check of a running stack shares: expected values from the inventory, HTTP, secrets."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXPECTED = "testinfra_expected"


@cache
def expectations(inventory: str) -> dict[str, dict[str, Any]]:
    """`testinfra_expected` of every host, as Ansible itself renders it from the inventory."""
    command = [str(Path(sys.executable).parent / "ansible"), "all", "--inventory", inventory]
    output = {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    # Further callbacks, such as a profile of the tasks, would print beside the JSON.
    inherited = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CALLBACKS_ENABLED"}
    answer = subprocess.run(  # noqa: S603  (the control venv's own ansible; nothing comes from outside)
        [*command, "--module-name", "ansible.builtin.debug", "--args", f"var={EXPECTED}"],
        cwd=REPOSITORY,
        env=inherited | output,
        capture_output=True,
        text=True,
        check=True,
    )
    hosts = json.loads(answer.stdout)["plays"][0]["tasks"][0]["hosts"]
    return {name: result[EXPECTED] for name, result in hosts.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test one call for each thing of the inventory that it names in its parameters."""
    inventory = metafunc.config.getoption("--ansible-inventory")
    for parameter, (list_name, identity) in PARAMETERS.items():
        if parameter in metafunc.fixturenames:
            found = {
                identity(value): value
                for expected in expectations(inventory).values()
                for value in _items(expected, list_name)
            }
            metafunc.parametrize(parameter, found.values(), ids=found.keys())


def _items(expected: dict[str, Any], name: str) -> list[Any]:
    if name == "token_instances":
        return [instance for instance in expected["instances"] if instance["token_file"]]
    if name == "open_instances":
        return [instance for instance in expected["instances"] if not instance["token_file"]]
    value = expected[name]
    return list(value.items()) if isinstance(value, dict) else list(value)


PARAMETERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "token_instance": ("token_instances", lambda instance: str(instance["name"])),
    "open_instance": ("open_instances", lambda instance: str(instance["name"])),
    "collection": ("collections", lambda pair: str(pair[0])),
    "process": ("processes", str),
    "port": ("ports", str),
    "secret_file": ("secret_files", lambda entry: str(entry["pattern"])),
}


@pytest.fixture(scope="module")
def expected(request: pytest.FixtureRequest, host: Any) -> dict[str, Any]:
    """What the inventory says of the host under test."""
    inventory = request.config.getoption("--ansible-inventory")
    return expectations(inventory)[host.backend.get_pytest_id().removeprefix("ansible://")]


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
        connection.request(method, parts.path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.read().decode())
        connection.close()
        return answer

    return send
