"""What python_environment promises, with the real uv, venv and pip; packages are wheels made here."""

from __future__ import annotations

import base64
import ensurepip
import hashlib
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.modules import Module

MODULE = Module("python_environment")
run, complaint, refusal = MODULE.run, MODULE.complaint, MODULE.refusal


UV = str(Path(sys.executable).parent / "uv")


def wheel(folder: Path, name: str, version: str = "1.0", text: str = "") -> Path:
    """Write a wheel of one module that depends on nothing."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def line(path: Path) -> str:
    """The line of a lock for that wheel."""
    return f"{path} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("UV_OFFLINE", "1"), ("UV_CACHE_DIR", str(tmp_path / "cache")), ("PIP_NO_INDEX", "1")):
        monkeypatch.setenv(name, value)


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    """Arguments for an environment of one package."""
    lock = line(wheel(tmp_path, "alpha"))
    return {"path": str(tmp_path / "environment"), "python": sys.executable, "locks": [lock], "uv": UV}


def installed(result: dict[str, Any]) -> list[str]:
    """The packages that lie in the environment."""
    return sorted(path.name[: -len(".dist-info")] for path in Path(result["site_packages"]).glob("*.dist-info"))


def test_an_environment_is_made_once_and_then_left_alone(wanted: dict[str, Any], tmp_path: Path) -> None:
    foretold = run(check=True, **wanted)
    assert (foretold["changed"], foretold["changes"]) == (True, ["+ all packages of the lock"])
    assert not (tmp_path / "environment").exists()

    first = run(umask=0o077, **wanted)
    assert first["changed"] is True
    assert [change.split("==")[0].split(" @")[0] for change in first["changes"]] == ["+ alpha"]
    assert installed(first) == ["alpha-1.0"]
    assert (first["digest"], first["site_packages"]) == (foretold["digest"], foretold["site_packages"])
    assert (tmp_path / "environment").stat().st_mode & 0o777 == 0o755  # the service's user reads it

    assert run(check=True, **wanted) == run(**wanted) == first | {"changed": False, "changes": []}


def test_the_lock_decides_what_is_added_and_removed(wanted: dict[str, Any], tmp_path: Path) -> None:
    first = run(**wanted)
    wanted["locks"] = [line(wheel(tmp_path, "beta")), line(wheel(tmp_path, "gamma"))]
    second = run(**wanted)
    assert installed(second) == ["beta-1.0", "gamma-1.0"]
    named = sorted("".join(re.findall(r"^[+~-] \w+", change)) for change in second["changes"])
    assert named == ["+ beta", "+ gamma", "- alpha"]
    assert second["digest"] != first["digest"]


def test_what_was_changed_by_hand_is_put_right(wanted: dict[str, Any]) -> None:
    packages = Path(run(**wanted)["site_packages"])
    shutil.rmtree(packages / "alpha-1.0.dist-info")
    stranger = packages / "stranger-1.0.dist-info"
    stranger.mkdir()
    (stranger / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (stranger / "RECORD").write_text("stranger-1.0.dist-info/METADATA,,\nstranger-1.0.dist-info/RECORD,,\n")
    assert run(check=True, **wanted)["changed"] is True
    assert stranger.is_dir()
    assert run(**wanted)["changed"] is True
    assert sorted(path.name for path in packages.glob("*.dist-info")) == ["alpha-1.0.dist-info"]
    assert run(**wanted)["changed"] is False


def test_a_record_that_is_none_is_made_good(wanted: dict[str, Any], tmp_path: Path) -> None:
    run(**wanted)
    (tmp_path / "environment/installed.json").write_text("[]")
    assert run(**wanted)["changed"] is True
    assert run(**wanted)["changed"] is False


def test_a_wheel_that_changed_within_its_version_is_replaced(wanted: dict[str, Any], tmp_path: Path) -> None:
    home = tmp_path / "wheels"
    for text in ("A = 1\n", "A = 2\n"):
        own = wheel(tmp_path, "own", text=text)
        # As base64(1) gives it, in lines.
        content = base64.encodebytes(own.read_bytes()).decode()
        wanted |= {"wheel": own.name, "wheel_folder": str(home), "wheel_content": content}
        result = run(**wanted)
        assert result["changed"] is True
        assert installed(result) == ["alpha-1.0", "own-1.0"]
        assert (Path(result["site_packages"]) / "own.py").read_text() == text
        assert (home / own.name).read_bytes() == own.read_bytes()
        assert run(**wanted)["changed"] is False


@pytest.fixture
def bare_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This Python; its environments borrow pip out of the wheel that it would unpack into each for seconds."""
    folders = (sysconfig.get_config_var("WHEEL_PKG_DIR"), Path(ensurepip.__file__).parent / "_bundled")
    pips = [path for folder in folders if folder for path in Path(folder).glob("pip-*.whl")]
    monkeypatch.setenv("PYTHONPATH", str(pips[0]))
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --without-pip\n')
    path.chmod(0o755)
    return str(path)


