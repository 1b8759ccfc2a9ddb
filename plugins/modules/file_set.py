#!/usr/bin/python
"""Bring a set of folders, files and links to a stated form, in one call."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import stat
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

# Ansible writes the call's arguments here ("JSONARGS" in its guide to module architecture). A module with AnsibleModule
# would unpack and compile half a megabyte of library on every call: 0.3 s against 0.03 s on a small machine.
ARGUMENTS = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""

DOCUMENTATION = r"""
module: file_set
short_description: Bring a set of folders, files and links to a stated form in one call
description:
  - Every module call costs a third of a second on a small machine. A role that owns ten folders and files names
    them here once and pays once, where loops over M(ansible.builtin.file) and M(ansible.builtin.template) pay twenty
    times.
  - Content is written to a temporary file beside its destination, synced and renamed, so that a reader sees the old
    content or the new one and never half of it.
  - Entries are handled in the order given, so a folder stands before what lies in it. All of them are checked first;
    where one is malformed nothing is written.
  - What is of another kind than it should be (a folder, a link or a device where a file should be) is refused, not
    replaced.
options:
  entries:
    description: The folders, files and links.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {description: Where it is, type: path, required: true}
      state: {description: What it is, type: str, choices: [file, directory, link], default: file}
      content: {description: What a file holds, type: str, default: ""}
      target: {description: Where a link leads, type: path}
      mode:
        description:
          - Permissions in octal and quoted.
          - Without it what is there keeps its own, a new file gets 0644 and a new folder 0755.
        type: str
      owner: {description: Name of the owning user, type: str}
      group: {description: Name of the owning group, type: str}
      keep: {description: Write the content only where there is no file yet, type: bool, default: false}
      read: {description: Return the content that is there afterwards, type: bool, default: false}
      secret: {description: Leave the content out of the diff, type: bool, default: false}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
"""

EXAMPLES = r"""
- name: "configure | Write the folders and files of the service"
  file_set:
    entries:
      - {path: /etc/chroma-stack/api, state: directory, mode: "0750", group: chroma-stack}
      - {path: /etc/chroma-stack/api/env, mode: "0640", group: chroma-stack, content: "{{ env }}", secret: true}
"""

RETURN = r"""
changes:
  description: The paths that were changed, or would be in check mode.
  type: list
contents:
  description: Content by path, for the entries with O(entries[].read).
  type: dict
