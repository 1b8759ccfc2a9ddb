"""A Chroma server of our own on a directory: how chromactl reads and writes persistent directories.

The server is the one inside the chromadb wheel (a Rust library), on a loopback port of the system's choice.
It takes the port itself and the kernel tells us which: a port found free beforehand could be a stranger's by then,
and we would read from, or write to, the stranger's database. It ends with SIGTERM, or with us.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from chromactl.errors import ChromactlError, PreconditionError
from chromactl.stores.listening import listening_ports

log = logging.getLogger(__name__)

START_SECONDS = 60.0
STARTS = 6
STOP_SECONDS = 60.0
END_SECONDS = 1.0
LOG_BYTES = 64 * 2**10
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the well-known authorities for every request takes longest
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Between fork and exec of a process with threads no Python may run, so the server sees to its end with us by itself.
_PROGRAM = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
parent, *arguments = sys.argv[1:]
if os.getppid() != int(parent):
    sys.exit("chromactl ended before its server began")
import chromadb_rust_bindings
chromadb_rust_bindings.cli(["chroma", *arguments])
"""


class OwnServer:
    """A running server on `directory`, at `url`.

    It is started again if it has no answer for `probe`, a path that reads from the database: 1.5.9 opening a directory
    of 0.4 panics now and then (ColumnNotFound("bool_value"), 8 of 115 times), answers every request with 500 from then
    on, and is well after a restart. `name` is what messages call the directory, where it is a copy of another.

    Raises (when made):
        PreconditionError: the chromadb wheel is not installed beside chromactl.
        ChromactlError: the server does not start, or not well; the message has its last words.
    """

    def __init__(self, directory: Path, probe: str = "/api/v2/heartbeat", name: Path | None = None) -> None:
        if importlib.util.find_spec("chromadb_rust_bindings") is None:
            raise PreconditionError(
                "reading or writing a Chroma directory needs Chroma's own library beside chromactl: "
                "pip install --no-deps -r requirements/chroma-1.5.9.txt"
            )
        self._directory = directory
        self._name = name or directory
        self._log = tempfile.TemporaryFile()
        self._process = self._start()
        try:
            for start in range(1, STARTS + 1):
                self._wait()
                if self._is_well(probe):
                    return
                log.info("%s: Chroma came up ill, start %d of %d: %s", self._name, start, STARTS, self._last_words())
                self._end()
                if start < STARTS:
                    self._process = self._start()
            raise ChromactlError(self._failed("comes up on this directory, but cannot read it"))
        except BaseException:
            self.stop()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _PROGRAM, str(os.getpid()), "run", "--path", str(self._directory)]
        return subprocess.Popen(  # noqa: S603 (our own interpreter)
            [*command, "--host", "127.0.0.1", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # Ctrl-C goes to the whole group of a terminal; the server has to outlive our own clean-up.
            process_group=0,
        )

    def _is_well(self, probe: str) -> bool:
        try:
            return _get(self.url + probe, START_SECONDS).status_code < 500
        except httpx.HTTPError:
            return False

    def broke_down(self) -> str | None:
        """What to say if the server ended by itself; None while it runs."""
        try:
            # A connection breaks a moment before the process is gone.
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return self._failed(f"broke down on this directory ({how})")

    def _failed(self, what: str) -> str:
        return (
            f"{self._name}: Chroma {what}: {self._panic() or 'it said nothing'}; start the version that made this "
            "directory on it, and migrate from that server's URL instead"
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ChromactlError(f"{self._name}: Chroma cannot open this directory: {self._last_words()}")
            if self._answers():
                return
            time.sleep(0.05)
        raise ChromactlError(
            f"{self._name}: Chroma did not come up on it in {START_SECONDS:.0f} s: {self._last_words()}"
        )

    def _answers(self) -> bool:
        for port in listening_ports(self._process.pid):
            self.url = f"http://127.0.0.1:{port}"
            with contextlib.suppress(httpx.HTTPError):
                _get(f"{self.url}/api/v2/heartbeat", 2).raise_for_status()
                return True
        return False

    def _last_words(self) -> str:
        lines = self._said()
        return self._panic() or (lines[-1][:300] if lines else "it said nothing")

    def _panic(self) -> str | None:
        lines = self._said()
        panics = [number for number, line in enumerate(lines[:-1]) if " panicked at " in line]
        return lines[panics[-1] + 1][:300] if panics else None  # below it; advice to programmers follows

    def _said(self) -> list[str]:
        # Not read(): the server writes at the offset that it shares with us.
        log_file = self._log.fileno()
        text = os.pread(log_file, LOG_BYTES, max(0, os.fstat(log_file).st_size - LOG_BYTES))
        plain = _COLOUR.sub("", text.decode(errors="replace"))
        return [line.strip() for line in plain.splitlines() if line.strip()]

    def stop(self) -> None:
        """End the server cleanly, so that everything it acknowledged is in the directory."""
        self._end()
        self._log.close()

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _get(url: str, seconds: float) -> httpx.Response:
    return httpx.get(url, timeout=seconds, trust_env=False, verify=_NO_TLS)