def test_without_uv_venv_and_pip_leave_only_what_the_lock_names(
    wanted: dict[str, Any], tmp_path: Path, bare_python: str
) -> None:
    run(**wanted)
    wanted |= {"uv": "", "python": bare_python, "locks": [line(wheel(tmp_path, "beta"))]}
    result = run(**wanted)
    assert result["changes"] == ["+ all packages of the lock"]
    assert installed(result) == ["beta-1.0"]
    assert run(**wanted)["changed"] is False


def test_a_package_with_another_hash_is_not_installed(wanted: dict[str, Any], tmp_path: Path) -> None:
    lock = line(wheel(tmp_path, "alpha"))
    wheel(tmp_path, "alpha", text="import evil\n")
    result = run(**(wanted | {"locks": [lock]}))
    assert result["failed"] is True
    assert "ash mismatch" in result["msg"]
    assert not list((tmp_path / "environment").rglob("alpha*"))


def test_a_package_without_a_hash_is_not_installed(wanted: dict[str, Any], tmp_path: Path) -> None:
    result = run(**(wanted | {"locks": [f"{tmp_path}/alpha-1.0-py3-none-any.whl\n"]}))
    assert result["failed"] is True
    assert "could not be installed" in result["msg"]


@pytest.mark.parametrize("check", [True, False])
def test_a_folder_of_somebody_is_not_emptied(wanted: dict[str, Any], tmp_path: Path, check: bool) -> None:
    data = tmp_path / "environment/data"
    data.mkdir(parents=True)
    (data / "chroma.sqlite3").write_text("records")
    said = complaint(check=check, **wanted)
    assert said.startswith(f"{tmp_path}/environment is no Python environment and holds data;")
    assert (data / "chroma.sqlite3").read_text() == "records"


def test_half_an_environment_is_made_anew(wanted: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "environment/lib").mkdir(parents=True)
    (tmp_path / "environment/requirements.txt").write_text("half")
    assert installed(run(**wanted)) == ["alpha-1.0"]


@pytest.mark.parametrize("check", [True, False])
def test_a_python_that_will_not_do_is_refused(wanted: dict[str, Any], tmp_path: Path, check: bool) -> None:
    assert "needed is 2.7 or 3.0. Name another." in complaint(check=check, **(wanted | {"versions": ["2.7", "3.0"]}))
    assert "is not a Python that runs" in complaint(check=check, **(wanted | {"python": str(tmp_path / "python3.11")}))
    assert not (tmp_path / "environment").exists()


def test_a_uv_that_is_not_there(wanted: dict[str, Any], tmp_path: Path) -> None:
    assert f"{tmp_path}/uv" in complaint(**(wanted | {"uv": str(tmp_path / "uv")}))


def test_a_folder_that_cannot_be_written(wanted: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "environment").write_text("a file")
    assert "could not be written" in complaint(**wanted)
    assert (tmp_path / "environment").read_text() == "a file"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"path": None}, "The option path is needed."),
        ({"python": None}, "The option python is needed."),
        ({"locks": None}, "The option locks is needed."),
        ({"path": "relative"}, "The option path is an absolute path."),
        ({"locks": "hunter2"}, "The option locks is of type list, not str."),
        ({"locks": [{"x": "hunter2"}]}, "The option locks is a list of texts; put a version in quotes."),
        ({"versions": [3.11]}, "The option versions is a list of texts; put a version in quotes."),
        ({"wheel": "own.whl"}, "The option wheel needs wheel_content and wheel_folder too."),
        (
            {"wheel": "../own.whl", "wheel_content": "eA==", "wheel_folder": "/w"},
            "The option wheel is a file name without a folder.",
        ),
        ({"wheel": "own.whl", "wheel_content": "?", "wheel_folder": "/w"}, "The option wheel_content is not base64."),
        (
            {"lock": "hunter2"},
            "There is no option lock; the options are path, python, versions, locks, wheel, wheel_content, "
            "wheel_folder, uv.",
        ),
    ],
)
def test_malformed_arguments(wanted: dict[str, Any], wrong: dict[str, Any], said: str) -> None:
    assert refusal(**(wanted | wrong)) == said


def test_malformed_arguments_end_in_a_sentence_and_no_traceback() -> None:
    assert complaint().endswith(" is needed.")
    assert complaint(token="hunter2").startswith("There is no option token; the options are ")
