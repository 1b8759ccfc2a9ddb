"""The supervisor's entry for a process."""

from __future__ import annotations

import configparser
import shlex
from typing import Any

from support.templating import render, value

TEMPLATE = "etc/chroma-stack/supervisor/conf.d/process.conf.j2"


def entry(**variables: Any) -> configparser.SectionProxy:
    settings: dict[str, Any] = {
        "process_name": "api",
        "process_command": ["/opt/x/bin/uvicorn", "app.main:app", "--port", 18001],
        "process_working_directory": "/var/lib/x",
        "process_user": "chroma-stack",
        "process_prefix": "/p",
    }
    parser = configparser.RawConfigParser()
    parser.read_string(render("process", TEMPLATE, **(settings | variables)))
    return parser["program:api"]


def test_the_command_is_what_was_asked_for_behind_the_launcher() -> None:
    words = shlex.split(entry()["command"])
    assert words[-4:] == ["/opt/x/bin/uvicorn", "app.main:app", "--port", "18001"]


def test_words_with_blanks_quotes_and_percent_signs_stay_one_word() -> None:
    odd = ["/bin/echo", "two words", "it's", "100%"]
    words = shlex.split(entry(process_command=odd)["command"].replace("%%", "%"))
    assert words[-4:] == odd


def test_a_process_that_ends_is_started_again_and_gets_time_to_stop() -> None:
    found = entry(process_stop_signal="INT", process_stop_wait_seconds=60)
    assert found["autorestart"] == "true"
    assert found["stopsignal"] == "INT"
    assert found["stopwaitsecs"] == "60"


def test_only_root_changes_the_user() -> None:
    assert entry(process_as_root=True)["user"] == "chroma-stack"
    assert "user" not in entry(process_as_root=False)


def test_a_changed_program_is_a_changed_entry() -> None:
    before, after = (entry(process_revision=[digest])["environment"] for digest in ("a", "b"))
    assert before != after


def test_one_process_keeps_its_name_and_several_are_numbered_from_one() -> None:
    assert "numprocs" not in entry()
    assert entry()["stdout_logfile"] == "/p/var/log/chroma-stack/api.log"
    several = entry(process_count=3)
    assert (several["numprocs"], several["numprocs_start"], several["process_name"]) == ("3", "1", "%(process_num)d")
    assert "PORT" not in several["environment"]
    assert several["stdout_logfile"] == "/p/var/log/chroma-stack/api-%(process_num)d.log"


def test_each_process_is_told_its_port() -> None:
    one = entry(process_port=18021, process_port_variable="PORT")
    assert 'PORT="18021",' in one["environment"]
    several = entry(process_count=3, process_port=18021, process_port_variable="PORT")
    # supervisor's own expansion: 18021, 18022, 18023
    assert (several["numprocs_start"], several["process_name"]) == ("18021", "%(process_num)d")
    assert 'PORT="%(process_num)d",' in several["environment"]
    ports = {"process_name": "api", "process_count": 3, "process_port": 18021}
    assert value("process", "__process_ports", **ports) == [18021, 18022, 18023]
    assert value("process", "__process_ports", **(ports | {"process_port": 0})) == []


def test_a_folder_of_its_own_is_told_to_the_process_and_to_its_launcher() -> None:
    found = entry(process_folder_variable="PROMETHEUS_MULTIPROC_DIR")
    folder = "/p/var/lib/chroma-stack/api-run"
    assert f'PROMETHEUS_MULTIPROC_DIR="{folder}"' in found["environment"]
    assert shlex.split(found["command"])[3:6] == ["TERM", "-", folder]
    assert shlex.split(entry()["command"])[3:6] == ["TERM", "-", "-"]
