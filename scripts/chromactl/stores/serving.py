"""A Chroma server of our own on a directory: how chromactl reads and writes persistent directories.

The server is the one inside the chromadb wheel (a Rust library), on a loopback port of the system's choice.
It ends with SIGTERM, or with us.
"""

from __future__ import annotations

import ctypes
import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from chromactl.errors import ChromactlError, PreconditionError

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_PROGRAM = "import sys, chromadb_rust_bindings; chromadb_rust_bindings.cli(['chroma', *sys.argv[1:]])"


class OwnServer:
    """A running server on `directory`, at `url`.

    Raises (when made):
        PreconditionError: the chromadb wheel is not installed beside chromactl.
        ChromactlError: the server does not start; the message has its last words.
    """

    def __init__(self, directory: Path) -> None:
        if importlib.util.find_spec("chromadb_rust_bindings") is None:
            raise PreconditionError(
                "reading or writing a Chroma directory needs Chroma's own library beside chromactl: "
                "pip install --no-deps -r requirements/chroma-1.5.9.txt"
            )
        self._log = tempfile.TemporaryFile()
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", _PROGRAM, "run", "--path", str(directory)]
        self._process = subprocess.Popen(  # noqa: S603 (our own interpreter)
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=_end_with_parent,
        )
        try:
            self._wait(directory)
        except BaseException:
            self.stop()
            raise

    def _wait(self, directory: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ChromactlError(f"{directory}: Chroma cannot open this directory: {self._last_words()}")
            try:
                httpx.get(f"{self.url}/api/v2/heartbeat", timeout=2, trust_env=False).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                return
        raise ChromactlError(
            f"{directory}: Chroma did not come up on it in {START_SECONDS:.0f} s: {self._last_words()}"
        )

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    def stop(self) -> None:
        """End the server cleanly, so that everything it acknowledged is in the directory."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Ctrl-C goes to the whole group of a terminal; the server has to outlive our own clean-up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
