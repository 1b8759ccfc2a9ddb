"""The settings of the services."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.templating import ROLES, render

TOKEN = "test-only-token-of-a-server"


def chroma(template: str, **instance: Any) -> str:
    settings = {"name": "blue", "version": "1.5.9", "port": 18010} | instance
    return render(
        "chroma_server",
        f"etc/chroma-stack/chroma/{template}",
        __chroma_server_instance=settings,
        __chroma_server_data="/data/blue",
    )


def test_a_chroma_server_listens_on_loopback_and_cannot_be_reset() -> None:
    settings = yaml.safe_load(chroma("instance.yaml.j2"))
    assert settings["listen_address"] == "127.0.0.1"
    assert settings["port"] == 18010
    assert settings["persist_path"] == "/data/blue"
    assert settings["allow_reset"] is False


def test_a_chroma_server_that_prints_its_settings_gets_no_secret_in_them() -> None:
    assert TOKEN not in chroma("instance.yaml.j2", token=TOKEN)


def test_a_legacy_server_with_a_token_checks_it() -> None:
    text = chroma("legacy.env.j2", version="0.6.3", token=TOKEN)
    assert f"CHROMA_SERVER_AUTHN_CREDENTIALS={TOKEN}" in text
    assert "TokenAuthenticationServerProvider" in text


def test_a_legacy_server_without_a_token_has_no_half_authentication() -> None:
    assert "AUTHN" not in chroma("legacy.env.j2", version="0.6.3")


def test_the_service_gets_the_file_of_the_token_and_not_the_token() -> None:
    text = render(
        "api",
        "etc/chroma-stack/api/env.j2",
        api_chroma_host="127.0.0.1",
        api_chroma_port=18000,
        api_chroma_token=TOKEN,
        api_prefix="/p",
    )
    assert TOKEN not in text
    assert "CHROMA_MODE=http" in text
    assert "CHROMA_AUTH_TOKEN_FILE=/p/etc/chroma-stack/api/chroma.token" in text


def test_postgresql_takes_only_passwords_over_loopback() -> None:
    settings = render("postgres", "etc/chroma-stack/postgres/postgresql.conf.j2", postgres_prefix="/p")
    rules = render("postgres", "etc/chroma-stack/postgres/pg_hba.conf.j2")
    assert "listen_addresses = '127.0.0.1'" in settings
    assert "unix_socket_directories = ''" in settings
    lines = [line.split() for line in rules.splitlines() if line and not line.startswith("#")]
    assert {tuple(line[-2:]) for line in lines} == {("127.0.0.1/32", "scram-sha-256")}


@pytest.mark.parametrize("path", sorted(ROLES.glob("*/templates/**/*.j2")), ids=lambda path: path.stem)
def test_no_template_holds_a_date_or_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"ansible_date_time|now\(|ansible_hostname|/home/", text)
