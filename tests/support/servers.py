"""Real Chroma servers for tests: 1.5.9 from the control environment, older ones from cached ones of their own.

    with chroma_server(tmp_path / "data") as server:
        httpx.get(server.url + "/api/v2/heartbeat")

A server listens on loopback only, writes its log beside its data, dies with the test process
(PR_SET_PDEATHSIG), and is ended with SIGTERM when the block is left, also when the test failed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx

from chromactl.stores.listening import listening_ports
from support.ports import free_port

Version = Literal["1.5.9", "1.0.21", "0.6.3", "0.5.23", "0.4.24"]
TokenHeader = Literal["Authorization", "X-Chroma-Token"]

CHECKOUT = Path(__file__).resolve().parents[2]
START_DEADLINE_SECONDS = 60.0
STOP_DEADLINE_SECONDS = 20.0
PORT_ATTEMPTS = 5

# 1.x is one library with a command line; it needs none of the Python packages that its wheel names.
_RUN_RUST = "import sys, chromadb_rust_bindings as b; b.cli(['chroma', 'run', *sys.argv[1:]])"
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the CA bundle for every request would take longest
# SIGTERM, so that a parent of workers can end them too. By a program of its own: a function that Python calls in the
# child may wait for ever for a lock that a thread of ours held at the fork.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig=TERM", "--")


class ServerDied(AssertionError):
    """The process ended, or never answered, before it was ready. The message ends with its log."""


@dataclass
class Process(AbstractContextManager["Process"]):
    """A child process with a log file, that does not outlive the block it was started in."""

    argv: Sequence[str]
    log: Path
    env: dict[str, str] | None = None
    cwd: Path | None = None
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> Self:
        """Start it; its output is appended to the log."""
        with self.log.open("ab") as out:
            self._popen = subprocess.Popen(  # noqa: S603 (argv comes from the tests)
                [*_DIE_WITH_PARENT, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
            )
        return self

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        """The running process; an error when it was never started."""
        if self._popen is None:
            raise RuntimeError("the process was not started")
        return self._popen

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def text(self) -> str:
        """Everything it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, seconds: float) -> int:
        """Its exit code; subprocess.TimeoutExpired when it is still running then."""
        return self.popen.wait(timeout=seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """SIGTERM or another signal, SIGKILL after a deadline; the exit code."""
        if self.running:
            self.popen.send_signal(number)
            self.popen.send_signal(signal.SIGCONT)  # a paused one would never hear of it
            try:
                return self.popen.wait(timeout=STOP_DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.wait()

    def kill(self) -> None:
        """SIGKILL, and reap it."""
        if self.running:
            self.popen.kill()
        self.popen.wait()

    def wait_until(self, ready: Callable[[], bool], seconds: float = START_DEADLINE_SECONDS) -> None:
        """Poll until ready, or raise ServerDied with the log's end when it died or time is up."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running or time.monotonic() > deadline:
                why = "did not answer in time" if self.running else f"ended with {self.popen.returncode}"
                raise ServerDied(f"{self.argv[0]} {why}; its log ends:\n{self.text()[-2000:]}")
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._popen is not None:
            self.stop()


def answers(url: str, status: int = 200) -> Callable[[], bool]:
    """A readiness check: GET url answers with this status."""

    def ready() -> bool:
        try:
            return httpx.get(url, timeout=2.0, trust_env=False, verify=_NO_TLS).status_code == status
        except httpx.HTTPError:
            return False

    return ready


def _is_up(process: Process, port: int, heartbeat: Callable[[], bool]) -> bool:
    # This very process, and not a stranger who was quicker.
    return process.running and port in listening_ports(process.pid) and heartbeat()


def _port_was_taken(process: Process) -> bool:
    said = process.text()
    return "is not available" in said or "address already in use" in said


@dataclass(frozen=True)
class Server:
    """A running Chroma server."""

    url: str
    port: int
    path: Path
    version: Version
    token: str | None
    process: Process
    header: TokenHeader = "Authorization"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def modern(self) -> bool:
        """Whether this is a 1.x server."""
        return self.version.startswith("1.")

    @property
    def credentials(self) -> dict[str, str]:
        """The header that this server lets in, if it looks at any."""
        if self.token is None:
            return {}
        return {self.header: f"Bearer {self.token}" if self.header == "Authorization" else self.token}

    def stop(self) -> None:
        """Clean end (SIGTERM); leaving the block afterwards is harmless."""
        self.process.stop()

    def kill(self) -> None:
        """The crash: SIGKILL."""
        self.process.kill()

    def pause(self) -> None:
        """The hang: SIGSTOP. Connections are still taken, and never answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def chroma_server(
    path: Path,
    port: int | None = None,
    version: Version = "1.5.9",
    token: str | None = None,
    header: TokenHeader = "Authorization",
    before: Sequence[str] = (),
    log: Path | None = None,
) -> Iterator[Server]:
    """Run a real Chroma server over the directory until the block ends.

    Without a port a free one is found (another is tried when somebody was quicker). A token is
    possible up to 0.6.3: 1.x has no authentication of its own. `before` stands before the command.
    """
    if token is not None and version.startswith("1."):
        raise ValueError("Chroma 1.x has no authentication; a token works with older versions only")
    if log is None:
        path.mkdir(parents=True, exist_ok=True)
        log = path.parent / f"{path.name}.log"
    for attempt in range(PORT_ATTEMPTS):
        chosen = port if port is not None else free_port()
        url = f"http://127.0.0.1:{chosen}"
        argv = [*before, *_argv(version, path, chosen)]
        process = Process(argv, log, env=_env(version, token, header), cwd=log.parent)
        with process.start():
            try:
                heartbeat = answers(f"{url}/api/{'v1' if version == '0.4.24' else 'v2'}/heartbeat")
                process.wait_until(partial(_is_up, process, chosen, heartbeat))
            except ServerDied:
                if port is not None or attempt == PORT_ATTEMPTS - 1 or not _port_was_taken(process):
                    raise
                continue
            yield Server(url, chosen, path, version, token, process, header)
            return


def _argv(version: Version, path: Path, port: int) -> list[str]:
    where = ["--path", str(path), "--host", "127.0.0.1", "--port", str(port)]
    if version == "1.5.9":
        return [sys.executable, "-c", _RUN_RUST, *where]
    programs = environment(version) / "bin"
    if version == "1.0.21":
        return [str(programs / "python"), "-c", _RUN_RUST, *where]
    return [str(programs / "chroma"), "run", *where]


def _env(version: Version, token: str | None, header: TokenHeader) -> dict[str, str]:
    """This environment without anything that would configure Chroma, and with the token if any."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CHROMA", "CHROMACTL"))}
    # An older server's thousand modules are compiled when it first starts, and not each time again.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["ANONYMIZED_TELEMETRY"] = "False"
    if token is None:
        return env
    if version == "0.4.24":  # it ignores the later names without a word, and is open then
        env["CHROMA_SERVER_AUTH_PROVIDER"] = "chromadb.auth.token.TokenAuthServerProvider"
        env["CHROMA_SERVER_AUTH_CREDENTIALS_PROVIDER"] = "chromadb.auth.token.TokenConfigServerAuthCredentialsProvider"
        env["CHROMA_SERVER_AUTH_CREDENTIALS"] = token
        env["CHROMA_SERVER_AUTH_TOKEN_TRANSPORT_HEADER"] = header.upper().replace("-", "_")
    else:
        env["CHROMA_SERVER_AUTHN_PROVIDER"] = "chromadb.auth.token_authn.TokenAuthenticationServerProvider"
        env["CHROMA_SERVER_AUTHN_CREDENTIALS"] = token
        env["CHROMA_AUTH_TOKEN_TRANSPORT_HEADER"] = header
    return env


def environment(version: Version) -> Path:
    """The virtual environment of an older server, made from its lock on first use and then kept.

    It lives in $CHROMA_STACK_TEST_CACHE, or in .cache/servers of the checkout; several test runs
    may want it at once, so making it is guarded by a lock file beside it.
    """
    cache = Path(os.environ.get("CHROMA_STACK_TEST_CACHE") or CHECKOUT / ".cache" / "servers")
    folder = cache / version
    complete = folder / ".complete"
    if complete.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{version}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv = str(Path(sys.executable).parent / "uv")
            lock = str(CHECKOUT / "requirements" / f"chroma-{version}.txt")
            # chroma-hnswlib has wheels up to 3.12; where no such Python is found, uv fetches one if it can.
            python = ">=3.11" if version == "1.0.21" else ">=3.11,<3.13"
            _run([uv, "venv", "--quiet", "--python", python, str(folder)])
            _run([uv, "pip", "sync", "--quiet", "--python", str(folder), "--require-hashes", lock])
            complete.touch()
    return folder


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ServerDied(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
