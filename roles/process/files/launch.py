"""Run a long-lived process under supervisord: give it its secrets from a file, and leave nothing behind.

Usage: launch.py STOP_SIGNAL ENVIRONMENT_FILE FOLDER COMMAND [ARGUMENT...]

Secrets stand in no configuration and no command line: they are read from ENVIRONMENT_FILE ("-" for none; lines of
NAME=value, the value as it stands) just before COMMAND begins. FOLDER ("-" for none) is emptied then, as systemd does
with a RuntimeDirectory. What systemd does with a control group is done here with two requests to the kernel, so that a
next start finds ports and data directories free:
supervisord killed outright: the kernel sends STOP_SIGNAL, to this program and to COMMAND.
COMMAND killed outright: its orphans become children of this program, which ends them before it ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import time
from pathlib import Path

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
ORPHAN_SECONDS = 10


def request(option: int, value: int) -> None:
    """Ask the kernel for OPTION; end the program where it refuses."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        sys.exit(f"launch: prctl {option} failed: {os.strerror(ctypes.get_errno())}")


def die_with_parent(parent: int, stop_signal: int) -> None:
    """Get STOP_SIGNAL when the process PARENT ends, also when it just did."""
    request(PR_SET_PDEATHSIG, stop_signal)
    if os.getppid() != parent:
        sys.exit("launch: the parent ended before this process began")


def read_environment(path: str) -> dict[str, str]:
    """Return the variables of the file at PATH."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def empty(folder: str) -> None:
    """Remove everything in FOLDER."""
    for entry in Path(folder).iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def children() -> list[int]:
    """Return the process ids of all children of this program."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in brackets, may hold anything; state and parent follow it.
            _, parent, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(parent) == os.getpid():
            found.append(int(entry.name))
    return found


def end_orphans() -> None:
    """End what the command left behind: first asked, after a while killed."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    asked: set[int] = set()
    while orphans := children():
        late = time.monotonic() > deadline
        for pid in orphans:
            if late or pid not in asked:
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                asked.add(pid)
        while orphans and os.waitpid(-1, os.WNOHANG)[0]:
            orphans.pop()
        time.sleep(0.05)


def watch(child: int) -> int:
    """Pass signals on to CHILD until it ends, and return its exit status."""
    while True:
        received = signal.sigwait(FORWARDED | {signal.SIGCHLD})
        if received != signal.SIGCHLD:
            os.kill(child, received)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                break


def main() -> None:
    """Run the command until it ends, and end as it did."""
    stop_name, environment_file, folder, *command = sys.argv[1:]
    stop_signal = signal.Signals[f"SIG{stop_name}"]
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
    die_with_parent(parent, stop_signal)
    request(PR_SET_CHILD_SUBREAPER, 1)
    launcher = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(launcher, stop_signal)
        try:
            if environment_file != "-":
                os.environ.update(read_environment(environment_file))
            if folder != "-":
                empty(folder)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            os.execvp(command[0], command)  # noqa: S606  (the role names the command; there is no shell)
        except OSError as error:
            sys.exit(f"launch: {error}")
    code = watch(child)
    end_orphans()
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
