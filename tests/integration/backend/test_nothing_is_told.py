"""No text, filter, metadata, secret or tenant's name is in a log, a command line, the metrics or the health pages.

Also where something fails: words that occur nowhere else are sent every way there is, at LOG_LEVEL=DEBUG.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from app.core.keys.key import Key
from support.embedding_server import MODEL, EmbeddingServer, embedding_server
from support.evidence import Evidence, mark
from support.killable import until
from support.ports import free_port
from support.postgres import Postgres
from support.servers import Process, Server, answers, chroma_server
from support.service import DIMENSION, Service, bearer, index_worker, run_app, service
from support.stack import settings_of

KEEPER = "keeper"
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@dataclass
class Scene:
    """The service with secrets in files, and all that it shows."""

    folder: Path
    postgres: Postgres
    chroma: Server
    provider: EmbeddingServer
    database_url: str
    variables: dict[str, str]
    user: str
    project: str
    secret_words: list[str]
    evidence: Evidence
    key: str = field(default="", repr=False)
    api: Service | None = None
    worker: Process | None = None

    def run(self, *arguments: str, shown: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """`app …`; what it says on stdout is evidence too, unless it is to be shown."""
        ended = run_app(self.folder, {**self.variables, **variables}, *arguments)
        self.evidence.add(f"stderr of app {arguments[0]}", ended.stderr)
        if not shown:
            self.evidence.add(f"stdout of app {arguments[0]}", ended.stdout)
        return ended

    def call(self, method: str, path: str, key: str | None = None, **request: Any) -> httpx.Response:
        """A request."""
        assert self.api is not None
        headers = {**bearer(self.key if key is None else key), **request.pop("headers", {})}
        return self.api.http.request(method, path, headers=headers, **request)

    def ask(self, method: str, path: str, status: int, **request: Any) -> httpx.Response:
        """A request that is answered with this status."""
        response = self.call(method, path, **request)
        assert response.status_code == status, response.text
        return response

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Of the database, as its superuser."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def until_indexed(self) -> None:
        """The index worker has nothing left to do."""
        until(lambda: self.rows("SELECT count(*) FROM outbox") == [(0,)], "the outbox is empty")

    def said(self, words: str) -> Callable[[], bool]:
        """Whether a process of the service has logged these words."""
        return lambda: any(words in path.read_text(errors="replace") for path in self.evidence.logs if path.exists())

    def assert_untold(self, *words: str) -> None:
        """Nothing shows one of these, nor any secret."""
        assert self.api is not None
        assert self.worker is not None
        health = [f"{self.api.url}{path}" for path in ("/health", "/health/ready", "/health/chromadb", "/metrics")]
        self.evidence.look_at(*health, f"http://127.0.0.1:{self.variables['INDEX_METRICS_PORT']}/metrics")
        self.evidence.look_into(self.api.process, self.worker)
        everything = (*words, *self.secret_words, self.user, self.project)
        assert [place for word in everything for place in self.evidence.where(word.lower())] == []


@contextmanager
def secret_file(folder: Path, name: str, word: str) -> Iterator[str]:
    path = folder / name
    path.write_text(f"{word}\n")
    path.chmod(0o600)
    yield str(path)


def keeper(postgres: Postgres, password: str) -> str:
    """A role that has to show its password; the URL of a new database for it."""
    url = postgres.new_database()
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {KEEPER} LOGIN SUPERUSER PASSWORD '{password}'".encode())
        ((path,),) = connection.execute("SELECT current_setting('hba_file')").fetchall()
        rules = Path(path)
        rules.write_text(f"host all {KEEPER} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    return url.replace("postgres@", f"{KEEPER}@")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("told")
    words = {name: mark(name) for name in ("password", "token", "provider")}
    # 24 characters of both are readable in the names of collections
    user, project = mark("u")[:12], mark("p")[:11]
    with ExitStack() as held:
        postgres = held.enter_context(Postgres(folder / "postgres").running())
        chroma = held.enter_context(chroma_server(folder / "chroma"))
        provider = held.enter_context(embedding_server(DIMENSION, words["provider"]))
        url = keeper(postgres, words["password"])
        variables = settings_of(url, chroma.port) | {
            "DATABASE_PASSWORD_FILE": held.enter_context(secret_file(folder, "password", words["password"])),
            "CHROMA_AUTH_TOKEN_FILE": held.enter_context(secret_file(folder, "token", words["token"])),
            "EMBEDDING_API_KEY_FILE": held.enter_context(secret_file(folder, "key", words["provider"])),
            "EMBEDDING_PROVIDER": "openai",
            "EMBEDDING_URL": provider.url,
            "EMBEDDING_MODEL": MODEL,
            "INDEX_MAX_ATTEMPTS": "1",
            "INDEX_METRICS_PORT": str(free_port()),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "numbers"),
            "LOG_LEVEL": "DEBUG",
        }
        open_url = url.replace(f"{KEEPER}@", "postgres@")
        found = Evidence([])
        made = Scene(
            folder, postgres, chroma, provider, open_url, variables, user, project, list(words.values()), found
        )
        assert made.run("database", "upgrade").returncode == 0
        issued = made.run("keys", "issue", "--user", user, "--project", project)
        # who issues a key is told whose it is
        found.seen.clear()
        made.key = issued.stdout.strip()
        made.secret_words.append(made.key.split("_", 2)[2])
        made.api = held.enter_context(service(folder, variables, workers=2))
        made.worker = held.enter_context(index_worker(folder, variables))
        made.worker.wait_until(answers(f"http://127.0.0.1:{variables['INDEX_METRICS_PORT']}/metrics"))
        found.logs = [made.api.process.log, made.worker.log]
        yield made


def test_what_is_remembered_and_searched_for(scene: Scene) -> None:
    text, value, name, query, wanted = (mark(part) for part in ("text", "value", "name", "query", "wanted"))
    source, passage, collection = (mark(part) for part in ("source", "passage", "collection"))
    request_id = mark("request")
    made = scene.ask(
        "POST",
        "/memories",
        201,
        json={"content": f"about {text}", "metadata": {name: value}},
        headers={"X-Request-ID": request_id},
    ).json()
    document = {"content": f"on {passage} " * 100, "source": source, "metadata": {name: value}}
    kept = scene.ask("POST", "/rag/documents", 201, json=document).json()
    scene.until_indexed()
    (found,) = scene.ask("POST", "/memories/search", 200, json={"query": query, "where": {name: value}}).json()[
        "results"
    ]
    assert text in found["content"]
    body = {"query": query, "where": {"$or": [{name: {"$in": [wanted, value]}}, {name: {"$contains": wanted}}]}}
    assert scene.ask("POST", "/rag/query", 200, json=body).json()["results"]
    scene.ask("POST", "/rag/query", 404, json={"query": query, "collections": [collection]})
    scene.ask("PATCH", f"/memories/{made['id']}", 200, json={"content": f"now {text}"})
    scene.ask("DELETE", f"/memories/{made['id']}", 204)
    scene.ask("DELETE", f"/rag/documents/{kept['id']}", 204)
    scene.until_indexed()
    # it is logged who asked, and what for
    assert scene.said(request_id)()
    scene.assert_untold(text, value, name, query, wanted, source, passage, collection)


def test_what_is_refused(scene: Scene) -> None:
    words = [mark(f"bad{number}") for number in range(15)]
    left = iter(words)
    for body in (
        {"content": {"a": next(left)}},
        {"content": "x", "metadata": {next(left): None}},
        {"content": "x", "metadata": {"a": {"b": next(left)}}},
        {"content": f"\x00{next(left)}"},
        {"content": "x", next(left): 1},
    ):
        scene.ask("POST", "/memories", 422, json=body)
    as_json = {"content-type": "application/json"}
    lone = json.dumps({"content": f"\ud800{next(left)}"})
    scene.ask("POST", "/memories", 422, content=lone, headers=as_json)
    scene.ask("POST", "/memories", 400, content=b'{"content": "%s' % next(left).encode(), headers=as_json)
    scene.ask("POST", "/memories", 422, content=next(left), headers={"content-type": "text/plain"})
    scene.ask("POST", "/memories", 413, content=next(left).encode() * 100_000, headers=as_json)
    scene.ask("GET", f"/memories/{next(left)}", 422)
    scene.ask("GET", f"/{next(left)}?q={next(left)}", 404)
    scene.ask("GET", f"/memories?cursor={next(left)}", 400)
    where = {next(left): {"$regex": next(left)}}
    scene.ask("POST", "/memories/search", 400, json={"query": "x", "where": where})
    assert list(left) == []
    tenant = mark("tenant")
    scene.ask("GET", "/memories", 404, headers={"X-Tenant": f"{tenant}/{tenant}"})
    scene.assert_untold(*words, tenant)


def test_keys_that_are_wrong(scene: Scene) -> None:
    unknown = Key.new().reveal()
    malformed = mark("malformed")
    for key in (unknown, malformed, f"cs_{malformed}"):
        scene.ask("GET", "/memories", 401, key=key)
    _, id_, secret = scene.key.split("_", 2)
    wrong = secret[::-1]
    scene.ask("GET", "/memories", 401, key=f"cs_{id_}_{wrong}")
    whole = scene.run("keys", "revoke", unknown, shown=False)
    assert whole.returncode == 1
    scene.assert_untold(unknown.split("_", 2)[2], malformed, wrong)


def test_records_to_blame(scene: Scene) -> None:
    """The dead letters themselves may quote what was refused: `app dead-letters list` shows them, and nothing else."""
    poison, nameless, refused = (mark(part) for part in ("poison", "nameless", "refused"))
    scene.provider.judge = lambda body: (
        (400, {"error": {"message": f"the input '{refused}' is not allowed"}})
        if any(refused in text for text in body["input"])
        else None
    )
    try:
        for raw_data in (
            {"content": poison, "metadata": {"nested": {poison: poison}}},
            {"content": [nameless], "metadata": {}},
            {"text": nameless},
            {"content": f"it says {refused}, and more", "metadata": {}},
        ):
            scene.rows(
                "INSERT INTO memory_logs (user_id, project_id, raw_data) VALUES (%s, %s, %s)",
                *(scene.user, scene.project, Jsonb(raw_data)),
            )
        until(lambda: scene.rows("SELECT count(*) FROM dead_letters") == [(4,)], "they are given up")
        scene.until_indexed()
        scene.ask("POST", "/memories/search", 422, json={"query": f"{refused} it is"})
        listed = scene.run("dead-letters", "list")
        assert listed.stdout.count(f"{scene.user}/{scene.project}") == 4
        assert scene.run("rebuild", "--json").returncode == 4
        assert scene.run("verify", "--json").returncode == 4
    finally:
        scene.provider.judge = None
    assert scene.said("is a dead letter after")()
    scene.rows("DELETE FROM memory_logs")
    scene.until_indexed()
    scene.assert_untold(poison, nameless, refused)


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_provider_that_quotes_what_it_was_sent(scene: Scene, status: int) -> None:
    query, text = mark("query"), mark("text")

    def quote(body: dict[str, Any]) -> tuple[int, Any]:
        (_, headers) = scene.provider.requests[-1]
        return status, {"error": {"message": f"no: '{body['input'][0][:100]}' with {headers['authorization']}"}}

    scene.provider.judge = quote
    try:
        scene.ask("POST", "/memories", 201, json={"content": f"it is {text}"})
        before = sum(path.read_text().count("indexing waits") for path in scene.evidence.logs)
        scene.ask("POST", "/memories/search", 503, json={"query": query})
        until(
            lambda: sum(path.read_text().count("indexing waits") for path in scene.evidence.logs) > before,
            "the index worker waits",
        )
    finally:
        scene.provider.judge = None
    scene.until_indexed()
    assert any(query in text for body in scene.provider.bodies for text in body["input"])
    scene.assert_untold(query, text)


def test_a_collection_that_is_gone_and_one_with_a_strangers_record(scene: Scene) -> None:
    text, strange = mark("text"), mark("strange")
    scene.ask("POST", "/memories", 201, json={"content": text})
    scene.until_indexed()
    with httpx.Client(base_url=scene.chroma.url, timeout=60, trust_env=False) as chroma:
        (own,) = [one for one in chroma.get(COLLECTIONS).json() if one["name"].startswith(f"mem.{scene.user}")]
        vector = [1.0] + [0.0] * (DIMENSION - 1)
        body = {"ids": ["memory_log_x"], "embeddings": [vector], "documents": [strange], "metadatas": [None]}
        chroma.post(f"{COLLECTIONS}/{own['id']}/add", json=body).raise_for_status()
        scene.ask("POST", "/memories/search", 200, json={"query": text, "limit": 100})
        until(scene.said("no memory of this service"), "the stranger's record is told of")
        chroma.delete(f"{COLLECTIONS}/{own['name']}").raise_for_status()
        chroma.post(COLLECTIONS, json={"name": own["name"], "metadata": {"hnsw:space": "cosine"}}).raise_for_status()
        scene.ask("POST", "/memories/search", 200, json={"query": text, "limit": 100})
        until(scene.said("is gone; its name is resolved again"), "the lost id is told of")
    # which it is can be told all the same
    assert scene.said(f"mem.*.{own['name'].rpartition('.')[2]}")()
    scene.assert_untold(text, strange)


def test_a_postgresql_that_is_restarted(scene: Scene) -> None:
    text, query = mark("text"), mark("query")
    scene.postgres.stop()
    scene.ask("POST", "/memories", 503, json={"content": text})
    scene.ask("POST", "/memories/search", 503, key=Key.new().reveal(), json={"query": query})
    scene.postgres.start()
    until(lambda: scene.call("POST", "/memories", json={"content": text}).status_code == 201, "it is there again")
    scene.until_indexed()
    scene.assert_untold(text, query)


def test_secrets_that_are_wrong(scene: Scene, tmp_path: Path) -> None:
    """A password that PostgreSQL refuses, a token that an older Chroma refuses, a key that the provider refuses."""
    password, token, key, text = (mark(part) for part in ("password", "token", "provider", "text"))
    with ExitStack() as held:
        chroma = held.enter_context(chroma_server(tmp_path / "chroma", version="0.6.3", token="another"))
        wrong = {
            "DATABASE_PASSWORD_FILE": held.enter_context(secret_file(tmp_path, "password", password)),
            "CHROMA_AUTH_TOKEN_FILE": held.enter_context(secret_file(tmp_path, "token", token)),
            "EMBEDDING_API_KEY_FILE": held.enter_context(secret_file(tmp_path, "key", key)),
            "CHROMA_PORT": str(chroma.port),
            "INDEX_METRICS_PORT": "0",
        }
        assert scene.run("keys", "list", shown=False, **wrong).returncode == 1
        worker = held.enter_context(index_worker(tmp_path, scene.variables | wrong))
        worker.wait_until(lambda: "password authentication failed" in worker.text())
        right = {name: value for name, value in wrong.items() if name != "DATABASE_PASSWORD_FILE"}
        assert scene.run("verify", shown=False, **right).returncode == 1
        api = held.enter_context(service(tmp_path, scene.variables | right))
        assert api.chroma_health().json()["type"].endswith("chroma-refused-token")
        refused = api.http.post("/memories/search", json={"query": text}, headers=bearer(scene.key))
        assert refused.json()["type"].endswith("embedding-unavailable")
        scene.evidence.add("a service with wrong secrets", api.process.text())
        scene.evidence.add("a worker with a wrong password", worker.text())
        scene.evidence.look_at(f"{api.url}/health/ready", f"{api.url}/health/chromadb", f"{api.url}/metrics")
    scene.assert_untold(password, token, key, text)
