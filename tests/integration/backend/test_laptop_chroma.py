"""The Chroma of docker-compose.chromadb.yml: closed to all but the holders of its token.

As far as that goes without its images: the proxy's configuration runs in a real nginx before a real Chroma, the health
check in a real bash.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.debian import compose, nginx
from support.ports import free_port
from support.servers import Process, Server, answers, chroma_server

BACKEND = Path(__file__).resolve().parents[3] / "backend"
FILE = BACKEND / "docker-compose.chromadb.yml"
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return content


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with chroma_server(tmp_path_factory.mktemp("laptop") / "chroma") as server:
        yield server


def token_of(path: Path) -> subprocess.CompletedProcess[str]:
    """What the script that the entrypoint sources makes of a token file."""
    script = BACKEND / "chroma-gateway/16-token.envsh"
    return subprocess.run(  # noqa: S603 (the tests' own words)
        ["/bin/sh", "-ec", f'. {script}; printf %s "$CHROMA_TOKEN"'],
        env={"PATH": os.environ["PATH"], "CHROMA_TOKEN_FILE": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_compose_takes_the_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-s3cret-token\n")
    ended = subprocess.run(  # noqa: S603 (the tests' own words)
        [*compose(), "-f", str(FILE), "config"],
        env={**os.environ, "CHROMA_AUTH_TOKEN_FILE": str(tmp_path / "token"), "CHROMA_PORT": "18123"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    read = yaml.safe_load(ended.stdout)
    assert set(read["services"]) == {"chroma", "gateway"}
    assert "18123" in str(read["services"]["gateway"]["ports"])
    assert "a-s3cret-token" not in ended.stdout


def test_nobody_but_this_machine_reaches_it_and_only_by_the_proxy(services: dict[str, Any]) -> None:
    assert "ports" not in services["chroma"]
    assert services["chroma"]["networks"] == ["inside"]
    assert yaml.safe_load(FILE.read_text())["networks"]["inside"] == {"internal": True}
    assert all(port.startswith("127.0.0.1:") for port in services["gateway"]["ports"])


def test_it_keeps_its_data_and_names_its_versions(services: dict[str, Any]) -> None:
    assert services["chroma"]["volumes"] == ["chroma-data:/data"]
    assert services["chroma"]["image"].endswith(":1.5.9")
    assert not any(service["image"].endswith(":latest") for service in services.values())


def test_the_health_check_needs_bash_alone(services: dict[str, Any], chroma: Server) -> None:
    kind, shell, option, script = services["chroma"]["healthcheck"]["test"]
    assert (kind, shell, option) == ("CMD", "bash", "-c")
    assert "8000" in script

    def healthy(port: int) -> bool:
        command = [shell, option, script.replace("8000", str(port))]
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0  # noqa: S603

    assert healthy(chroma.port)
    assert not healthy(free_port())
    chroma.pause()
    try:
        assert not healthy(chroma.port)
    finally:
        chroma.resume()


@pytest.mark.parametrize("content", ["", "\n", "two words\n", 'a"b', "a$b", "a;b", "a\\b", "~a", "a\nb"])
def test_a_token_that_a_configuration_could_mistake_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    ended = token_of(tmp_path / "token")
    assert ended.returncode == 1
    assert "chroma-gateway: the token file" in ended.stderr


def test_a_missing_token_file_ends_it(tmp_path: Path) -> None:
    assert token_of(tmp_path / "none").returncode == 1


def test_only_who_has_the_token_gets_through(tmp_path: Path, chroma: Server) -> None:
    token = f"Ab{secrets.token_hex(16)}"
    (tmp_path / "token").write_text(f"{token}\n")
    filled = token_of(tmp_path / "token").stdout
    assert filled == token
    port = free_port()
    server = (BACKEND / "chroma-gateway/default.conf.template").read_text().replace("${CHROMA_TOKEN}", filled)
    server = server.replace("listen 8080", f"listen 127.0.0.1:{port}").replace(
        "chroma:8000", f"127.0.0.1:{chroma.port}"
    )
    places = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"events {{}} http {{ access_log {tmp_path}/access.log; {places}\n{server}}}\n"
    )
    argv = [
        nginx(tmp_path / "package"),
        "-p",
        str(tmp_path),
        "-e",
        f"{tmp_path}/error.log",
        "-c",
        f"{tmp_path}/nginx.conf",
    ]
    with Process(argv, tmp_path / "nginx.log") as process:
        process.start().wait_until(answers(f"http://127.0.0.1:{port}/", 401))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            good = {"Authorization": f"Bearer {token}"}
            for headers in ({}, {"Authorization": token}, {"Authorization": f"Bearer {token.lower()}"}):
                assert http.get(COLLECTIONS, headers=headers).status_code == 401
            assert http.get("/api/v2/heartbeat").status_code == 401
            for headers in (good, {"X-Chroma-Token": token}):
                assert http.get(COLLECTIONS, headers=headers).status_code == 200
            assert http.post("/api/v2/reset", headers=good).status_code == 403
            large = http.post(COLLECTIONS, headers=good, content=b" " * (42 * 2**20))
            assert large.status_code == 413
    assert token not in (tmp_path / "access.log").read_text() + (tmp_path / "error.log").read_text()
