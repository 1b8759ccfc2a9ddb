"""The load, for Locust: who searches the service, who searches Chroma, who writes. Settings come from a JSON file."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant_throughput, task

SETTINGS: dict[str, Any] = json.loads(Path(os.environ["BENCH_SETTINGS"]).read_text())
HEADERS = {"content-type": "application/json", **SETTINGS["headers"]}
BODIES = itertools.cycle([json.dumps(body).encode() for body in SETTINGS["bodies"]])
# One write in so many is followed until it is searchable, by asking this often: asking costs Chroma something too.
WATCHED = 50
POLL_SECONDS = 0.02
RATE = 10
LOST_SECONDS = 30.0


class Searcher(FastHttpUser):
    """One search after the other."""

    @task
    def search(self) -> None:
        """A query with one vector."""
        with self.client.post(SETTINGS["path"], data=next(BODIES), headers=HEADERS, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")


class Writer(FastHttpUser):
    """Ten writes a second; some of them are followed until Chroma has them."""

    wait_time = constant_throughput(RATE)

    def on_start(self) -> None:
        """Users do not write in step."""
        gevent.sleep(random.random() / RATE)  # noqa: S311 (no secret)

    @task
    def write(self) -> None:
        """A memory."""
        with self.client.post(SETTINGS["path"], data=next(BODIES), headers=HEADERS, catch_response=True) as answer:
            if answer.status_code != 201:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
                return
            written = time.perf_counter()
            if random.randrange(WATCHED) == 0:  # noqa: S311 (no secret)
                gevent.spawn(self.follow, json.loads(answer.text)["id"], written)

    def follow(self, memory_id: int, written: float) -> None:
        """Ask Chroma for the record until it is there, and report how long that took."""
        body = json.dumps({"ids": [f"memory_log_{memory_id}"], "include": []}).encode()
        error = None
        while True:
            with self.client.post(
                SETTINGS["record_url"], data=body, headers={"content-type": "application/json"}, name="poll"
            ) as answer:
                if answer.status_code == 200 and json.loads(answer.text)["ids"]:
                    break
            if time.perf_counter() - written > LOST_SECONDS:
                error = RuntimeError(f"memory {memory_id} is not searchable after {LOST_SECONDS:.0f} s")
                break
            gevent.sleep(POLL_SECONDS)
        self.environment.events.request.fire(
            request_type="LAG",
            name="searchable",
            response_time=1000 * (time.perf_counter() - written),
            response_length=0,
            exception=error,
        )
