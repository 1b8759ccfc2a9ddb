"""Become a long-lived process under supervisord: take its secrets from a file and die with supervisord.

Usage: launch.py STOP_SIGNAL ENVIRONMENT_FILE COMMAND [ARGUMENT...]

Secrets stand in no configuration and no command line: they are read from ENVIRONMENT_FILE ("-" for none; lines of
NAME=value, the value as it stands) just before this program is replaced by COMMAND. Where supervisord is killed
outright, the kernel sends COMMAND its stop signal, so that a next supervisord finds ports and data directories free.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def read_environment(path: str) -> dict[str, str]:
    """Return the variables of the file at PATH."""
    variables = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            text = line.rstrip("\n")
            if text and not text.startswith("#"):
                name, _, value = text.partition("=")
                variables[name] = value
    return variables


def main() -> None:
    """Replace this process by the command."""
    stop_signal, environment_file, *command = sys.argv[1:]
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.Signals[f"SIG{stop_signal}"]) != 0:
        sys.exit(f"launch: prctl failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("launch: supervisord ended before this process began")
    if environment_file != "-":
        os.environ.update(read_environment(environment_file))
    os.execvp(command[0], command)  # noqa: S606  (the role names the command; there is no shell)


if __name__ == "__main__":
    main()
