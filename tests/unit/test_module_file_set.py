"""What file_set promises, on real folders."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from support.modules import Module

MODULE = Module("file_set")
run, complaint, refusal = MODULE.run, MODULE.complaint, MODULE.refusal


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(folder: Path) -> dict[str, tuple[int, int, str]]:
    """What lies below FOLDER: permissions, inode and content (or where a link leads)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (stat.S_IMODE(facts.st_mode), facts.st_ino, content)
    return found


@pytest.fixture
def wanted(tmp_path: Path) -> list[dict[str, Any]]:
    home = tmp_path / "home"
    return [
        {"path": str(home), "state": "directory", "mode": "0750"},
        {"path": str(home / "env"), "mode": "0640", "content": 'PORT=1\r\nNAME=Zürich """\\n\n'},
        {"path": str(home / "live"), "state": "link", "target": "env"},
    ]


def test_a_set_is_made_once_and_then_left_alone(tmp_path: Path, wanted: list[dict[str, Any]]) -> None:
    first = run(entries=wanted)
    assert first["changed"] is True
    assert first["changes"] == [entry["path"] for entry in wanted]
    home = tmp_path / "home"
    assert (mode(home), mode(home / "env"), os.readlink(home / "live")) == (0o750, 0o640, "env")
    assert (home / "env").read_bytes().decode() == wanted[1]["content"]

    before = tree(tmp_path)
    assert run(entries=wanted) == {"changed": False, "changes": [], "contents": {}, "diff": []}
    assert tree(tmp_path) == before


def test_check_mode_predicts_a_first_run_and_writes_nothing(tmp_path: Path, wanted: list[dict[str, Any]]) -> None:
    foretold = run(check=True, entries=wanted)
    assert tree(tmp_path) == {}
    assert foretold == run(entries=wanted)


def test_check_mode_predicts_every_kind_of_change(tmp_path: Path, wanted: list[dict[str, Any]]) -> None:
    run(entries=wanted)
    wanted[0]["mode"], wanted[1]["content"], wanted[2]["target"] = "0700", "PORT=2\n", "elsewhere"
    before = tree(tmp_path)
    foretold = run(check=True, entries=wanted)
    assert tree(tmp_path) == before
    assert foretold == run(entries=wanted)
    assert [(diff["before"], diff["after"]) for diff in foretold["diff"]] == [
        ("mode 0750\n", "mode 0700\n"),
        ('PORT=1\r\nNAME=Zürich """\\n\n', "PORT=2\n"),
        ("env\n", "elsewhere\n"),
    ]


def test_check_mode_forgives_a_user_that_is_not_there_yet(tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "new"), "owner": "no-such-user", "group": "no-such-group"}
    assert run(check=True, entries=[entry])["changes"] == [entry["path"]]
    assert "no-such-user" in complaint(entries=[entry])


def test_the_owner_that_is_asked_for_and_there_is_no_change(tmp_path: Path) -> None:
    names = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
    entry = {"path": str(tmp_path / "mine"), "content": "x", **names}
    assert run(entries=[entry])["changed"] is True
    assert run(entries=[entry])["changed"] is False


def test_only_the_permissions_change_where_only_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o644)
    inode = path.stat().st_ino
    result = run(entries=[{"path": str(path), "content": "x", "mode": "0600"}])
    assert result["changes"] == [str(path)]
    assert (mode(path), path.stat().st_ino) == (0o600, inode)


def test_content_without_a_mode_keeps_the_permissions_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o600)
    run(entries=[{"path": str(path), "content": "new"}])
    assert (path.read_text(), mode(path)) == ("new", 0o600)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_has_no_mode_is_readable_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "a/b/c"
    entries = [{"path": f"{folder}/", "state": "directory"}, {"path": str(folder / "file"), "content": "x"}]
    assert run(umask=umask, entries=entries)["changes"] == [str(folder), str(folder / "file")]
    assert [mode(path) for path in (tmp_path / "a", tmp_path / "a/b", folder, folder / "file")] == [0o755] * 3 + [0o644]


