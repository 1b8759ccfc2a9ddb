from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from chromactl import __version__, cli
from support.command import Chromactl

COMMANDS = sorted(cli.cli.commands)
OPTIONS = [
    (command, parameter)
    for command in COMMANDS
    for parameter in cli.cli.commands[command].params
    if isinstance(parameter, click.Option)
]
RUNBOOKS = {
    "--source-url --target-url --source-token-file --target-token-file --tenant --database --profile --batch-size "
    "--dry-run --verbose --checkpoint-dir --checkpoint-file --resume-from --log-dir --backup-dir --max-reject-rate "
    "--collection --json": "migrate",
    "--url --chunks --dim --seed --token-file --json": "sample",
    "--db-url --test-queries --token-file --json": "smoke",
}


def test_the_group_names_its_commands_and_exit_codes(chromactl: Chromactl) -> None:
    ended = chromactl("--help")
    assert ended.code == 0
    for word in [*COMMANDS, "3 a precondition is not met", "5 locked", "143 terminated"]:
        assert word in " ".join(ended.out.split())


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(chromactl: Chromactl, command: str, flag: str) -> None:
    ended = chromactl(command, flag)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: chromactl {command} ")


def test_the_version(chromactl: Chromactl) -> None:
    assert chromactl("--version").out.split()[-1] == __version__


@pytest.mark.parametrize(("options", "command"), RUNBOOKS.items())
def test_the_runbooks_options_are_there(options: str, command: str) -> None:
    there = {name for parameter in cli.cli.commands[command].params for name in parameter.opts}
    assert set(options.split()) <= there


@pytest.mark.parametrize(("command", "parameter"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_every_option_has_help_and_an_environment_twin(command: str, parameter: click.Option) -> None:
    assert parameter.help
    if parameter.name not in ("json", "help") and not parameter.opts[0].endswith("token-file"):
        assert isinstance(parameter.envvar, str)
        assert parameter.envvar == f"CHROMACTL_{parameter.opts[0].removeprefix('--').replace('-', '_').upper()}"
        assert parameter.show_envvar


def test_no_option_takes_a_token_itself() -> None:
    names = {name for _, parameter in OPTIONS for name in parameter.opts}
    sides = {f"--{side}-token-file" for side in ("source", "target", "old", "new", "restore")}
    assert {name for name in names if "token" in name} == {"--token-file", *sides}


def test_options_come_from_the_environment(
    chromactl: Chromactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"URL": "snapshot:s", "CHUNKS": "40", "DIM": "8", "SEED": "3", "JSON": "1"}.items():
        monkeypatch.setenv(f"CHROMACTL_{name}", value)
    ended = chromactl("sample")
    assert ended.code == 0
    assert sum(ended.json["collections"].values()) == 40
    assert (tmp_path / "s" / "manifest.json").exists()


def test_verbose_from_the_environment_shows_the_log(chromactl: Chromactl, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("smoke", "--db-url", "path:none", "--test-queries", "queries.json")
    Path("queries.json").write_text('[{"text": "a"}]')
    monkeypatch.setenv("CHROMACTL_VERBOSE", "1")
    assert "Traceback" in chromactl(*arguments).err
    monkeypatch.delenv("CHROMACTL_VERBOSE")
    assert "Traceback" not in chromactl(*arguments).err
    assert "Traceback" in chromactl(*arguments, "--verbose").err
    assert "Traceback" in chromactl(*arguments, "-v").err


# Usage errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["migrate"],
        ["migrate", "--source-url", "path:a", "--target-url", "path:b", "--no-such-option"],
        ["migrate", "--source-url", "path:a", "--target-url", "path:b", "--batch-size", "0"],
        ["migrate", "--source-url", "path:a", "--target-url", "path:b", "--batch-size", "many"],
        ["migrate", "--source-url", "path:a", "--target-url", "path:b", "--max-reject-rate", "1.5"],
        ["sample", "--url", "path:a", "--dim", "0"],
        ["sample", "--url", "path:a", "--chunks", "-1"],
        ["smoke", "--db-url", "path:a"],
    ],
)
def test_what_click_refuses_ends_with_2(chromactl: Chromactl, arguments: list[str]) -> None:
    ended = chromactl(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: chromactl" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source-url", "path:a"], "--target-url is missing"),
        (["--source-url", "ftp://a", "--target-url", "path:b"], "ftp://a: no database can be named like this"),
        (["--source-url", "http://a:b", "--target-url", "path:b"], "http://a:b: not a URL"),
        (["--source-url", "nowhere", "--target-url", "path:b"], "nowhere: there is no such folder"),
        (["--source-url", "path:a", "--target-url", "path:a"], "the same database"),
        (["--source-url", "path:a", "--target-url", "path:./x/../a"], "the same database"),
        (["--source-url", "path:a", "--target-url", "path:b", "--profile", "serge"], "identity, sergio"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_chromactl_refuses_ends_with_2_and_one_line(
    chromactl: Chromactl, arguments: list[str], said: str, form: list[str]
) -> None:
    ended = chromactl("migrate", *arguments, *form)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    if form:
        assert said in ended.complaint


def test_a_password_is_repeated_nowhere(chromactl: Chromactl, tmp_path: Path) -> None:
    ended = chromactl("migrate", "--source-url", "http://me:hunter2@h", "--target-url", "path:b", "--verbose")
    assert ended.code == 2
    assert "hunter2" not in ended.err + ended.out
    assert all("hunter2" not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


# --json


def test_json_on_success_is_all_of_stdout(chromactl: Chromactl) -> None:
    ended = chromactl("sample", "--url", "snapshot:s", "--chunks", "20", "--dim", "8", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["changed"] is True


def test_json_on_failure_is_an_empty_stdout_and_one_line(chromactl: Chromactl) -> None:
    ended = chromactl("migrate", "--source-url", "snapshot:none", "--target-url", "snapshot:b", "--json")
    assert (ended.code, ended.out) == (3, "")
    assert "not a snapshot" in ended.complaint


def test_without_json_stdout_is_empty(chromactl: Chromactl) -> None:
    ended = chromactl("sample", "--url", "snapshot:s", "--chunks", "20", "--dim", "8")
    assert (ended.code, ended.out) == (0, "")
    assert re.search(r"sergio_humor +4\b", ended.err)


# Errors nobody thought of


def test_a_fault_is_one_line_and_says_that_it_is_one(chromactl: Chromactl, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(cli, "make_sample", broken)
    ended = chromactl("sample", "--url", "snapshot:s", "--json")
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.complaint
    assert "fault of chromactl" in ended.complaint


@pytest.mark.parametrize(("interrupt", "code"), [(KeyboardInterrupt, 130), (click.Abort, 130)])
def test_an_interrupt_says_how_to_go_on(
    chromactl: Chromactl, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException], code: int
) -> None:
    def interrupted(*_: object) -> None:
        raise interrupt

    monkeypatch.setattr(cli, "make_sample", interrupted)
    ended = chromactl("sample", "--url", "snapshot:s", "--json")
    assert ended.code == code
    assert "the same command goes on from here" in ended.complaint
