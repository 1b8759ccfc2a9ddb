"""`app worker` is told to stop in the middle of a batch: that batch is finished, once; the rest is left to others."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from support.embedding_server import MODEL, EmbeddingServer, embedding_server
from support.forwarder import Forwarder, forwarder
from support.killable import Stack, stack, until
from support.servers import Process, chroma_server
from support.service import DIMENSION

RECORDS, BATCH = 200, 50
PATIENCE = 60.0
STOPPING = "stopping after the batches in hand"

Place = Literal["provider", "Chroma"]


@dataclass
class Held:
    """Keeps the first request waiting that may be kept, until it may go on."""

    at: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def here(self) -> None:
        """What the others pass."""
        if not self.at.is_set():
            self.at.set()
            assert self.go_on.wait(PATIENCE)


def is_ours(text: str) -> bool:
    """Whether it is a record's, and not what a worker asks when it starts."""
    return text.startswith("record ")


@dataclass
class Site:
    """Servers and workers, with somebody who sees what goes to Chroma and to the embedding provider."""

    whole: Stack
    provider: EmbeddingServer
    between: Forwarder
    written: Counter[str] = field(default_factory=Counter)

    def hold(self, place: Place) -> Held:
        """Keep a batch waiting where it is embedded, or where it is written."""
        held = Held()
        self.written.clear()
        self.provider.texts.clear()

        def at_provider(body: dict[str, Any]) -> None:
            if place == "provider" and any(map(is_ours, body["input"])):
                held.here()

        def at_chroma(path: str, body: dict[str, Any]) -> None:
            if path.endswith("/upsert"):
                if place == "Chroma":
                    held.here()
                self.written.update(body["ids"])

        self.provider.judge, self.between.guard = at_provider, at_chroma
        return held

    @property
    def embedded(self) -> list[str]:
        """What the provider has answered."""
        return [text for text in self.provider.texts if is_ours(text)]

    def remember(self) -> None:
        """Write many records at once."""
        self.whole.sql(
            "INSERT INTO memory_logs (user_id, project_id, raw_data) SELECT %s, 'first', jsonb_build_object("
            "'content', 'record ' || n || ' of ' || txid_current(), 'metadata', jsonb_build_object('n', n)) "
            "FROM generate_series(1, %s) n",
            *("ann", RECORDS),
        )

    def untouched(self) -> int:
        """How many events wait as they were made."""
        rows = self.whole.sql("SELECT count(*) FROM outbox WHERE operation = 'upsert' AND attempts = 0")
        assert rows == [(self.whole.truth.waiting(),)]
        return int(rows[0][0])

    def finish(self) -> None:
        """Have another worker do what is left, and stop it when it has nothing to do."""
        (other,) = self.whole.have_workers(1)
        self.whole.until_indexed()
        assert other.stop() == 0
        self.whole.assert_right()
        assert "Traceback" not in self.whole.said()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, module_ready_url: str) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("stops")
    with (
        embedding_server(DIMENSION) as provider,
        chroma_server(folder / "chroma") as chroma,
        forwarder(chroma.url) as between,
    ):
        variables = {
            "CHROMA_PORT": between.url.rpartition(":")[2],
            "EMBEDDING_PROVIDER": "openai",
            "EMBEDDING_URL": provider.url,
            "EMBEDDING_MODEL": MODEL,
            "EMBEDDING_BATCH": str(BATCH),
            "EMBEDDING_TIMEOUT_SECONDS": str(PATIENCE),
            "INDEX_BATCH_SIZE": str(BATCH),
            "INDEX_CONCURRENCY": "1",
        }
        with stack(folder, chroma, module_ready_url, api_workers=0, **variables) as whole:
            yield Site(whole, provider, between)


@pytest.fixture
def begin(site: Site) -> Iterator[Callable[[Place], tuple[Process, Held]]]:
    """A worker that has a batch in hand, which is held up there until the test lets it go on, or ends."""
    holds = []

    def made(place: Place) -> tuple[Process, Held]:
        held = site.hold(place)
        holds.append(held)
        site.remember()
        worker = site.whole.begin_worker()
        worker.wait_until(held.at.is_set)
        return worker, held

    yield made
    for held in holds:
        held.go_on.set()


@pytest.mark.parametrize(
    ("number", "code", "place"),
    [(signal.SIGTERM, 0, "provider"), (signal.SIGINT, 130, "Chroma")],
    ids=["SIGTERM while it is embedded", "SIGINT while it is written"],
)
def test_the_batch_in_hand_is_finished_once_and_no_other_is_begun(
    site: Site, begin: Callable[[Place], tuple[Process, Held]], number: signal.Signals, code: int, place: Place
) -> None:
    worker, held = begin(place)
    worker.popen.send_signal(number)
    worker.wait_until(lambda: STOPPING in worker.text())
    assert site.untouched() == RECORDS
    held.go_on.set()
    assert worker.wait(PATIENCE) == code
    assert '"stopped"' in worker.text().splitlines()[-1]
    assert site.untouched() == RECORDS - BATCH
    assert (len(site.embedded), site.written.total()) == (BATCH, BATCH)
    site.finish()
    # nothing was done twice
    assert len(set(site.embedded)) == len(site.embedded) == RECORDS
    assert set(site.written.values()) == {1}
    assert len(site.written) == RECORDS


@pytest.mark.parametrize("place", ["provider", "Chroma"])
def test_a_second_signal_ends_it_at_once_and_others_do_what_it_had_in_hand(
    site: Site, begin: Callable[[Place], tuple[Process, Held]], place: Place
) -> None:
    worker, held = begin(place)
    worker.popen.send_signal(signal.SIGTERM)
    worker.wait_until(lambda: STOPPING in worker.text())
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == -signal.SIGTERM
    until(lambda: not site.whole.sql("SELECT FROM pg_locks WHERE relation = 'outbox'::regclass"), "its locks are gone")
    assert site.untouched() == RECORDS
    held.go_on.set()  # what it had sent to Chroma arrives all the same
    site.finish()
    assert len(site.written) == RECORDS
