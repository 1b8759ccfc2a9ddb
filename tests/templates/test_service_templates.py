"""The settings of the services."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import Settings, load_settings
from app.core.database.database import database_url
from support.templating import ROLES, render, value

TOKEN = "test-only-token-of-a-server"
PASSWORD = "test-only-password-of-a-role"


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


def service(template: str = "etc/chroma-stack/service/env.j2", **variables: Any) -> str:
    settings = {
        "service_chroma_host": "127.0.0.1",
        "service_chroma_port": 18000,
        "service_database_password": PASSWORD,
        "service_database_owner_password": PASSWORD,
        "service_prefix": "/p",
    }
    return render("service", template, **(settings | variables))


def variables_of(text: str) -> dict[str, str]:
    """The file as the launcher reads it."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_the_service_gets_the_files_of_secrets_and_not_the_secrets() -> None:
    text = service(service_chroma_token=TOKEN)
    found = variables_of(text)
    assert TOKEN not in text
    assert PASSWORD not in text
    assert found["CHROMA_AUTH_TOKEN_FILE"] == "/p/etc/chroma-stack/service/chroma.token"
    assert found["DATABASE_PASSWORD_FILE"] == "/p/etc/chroma-stack/service/database.password"
    assert found["DATABASE_URL"] == "postgresql://chroma_stack_app@127.0.0.1:5432/chroma_stack"
    assert "CHROMA_AUTH_TOKEN_FILE" not in variables_of(service())


def test_what_the_role_writes_is_what_the_service_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = service(
        service_rag_collections=["tales", "notes"], service_settings={"LOG_LEVEL": "WARNING"}, service_prefix=tmp_path
    )
    folder = tmp_path / "etc/chroma-stack/service"
    folder.mkdir(parents=True)
    (folder / "database.password").write_text(PASSWORD)
    monkeypatch.chdir(tmp_path)
    for name, setting in variables_of(text).items():
        monkeypatch.setenv(name, setting)
    settings = load_settings()
    assert (settings.chroma_mode, settings.chroma_host, settings.chroma_port) == ("http", "127.0.0.1", 18000)
    assert settings.rag_collections == ("tales", "notes")
    assert settings.log_level == "WARNING"
    assert settings.database_url is not None
    assert database_url(settings.database_url, settings.database_password_file).password == PASSWORD
    tasks = yaml.safe_load((ROLES / "index_worker/tasks/service.yml").read_text(encoding="utf-8"))
    of_workers = tasks[0]["vars"]["process_environment"]
    assert variables_of(text).keys() | of_workers.keys() <= {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("given", "good"),
    [
        ({"LOG_LEVEL": "DEBUG", "SEARCH_DEGRADED": "false"}, True),
        ({"CHROMA_HOST": "elsewhere"}, False),
        ({"INDEX_BATCH_SIZE": 7}, False),
        ({"EMBEDDING_API_KEY": "x"}, False),
        ({"lower": "x"}, False),
        ({"LOG_LEVEL": "INFO\nCHROMA_HOST=elsewhere"}, False),
    ],
)
def test_further_settings_are_lines_that_nothing_else_sets(given: dict[str, Any], good: bool) -> None:
    assert value("service", "__service_settings_are_good", service_settings=given) is good


def test_the_command_line_of_the_host_reads_the_same_settings_and_the_environment_wins(tmp_path: Path) -> None:
    folder = tmp_path / "etc/chroma-stack/service"
    folder.mkdir(parents=True)
    (folder / "env").write_text(service(service_settings={"LOG_LEVEL": "INFO", "ODD": "two words; $(id) 'quoted'"}))
    python = tmp_path / "opt/chroma-stack/service/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nenv; echo "arguments $*"; echo "folder $(pwd)"\n')
    python.chmod(0o755)
    program = tmp_path / "app"
    program.write_text(service("opt/chroma-stack/bin/app.j2", service_prefix=tmp_path))
    program.chmod(0o755)
    ended = subprocess.run(  # noqa: S603 (the program under test)
        [str(program), "keys", "list"],
        env={"PATH": "/usr/bin:/bin", "LOG_LEVEL": "DEBUG"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ended.stdout.splitlines()
    assert {"CHROMA_PORT=18000", "ODD=two words; $(id) 'quoted'", "LOG_LEVEL=DEBUG"} <= set(lines)
    assert lines[-2:] == ["arguments -I -m app keys list", f"folder {folder}"]


def test_postgresql_takes_only_passwords_over_loopback() -> None:
    settings = render("postgres", "etc/chroma-stack/postgres/postgresql.conf.j2", postgres_prefix="/p")
    rules = render("postgres", "etc/chroma-stack/postgres/pg_hba.conf.j2")
    assert "listen_addresses = '127.0.0.1'" in settings
    assert "unix_socket_directories = ''" in settings
    lines = [line.split() for line in rules.splitlines() if line and not line.startswith("#")]
    assert {tuple(line[-2:]) for line in lines} == {("127.0.0.1/32", "scram-sha-256")}
    assert [line[1:3] for line in lines] == [["chroma_stack", "chroma_stack,chroma_stack_app"], ["all", "postgres"]]


@pytest.mark.parametrize("path", sorted(ROLES.glob("*/templates/**/*.j2")), ids=lambda path: path.stem)
def test_no_template_holds_a_date_or_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"ansible_date_time|now\(|ansible_hostname|/home/", text)


def api_command(**variables: Any) -> list[str]:
    """What role `api` has run."""
    (run, _) = yaml.safe_load((ROLES / "api/tasks/service.yml").read_text(encoding="utf-8"))
    process = {"python": "/p/python", "log_settings": "/p/etc/uvicorn-logs.json"}
    words: list[str] = value("api", "words", words=run["vars"]["process_command"], service_process=process, **variables)
    return words


def test_the_workers_parent_is_patient_and_logs_as_they_do() -> None:
    words = api_command()
    assert "--timeout-worker-healthcheck=60" in words
    assert "--log-config=/p/etc/uvicorn-logs.json" in words
    assert "--timeout-worker-healthcheck=90" in api_command(api_worker_healthcheck_seconds=90)
    # uvicorn knows each of these options
    from uvicorn.main import main

    known = {option for parameter in main.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def test_the_form_of_its_lines_comes_from_the_checkout_and_stays_text() -> None:
    text = value("service", "__service_log_settings_text", service_checkout=str(ROLES.parent))
    assert text == (ROLES.parent / "backend/uvicorn-logs.json").read_text(encoding="utf-8")
