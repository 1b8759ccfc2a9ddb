"""Where the log goes: one file a run, and on stderr the warnings (everything, with --verbose)."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from chromactl import files

_FILE_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def to_stderr(*, verbose: bool) -> None:
    """Show warnings on stderr; with `verbose` also what else is logged, once."""
    logger = logging.getLogger("chromactl")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    # The console prints its lines itself.
    handler.addFilter(lambda record: record.name != "chromactl.console")
    logger.handlers = [handler]


class _LogFile(logging.FileHandler):
    """A log file that says once, as an error of the command, that it cannot be written; never a traceback."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        path.chmod(0o640)  # like every report: for the group, not for everybody
        self._path = path
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise what the first failing write came to; drop what follows."""
        error = sys.exc_info()[1]
        if self._failed or not isinstance(error, OSError):
            return
        self._failed = True
        with files.explained(self._path):
            raise error


def to_file(folder: Path, command: str) -> Path:
    """Also write everything to `<folder>/<command>_<YYYYmmdd_HHMMSS>.log`; that file.

    Raises:
        PreconditionError: the folder cannot be written.
    """
    path = files.make_folder(folder) / f"{command}_{datetime.now(UTC):%Y%m%d_%H%M%S}.log"
    with files.explained(path):
        handler = _LogFile(path)
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(logging.Formatter(_FILE_FORMAT))
    logging.getLogger("chromactl").addHandler(handler)
    return path.absolute()
