"""The processes: who runs them, where they listen, what they give away."""

from __future__ import annotations

from typing import Any

import pytest

SUPERVISORCTL = (
    "{prefix}/opt/chroma-stack/supervisor/bin/supervisorctl -c {prefix}/etc/chroma-stack/supervisor/supervisord.conf"
)


@pytest.fixture(scope="module")
def pids(host: Any, expected: dict[str, Any]) -> dict[str, str]:
    """Process id of every process that supervisor runs, by name."""
    status = host.check_output(f"{SUPERVISORCTL.format(prefix=expected['prefix'])} status")
    return {words[0]: words[3].rstrip(",") for words in map(str.split, status.splitlines()) if words[1] == "RUNNING"}


def test_process_is_kept_running(pids: dict[str, str], process: str) -> None:
    """The process is up and supervised."""
    assert process in pids


def test_process_is_unprivileged(host: Any, expected: dict[str, Any], pids: dict[str, str], process: str) -> None:
    """The process runs as the stack's user, which is not root."""
    assert host.check_output(f"stat --format=%U /proc/{pids[process]}") == expected["user"] != "root"


def test_port_is_local(host: Any, port: int) -> None:
    """Nothing but this machine reaches the port."""
    # Read from the kernel, which needs no program: local address (hexadecimal), state 0A is LISTEN.
    table = host.check_output("cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || cat /proc/net/tcp")
    rows = [line.split() for line in table.splitlines()]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    assert listening == {f"0100007F:{port:04X}"}


def test_secret_file_is_closed(host: Any, expected: dict[str, Any], secret_file: dict[str, str]) -> None:
    """A file with a secret is there and open to nobody but its owner and the service's group."""
    found = host.check_output(f"stat --format='%a %U' {expected['prefix']}/{secret_file['pattern']}")
    modes = {tuple(line.split()) for line in found.splitlines()}
    owner = host.check_output("id --user --name")
    assert modes == {(secret_file["mode"].lstrip("0"), owner)}


def test_no_secret_in_arguments(host: Any, expected: dict[str, Any]) -> None:
    """No secret stands in the arguments of any process of this machine."""
    # grep takes the secrets as patterns from the files; its own arguments hold only their names.
    folder = expected["secret_folder"]
    assert host.run(f"cat {folder}/* | grep --quiet .").rc == 0
    patterns = f"$(for file in {folder}/*; do printf -- ' --file=%s' $file; done)"
    found = host.run(f"grep --files-with-matches --no-messages --text --fixed-strings {patterns} /proc/[0-9]*/cmdline")
    assert found.stdout == ""


def test_no_secret_in_logs(host: Any, expected: dict[str, Any]) -> None:
    """No secret stands in a log."""
    folder, logs = expected["secret_folder"], expected["log_folder"]
    assert host.run(f"ls {logs}/*.log").rc == 0
    patterns = f"$(for file in {folder}/*; do printf -- ' --file=%s' $file; done)"
    found = host.run(f"grep --recursive --files-with-matches --text --fixed-strings {patterns} {logs}")
    assert found.rc == 1
    assert found.stdout == ""