"""

DEFAULTS: dict[str, Any] = {
    "state": "file",
    "content": "",
    "target": None,
    "mode": None,
    "owner": None,
    "group": None,
    "keep": False,
    "read": False,
    "secret": False,
}
SWITCHES = ("keep", "read", "secret")


class FileSetError(Exception):
    """An entry could not be brought to its form; the message says which and why."""


@dataclass
class Outcome:
    """What a run changed, or would change."""

    changes: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)
    diffs: list[dict[str, str]] = field(default_factory=list)

    def note(self, path: str, before: str, after: str) -> None:
        """Record one difference of PATH."""
        if path not in self.changes:
            self.changes.append(path)
        self.diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})


def read_text(path: str) -> str | None:
    """Return the text of the file at PATH, or None where there is none."""
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise FileSetError(f"{path} is not text in UTF-8; move it away and run again") from error


def write_text(path: str, content: str, mode: int | None) -> None:
    """Replace the file at PATH with CONTENT in one rename, on disk before the old one goes.

    Without MODE it keeps the permissions it has: what was closed does not open because its content changed.
    """
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            if os.path.exists(path):
                before = os.stat(path)
                mode = stat.S_IMODE(before.st_mode) if mode is None else mode
                with contextlib.suppress(PermissionError):
                    os.fchown(stream.fileno(), before.st_uid, before.st_gid)
            os.fchmod(stream.fileno(), 0o644 if mode is None else mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder_handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_handle)
    finally:
        os.close(folder_handle)


def owner_ids(entry: dict[str, Any], *, dry: bool) -> tuple[int, int]:
    """Return uid and gid that ENTRY asks for; -1 means that it does not matter.

    In check mode a user that an earlier task would make is allowed to be missing.
    """
    try:
        uid = pwd.getpwnam(entry["owner"]).pw_uid if entry["owner"] else -1
        gid = grp.getgrnam(entry["group"]).gr_gid if entry["group"] else -1
    except KeyError as error:
        if dry:
            return -1, -1
        raise FileSetError(f"{entry['path']}: {error.args[0]}") from error
    return uid, gid


def mode_of(entry: dict[str, Any]) -> int | None:
    """Return the permissions that ENTRY asks for, or None where they do not matter."""
    return int(entry["mode"], 8) if entry["mode"] else None


def settle_attributes(entry: dict[str, Any], outcome: Outcome, *, dry: bool) -> None:
    """Give the path its mode and owners."""
    path = entry["path"]
    uid, gid = owner_ids(entry, dry=dry)
    if not os.path.exists(path):
        return  # check mode, and the path would be new: that is noted already
    now = os.stat(path)
    chown_uid = uid if uid not in (-1, now.st_uid) else -1
    chown_gid = gid if gid not in (-1, now.st_gid) else -1
    if chown_uid != -1 or chown_gid != -1:
        outcome.note(path, f"owner {now.st_uid}:{now.st_gid}\n", f"owner {uid}:{gid}\n")
        if not dry:
            os.chown(path, chown_uid, chown_gid)
    now = os.stat(path)  # to change the owner takes away the bits that run a file as its owner
    mode = mode_of(entry)
    if mode is not None and stat.S_IMODE(now.st_mode) != mode:
        outcome.note(path, f"mode {stat.S_IMODE(now.st_mode):04o}\n", f"mode {mode:04o}\n")
        if not dry:
            os.chmod(path, mode)


def settle_directory(entry: dict[str, Any], outcome: Outcome, *, dry: bool) -> None:
    """Make the folder where it is missing; a missing parent is made too, readable by all."""
    path = entry["path"]
    if os.path.isdir(path):
        return
    if os.path.lexists(path):
        raise FileSetError(f"{path} exists and is not a folder; move it away and run again")
    outcome.note(path, "absent\n", "directory\n")
    if not dry:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.mkdir(path, 0o700)
        mode = mode_of(entry)
        os.chmod(path, 0o755 if mode is None else mode)


def settle_file(entry: dict[str, Any], outcome: Outcome, *, dry: bool) -> None:
    """Give the file its content."""
    path, content = entry["path"], entry["content"]
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise FileSetError(f"{path} exists and is not a file; move it away and run again")
    before = read_text(path)
    if before is not None and entry["keep"]:
        content = before
    if before != content:
        hidden = entry["secret"]
        was = "absent\n" if before is None else before
        outcome.note(path, "secret, before\n" if hidden else was, "secret, after\n" if hidden else content)
        if not dry:
            write_text(path, content, mode_of(entry))
    if entry["read"]:
        outcome.contents[path] = content


def settle_link(entry: dict[str, Any], outcome: Outcome, *, dry: bool) -> None:
    """Let the link lead to its target, replaced in one rename."""
    path, target = entry["path"], entry["target"]
    before = os.readlink(path) if os.path.islink(path) else None
    if before is None and os.path.lexists(path):
        raise FileSetError(f"{path} exists and is not a link; move it away and run again")
    if before == target:
        return
    outcome.note(path, f"{before or 'absent'}\n", f"{target}\n")
    if not dry:
        # A folder of our own: a name beside the link might be somebody's file.
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.") as folder:
            temporary = os.path.join(folder, "link")
            os.symlink(target, temporary)
            os.replace(temporary, path)


FORMS = {"directory": settle_directory, "file": settle_file, "link": settle_link}


def complete(entry: Any) -> dict[str, Any]:
    """Return ENTRY with its defaults; raise FileSetError where it is no entry. The message repeats no content."""
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise FileSetError("Each of the entries needs an absolute path.")
    if unknown := sorted(map(str, entry.keys() - DEFAULTS.keys() - {"path"})):
        raise FileSetError(f"{path}: an entry has no {', '.join(unknown)}; it has path, {', '.join(DEFAULTS)}.")
    full: dict[str, Any] = DEFAULTS | entry
    texts = ["state", "content", *(name for name in ("target", "mode", "owner", "group") if full[name] is not None)]
    for names, kind, word in ((texts, str, "a text; put it in quotes"), (SWITCHES, bool, "true or false")):
        if wrong := [name for name in names if type(full[name]) is not kind]:
            raise FileSetError(f"{path}: {wrong[0]} is {word}.")
    if full["state"] not in FORMS:
        raise FileSetError(f"{path}: state is one of {', '.join(FORMS)}.")
    if full["mode"] and not re.fullmatch("[0-7]{3,4}", full["mode"]):
        raise FileSetError(f"{path}: mode is octal, like 0640.")
    if full["state"] == "link" and not full["target"]:
        raise FileSetError(f"{path}: a link needs a target.")
    return full | {"path": path.rstrip("/") or "/"}


def settle(entries: list[Any], *, dry: bool) -> Outcome:
    """Bring every entry to its form, in order; raise FileSetError or OSError at the first that cannot be."""
    outcome = Outcome()
    for entry in [complete(entry) for entry in entries]:
        FORMS[entry["state"]](entry, outcome, dry=dry)
        if entry["state"] != "link":
            settle_attributes(entry, outcome, dry=dry)
    return outcome


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result for these arguments."""
    try:
        given = sorted(name for name in arguments if not name.startswith("_ansible_"))
        if given != ["entries"] or not isinstance(arguments["entries"], list):
            raise FileSetError(f"The one option is entries, a list; given is {', '.join(given) or 'none'}.")
        outcome = settle(arguments["entries"], dry=arguments.get("_ansible_check_mode", False))
    except FileSetError as error:
        return {"failed": True, "msg": str(error)}
    except (OSError, ValueError) as error:
        return {"failed": True, "msg": f"The files could not be written: {error}"}
    return {
        "changed": bool(outcome.changes),
        "changes": outcome.changes,
        "contents": outcome.contents,
        "diff": outcome.diffs,
    }


if __name__ == "__main__":
    os.umask(0o022)  # of a missing parent; a hardened root's umask would close it to those whose folder lies in it
    sys.stdout.write(json.dumps(run(json.loads(ARGUMENTS))))
