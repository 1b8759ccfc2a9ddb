"""Every database of a tenant, one migration after the other."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chromactl.console import Console
from chromactl.errors import (
    ChromactlError,
    DataDiffersError,
    EmptySourceError,
    LockedError,
    PreconditionError,
    UnreachableError,
    UsageError,
)
from chromactl.location import Kind
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.engine import migrate
from chromactl.migrate.report import Report
from chromactl.stores.opening import open_source


@dataclass(slots=True)
class AllDatabases:
    """The report of each database that held anything to migrate, and the names of those that did not."""

    reports: dict[str, Report] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        statuses = {report.status for report in self.reports.values()}
        return {
            "command": "migrate",
            "changed": any(report.changed for report in self.reports.values()),
            "status": statuses.pop() if len(statuses) == 1 else "complete",
            "databases": {name: report.as_json() for name, report in self.reports.items()},
            "empty": self.empty,
        }

    def lines(self) -> list[str]:
        """The tables for people."""
        lines = []
        for name, report in self.reports.items():
            lines += [f"database {name}:", *report.lines()]
        lines += [f"database {name}: nothing there that the profile names" for name in self.empty]
        return lines


def migrate_all(config: MigrateConfig, console: Console, log_file: Path | None = None) -> AllDatabases:
    """Migrate each database of the source's tenant into the target's of the same name, made if need be.

    Raises:
        UsageError: the target is a file, which holds one database.
        ChromactlError: as in `migrate`, with the database's name; the others are done, and the same command goes on.
    """
    if config.target.location.kind in (Kind.SNAPSHOT, Kind.JSON):
        raise UsageError("--all-databases: a snapshot or file holds one database; name a server or a directory")
    with contextlib.closing(open_source(config.source)) as source:
        names = source.databases()
    done = AllDatabases()
    failed: dict[str, ChromactlError] = {}
    for name in names:
        console.line(f"Database {name}")
        one = replace(
            config,
            source=replace(config.source, database=name),
            target=replace(config.target, database=name, create_database=True),
        )
        try:
            done.reports[name] = migrate(one, console, log_file)
        except EmptySourceError as error:
            console.line(str(error))
            done.empty.append(name)
        except UnreachableError:
            raise
        except ChromactlError as error:
            console.line(f"Database {name} failed: {error}")
            failed[name] = error
    if failed:
        raise _all_of(failed) from next(iter(failed.values()))
    return done


def _all_of(failed: dict[str, ChromactlError]) -> ChromactlError:
    """One error for what failed, with the exit code of all, if they have the same."""
    what = "; ".join(f"database {name}: {error}" for name, error in failed.items())
    codes = {error.exit_code for error in failed.values()}
    kinds = (UsageError, PreconditionError, DataDiffersError, LockedError)
    kind = next((kind for kind in kinds if codes == {kind.exit_code}), ChromactlError)
    return kind(f"{what}; the other databases are done, and the same command goes on with what is left")