def test_a_reader_sees_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "pointer"
    path.write_text("old")
    with path.open() as reader:
        run(entries=[{"path": str(path), "content": "new"}])
        assert reader.read() == "old"  # another inode took the name; this one was never cut short
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kept_file_is_written_once_and_read_each_time(tmp_path: Path) -> None:
    path = str(tmp_path / "pointer")
    entry = {"path": path, "content": "a", "keep": True, "read": True}
    assert run(check=True, entries=[entry])["contents"] == {path: "a"}
    assert run(entries=[entry])["contents"] == {path: "a"}
    second = run(entries=[entry | {"content": "b"}])
    assert (second["changed"], second["contents"], Path(path).read_text()) == (False, {path: "a"}, "a")


def test_a_secret_stands_in_the_file_and_nowhere_in_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("hunter1")
    entry = {"path": str(path), "content": "hunter2", "secret": True, "mode": "0600"}
    answers = [run(check=True, entries=[entry]), run(entries=[entry]), run(entries=[entry])]
    assert [answer["changed"] for answer in answers] == [True, True, False]
    assert "hunter" not in json.dumps(answers)
    assert (path.read_text(), mode(path)) == ("hunter2", 0o600)


def test_a_moved_link_leaves_files_beside_it_alone(tmp_path: Path) -> None:
    link, neighbour = tmp_path / "live", tmp_path / "live.new"
    neighbour.write_text("somebody's")
    link.symlink_to("nowhere")
    target = tmp_path / "folder"
    target.mkdir()
    assert run(entries=[{"path": str(link), "state": "link", "target": str(target)}])["changed"] is True
    assert (os.readlink(link), neighbour.read_text()) == (str(target), "somebody's")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "live", "live.new"]
    assert list(target.iterdir()) == []


def occupy(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.with_name("target").write_text("x")
        path.symlink_to("target")
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe")
    else:
        path.write_text("x")


def identity(path: Path) -> tuple[int, ...]:
    """Everything that a change would change; to be read, which the access time tells, is none."""
    facts = path.lstat()
    return facts.st_ino, facts.st_mode, facts.st_uid, facts.st_gid, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("state", "there"),
    [
        ("file", "folder"),
        ("file", "fifo"),
        ("file", "link"),
        ("file", "bytes"),
        ("directory", "file"),
        ("link", "file"),
        ("link", "folder"),
    ],
)
def test_what_is_of_another_kind_is_refused_and_left(tmp_path: Path, state: str, there: str, check: bool) -> None:
    path = tmp_path / "place"
    occupy(path, there)
    before = identity(path)
    said = complaint(check=check, entries=[{"path": str(path), "state": state, "target": "t", "content": "new"}])
    assert said.startswith(str(path))
    assert said.endswith("move it away and run again")
    assert identity(path) == before


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file") in complaint(entries=[{"path": str(tmp_path / "file/below"), "content": "x"}])
    # Half a character: it cannot be written as UTF-8.
    assert "surrogates" in complaint(entries=[{"path": str(tmp_path / "half"), "content": "secret \ud800"}])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"contents": "hunter2"}, "has no contents"),
        ({"state": "absent"}, "state is one of directory, file, link"),
        ({"state": ["file"]}, "state is a text"),
        ({"state": "link"}, "needs a target"),
        ({"mode": 420}, "mode is a text; put it in quotes"),
        ({"mode": "u+x"}, "mode is octal"),
        ({"mode": "99999"}, "mode is octal"),
        ({"content": {"token": "hunter2"}}, "content is a text"),
        ({"content": None}, "content is a text"),
        ({"secret": "no"}, "secret is true or false"),
        ({"keep": 1}, "keep is true or false"),
        ({"owner": 0}, "owner is a text"),
        ({"path": "relative"}, "absolute path"),
        ({"path": None}, "absolute path"),
        ({"path": "/a\0b"}, "absolute path"),
    ],
)
def test_a_malformed_entry_is_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    good = {"path": str(tmp_path / "good"), "content": "x"}
    answer = refusal(entries=[good, {"path": str(tmp_path / "bad"), "content": "hunter2"} | wrong])
    assert said in answer
    assert "hunter2" not in answer
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [{}, {"entries": None}, {"entries": "hunter2"}, {"entries": [], "entry": "hunter2"}]
)
def test_the_one_option_is_entries(arguments: dict[str, Any]) -> None:
    said = refusal(**arguments)
    assert "The one option is entries, a list" in said
    assert "hunter2" not in said


def test_an_entry_that_is_no_entry_is_not_repeated() -> None:
    assert complaint(entries=["hunter2"]) == "Each of the entries needs an absolute path."
