"""Ways that only read: Chroma's client, plain REST, and chromactl's export."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import orjson

PAGE, CLIENT_PAGE = 500, 1000
_EVERYTHING = ["embeddings", "documents", "metadatas", "uris"]
_ROOT = "/api/v2/tenants/default_tenant/databases/default_database/collections"

_Read = Callable[[], int]


def client(url: str) -> dict[str, Any]:
    """Chroma's own client, one page after the other."""
    import chromadb
    from chromadb.config import Settings

    begun, records = perf_counter(), 0
    settings = Settings(anonymized_telemetry=False)
    store = chromadb.HttpClient(host="127.0.0.1", port=int(url.rpartition(":")[2]), settings=settings)
    for name in [collection.name for collection in store.list_collections()]:
        collection = store.get_collection(name, embedding_function=None)
        for offset in range(0, collection.count(), CLIENT_PAGE):
            page = collection.get(
                limit=CLIENT_PAGE, offset=offset, include=["embeddings", "documents", "metadatas", "uris"]
            )
            records += len(np.asarray(page["embeddings"], np.float32))
    return {"seconds": perf_counter() - begun, "records": records}


def rest(url: str, by: str, threads: int) -> dict[str, Any]:
    """REST and orjson, pages `by` offset or `ids`, embeddings as float32 arrays."""
    begun = perf_counter()
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as http:
        keys = [entry["id"] for entry in http.get(_ROOT).raise_for_status().json()]
        pages = [page for key in keys for page in (_by_ids if by == "ids" else _by_offset)(http, key)]
        if threads == 1:
            records = sum(page() for page in pages)
        else:
            with ThreadPoolExecutor(threads) as pool:
                records = sum(pool.map(lambda page: page(), pages))
    return {"seconds": perf_counter() - begun, "records": records}


def _by_offset(http: httpx.Client, key: str) -> Iterable[_Read]:
    count = int(http.get(f"{_ROOT}/{key}/count").raise_for_status().text)
    return [_page(http, key, {"limit": PAGE, "offset": offset}) for offset in range(0, count, PAGE)]


def _by_ids(http: httpx.Client, key: str) -> Iterable[_Read]:
    ids = _post(http, key, {"include": []})["ids"]
    return [_page(http, key, {"ids": ids[start : start + PAGE]}) for start in range(0, len(ids), PAGE)]


def _page(http: httpx.Client, key: str, body: dict[str, Any]) -> _Read:
    """What reads one page, and says how many records it has."""

    def read() -> int:
        answer = _post(http, key, {**body, "include": _EVERYTHING})
        return len(np.array(answer["embeddings"], np.float32))

    return read


def _post(http: httpx.Client, key: str, body: dict[str, Any]) -> dict[str, Any]:
    content = http.post(f"{_ROOT}/{key}/get", content=orjson.dumps(body), headers={"content-type": "application/json"})
    answer: dict[str, Any] = orjson.loads(content.raise_for_status().content)
    return answer


def export(url: str, folder: str) -> dict[str, Any]:
    """The export of chromactl as the engine calls it, into checksummed shards on disk.

    The ids that preflight takes are taken once more here, within the time: the plain readers have to list or count
    too.
    """
    from chromactl import location
    from chromactl.console import Console
    from chromactl.memory import keep_small
    from chromactl.migrate import state
    from chromactl.migrate.config import MigrateConfig
    from chromactl.migrate.ledger import RunFolder
    from chromactl.migrate.plan import make_plan
    from chromactl.migrate.progress import Phases
    from chromactl.migrate.work import Work
    from chromactl.schema.profile import load
    from chromactl.stores.opening import Access, open_source

    keep_small()
    root = Path(folder)
    nowhere = Access(location.parse(f"snapshot:{root / 'nowhere'}"), "target")
    config = MigrateConfig(
        source=Access(location.parse(url), "source"),
        target=nowhere,
        profile=load("sergio"),
        checkpoint_dir=root / "checkpoints",
        log_dir=root / "logs",
        backup_dir=root / "backups",
    )
    name = state.new_run()
    with closing(open_source(config.source)) as source:
        plan = make_plan(config, source)
        run = RunFolder(state.run_folder(config, name))
        run.make()
        phases = Phases(config, state.Checkpoint(name, "preflight", config.fingerprint))
        work = Work(config, Console(quiet=True), phases, run, plan)
        begun = perf_counter()
        for planned in plan.collections:
            source.ids(planned.source)
        listed = perf_counter()
        work.go("export", source=source)
        ended = perf_counter()
    return {"seconds": ended - begun, "listing_seconds": listed - begun, "records": plan.records}
