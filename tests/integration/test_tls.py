"""A Chroma 1.x behind what it needs itself: TLS with a certificate of a private CA, and a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from chromactl.options import access
from chromactl.stores.opening import open_source, open_target
from chromactl.stores.transport import Network
from support.certificates import Authority, authority
from support.command import Chromactl
from support.databases import assert_holds, new_database
from support.ended import Ended
from support.forwarder import Forwarder, forwarder
from support.records import Made, batch_of, plain, spec_of
from support.servers import Server
from support.store_contract import RUN

TOKEN = "gateway-s3cret"
WRONG = "wr0ng-s3cret"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture
def gateway(receiving: Server, ours: Authority) -> Iterator[Forwarder]:
    with forwarder(receiving.url, tls=ours.server, token=TOKEN) as between:
        yield between


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def sample(chromactl: Chromactl, folder: Path, *arguments: object) -> Ended:
    ended = chromactl("sample", "--chunks", 40, "--dim", 8, "--json", "--verbose", *arguments)
    logs = "".join(path.read_text() for path in folder.rglob("*.log"))
    for secret in (TOKEN, WRONG):
        assert secret not in ended.out + ended.err + logs
    return ended


def last_line(ended: Ended) -> str:
    """The complaint, below the log that --verbose shows."""
    return ended.err.strip().splitlines()[-1]


def test_the_right_token_and_the_right_ca_let_source_and_target_in(
    gateway: Forwarder, ours: Authority, token: Path, receiving: Server
) -> None:
    database = new_database(receiving)
    entry = access(
        gateway.url, "target", token, "default_tenant", database.name, Network(timeout_seconds=20, ca_file=ours.file)
    )
    made = Made("pets", "l2", plain(700))
    with closing(open_target(entry, "")) as target:
        staged = target.stage(spec_of(made), RUN)
        assert target.write(staged, batch_of(made.records)) == []
        target.swap([staged], RUN)
    assert_holds(database.records("pets"), made.records, "l2")
    with closing(open_source(replace(entry, side="source"))) as source:
        (collection,) = source.collections()
        batch, unreadable = source.read(collection, source.ids(collection))
    assert (len(batch), unreadable) == (700, [])


def test_the_command_line_gets_in_too(
    gateway: Forwarder, ours: Authority, token: Path, receiving: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    place = ["--url", gateway.url, "--database", new_database(receiving).name]
    ended = sample(chromactl, tmp_path, *place, "--token-file", token, "--ca-file", ours.file)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("given", [None, WRONG])
def test_no_token_and_a_wrong_one_are_refused(
    gateway: Forwarder, ours: Authority, token: Path, chromactl: Chromactl, tmp_path: Path, given: str | None
) -> None:
    arguments: list[object] = ["--url", gateway.url, "--ca-file", ours.file]
    if given is not None:
        token.write_text(given)
        arguments += ["--token-file", token]
    ended = sample(chromactl, tmp_path, *arguments)
    assert ended.code == 3
    for words in (gateway.url, "HTTP 401", "--token-file", "CHROMACTL_TOKEN"):
        assert words in last_line(ended)
    assert len(gateway.passed) == 1


@pytest.mark.parametrize("trusted", [None, "theirs"])
def test_a_certificate_of_another_ca_is_not_trusted(
    gateway: Forwarder, token: Path, chromactl: Chromactl, tmp_path: Path, trusted: str | None
) -> None:
    arguments: list[object] = ["--url", gateway.url, "--token-file", token]
    if trusted is not None:
        arguments += ["--ca-file", authority(tmp_path, trusted).file]
    ended = sample(chromactl, tmp_path, *arguments)
    assert ended.code == 3
    for words in (gateway.url, "certificate is not trusted", "--ca-file"):
        assert words in last_line(ended)
    assert gateway.passed == []  # and nobody saw the token


@pytest.mark.parametrize("content", [None, b"", b"not a certificate", b"\xff\x00"])
def test_a_ca_file_that_is_none_is_named(
    gateway: Forwarder, chromactl: Chromactl, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    ended = sample(chromactl, tmp_path, "--url", gateway.url, "--ca-file", path)
    assert ended.code == 3
    for words in (str(path), "--ca-file"):
        assert words in last_line(ended)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_wrong_scheme_is_said_in_one_line(
    gateway: Forwarder, receiving: Server, ours: Authority, chromactl: Chromactl, tmp_path: Path, scheme: str
) -> None:
    url = gateway.url.replace("https", "http") if scheme == "http" else receiving.url.replace("http", "https")
    ended = sample(chromactl, tmp_path, "--url", url, "--ca-file", ours.file, "--timeout", 5)
    assert ended.code == 3
    assert url in last_line(ended)
    assert last_line(ended).startswith("chromactl: ")
