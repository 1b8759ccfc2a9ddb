"""Settings from the environment (and an optional .env file), checked when made."""

from __future__ import annotations

import os
import string
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from app.core.errors import InvalidSettings

ENV_FILE = ".env"
MAX_TOKEN_FILE_BYTES = 4096
ONNX_DIMENSION = 384

_TOKEN_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation)
# What is not shown when it is wrong; a URL is also where somebody may have put a key.
_SECRETS = {"chroma_auth_token", "database_url", "embedding_api_key", "embedding_url"}


class Settings(BaseSettings):
    """What the environment says. An empty variable counts as not set.

    Raises pydantic's ValidationError; `load_settings` turns that into one line for people.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    chroma_mode: Literal["persistent", "http"] = Field(
        default="persistent", description="persistent (one process, no server) or http (a Chroma server)"
    )
    chroma_db_path: Path = Field(
        default=Path("data/chroma_memory"), description="the semantic memory's directory in persistent mode"
    )
    chroma_persist_dir: Path = Field(
        default=Path("data/chroma"), description="the retriever's directory in persistent mode"
    )
    chroma_host: str = Field(
        default="localhost", pattern=r"^[A-Za-z0-9._:\[\]-]+$", description="a host name or address, without http://"
    )
    chroma_port: int = Field(default=8000, ge=1, le=65535, description="a port, 1 to 65535")
    chroma_ssl: bool = Field(default=False, description="true for TLS")
    chroma_tenant: str = Field(default="default_tenant", min_length=3, description="a tenant's name")
    chroma_database: str = Field(default="default_database", min_length=3, description="a database's name")
    chroma_timeout_seconds: float = Field(default=10.0, gt=0, le=600, description="seconds, above 0 up to 600")
    chroma_auth_token: SecretStr | None = Field(default=None, description="ASCII letters, digits and punctuation only")
    chroma_auth_token_file: Path | None = Field(default=None, description="a readable file that holds the token only")
    chroma_auth_token_transport_header: Literal["Authorization", "X-Chroma-Token"] = Field(
        default="Authorization", description="Authorization or X-Chroma-Token"
    )
    chroma_resolve_seconds: float = Field(default=5.0, ge=0, le=3600, description="seconds, 0 to 3600")
    chroma_threads: int = Field(default=16, ge=1, le=256, description="concurrent calls to Chroma, 1 to 256")

    database_url: SecretStr | None = Field(
        default=None, description="postgresql://user@host:port/database, or empty for a PostgreSQL of its own"
    )
    database_password_file: Path | None = Field(default=None, description="a readable file that holds the password")
    database_path: Path = Field(default=Path("data/postgres"), description="the directory of its own PostgreSQL")
    database_pool_size: int = Field(default=10, ge=1, le=200, description="connections of one process, 1 to 200")
    database_timeout_seconds: float = Field(default=5.0, gt=0, le=600, description="seconds, above 0 up to 600")

    api_key_cache_seconds: float = Field(default=10.0, ge=0, le=3600, description="seconds, 0 to 3600")

    index_batch_size: int = Field(default=500, ge=1, le=5000, description="records a batch, 1 to 5000")
    index_concurrency: int = Field(default=2, ge=1, le=16, description="batches at once in one process, 1 to 16")
    index_poll_seconds: float = Field(default=1.0, gt=0, le=60, description="seconds, above 0 up to 60")
    index_max_attempts: int = Field(default=8, ge=1, le=100, description="attempts before a dead letter, 1 to 100")
    index_tombstone_days: int = Field(default=90, ge=1, le=3650, description="days, 1 to 3650")
    index_metrics_port: int = Field(default=0, ge=0, le=65535, description="a port, or 0 for none")
    index_metrics_host: str = Field(
        default="127.0.0.1", pattern=r"^[A-Za-z0-9._:-]+$", description="an address of this host"
    )
    search_degraded: bool = Field(default=True, description="true to answer from PostgreSQL while Chroma is down")
    search_timeout_seconds: float = Field(
        default=2.0, gt=0, le=600, description="seconds until PostgreSQL answers in Chroma's place, above 0 up to 600"
    )

    embedding_provider: Literal["hashing", "openai", "onnx"] = Field(
        default="hashing", description="hashing (no model: development and tests), openai (an API) or onnx (MiniLM)"
    )
    embedding_dimension: int = Field(default=768, ge=1, le=16384, description="a dimension, 1 to 16384")
    embedding_url: str | None = Field(default=None, description="http://host:port/v1 or https://…, without user or key")
    embedding_model: str | None = Field(default=None, description="the model's name, as the API calls it")
    embedding_api_key: SecretStr | None = Field(default=None, description="ASCII letters, digits and punctuation only")
    embedding_api_key_file: Path | None = Field(default=None, description="a readable file that holds the key only")
    embedding_batch: int = Field(default=64, ge=1, le=2048, description="texts in one request, 1 to 2048")
    embedding_timeout_seconds: float = Field(default=10.0, gt=0, le=600, description="seconds, above 0 up to 600")
    embedding_send_dimension: bool = Field(
        default=False, description="true for a model that makes vectors of the dimension it is asked for"
    )
    embedding_model_path: Path | None = Field(default=None, description="a folder with model.onnx and tokenizer.json")

    rag_collections: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="collection names separated by commas, or * for every one that is no tenant's"
    )
    rag_passage_characters: int = Field(default=1000, ge=100, le=8192, description="characters, 100 to 8192")
    rag_passage_overlap: int = Field(default=100, ge=0, le=4096, description="characters, less than half a passage")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="json, text, or auto (text on a terminal, json otherwise)"
    )

    @field_validator("rag_collections", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        # dict.fromkeys: without repetition, in the order given
        return tuple(dict.fromkeys(name.strip() for name in value if name.strip()))

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        *("chroma_db_path", "chroma_persist_dir", "chroma_auth_token_file", "database_path", "database_password_file"),
        *("embedding_api_key_file", "embedding_model_path"),
    )
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value else value

    @field_validator("chroma_auth_token", "embedding_api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked_token(value.get_secret_value()) if value else None

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        for one, other in (
            ("chroma_auth_token", "chroma_auth_token_file"),
            ("embedding_api_key", "embedding_api_key_file"),
        ):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"{one.upper()} and {other.upper()} are both set; keep one of them")
        self.token()
        self.embedding_key()
        return self

    @model_validator(mode="after")
    def _provider_has_what_it_needs(self) -> Self:
        if self.embedding_provider == "openai":
            for name in ("embedding_url", "embedding_model"):
                if getattr(self, name) is None:
                    raise ValueError(f"EMBEDDING_PROVIDER=openai: set {name.upper()} too")
        if self.embedding_provider == "onnx" and self.embedding_dimension != ONNX_DIMENSION:
            raise ValueError(
                f"EMBEDDING_PROVIDER=onnx makes vectors of dimension {ONNX_DIMENSION}; "
                f"set EMBEDDING_DIMENSION={ONNX_DIMENSION}"
            )
        return self

    @field_validator("embedding_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound or parts.username is not None or parts.query or parts.fragment:
            raise ValueError("it is not the address of an API")
        return value

    @model_validator(mode="after")
    def _overlap_is_less_than_half(self) -> Self:
        if 2 * self.rag_passage_overlap >= self.rag_passage_characters:
            raise ValueError(
                f"RAG_PASSAGE_OVERLAP={self.rag_passage_overlap} is not less than half of "
                f"RAG_PASSAGE_CHARACTERS={self.rag_passage_characters}"
            )
        return self

    def token(self) -> SecretStr | None:
        """The token for Chroma, or None. A token file is read anew, so that a rotated token is picked up.

        Raises ValueError when the file cannot be read or does not hold a token.
        """
        return self.chroma_auth_token or _secret_in(self.chroma_auth_token_file, "CHROMA_AUTH_TOKEN_FILE")

    def embedding_key(self) -> SecretStr | None:
        """The key for the embedding API, or None; read anew and complained of like the token."""
        return self.embedding_api_key or _secret_in(self.embedding_api_key_file, "EMBEDDING_API_KEY_FILE")


def _secret_in(path: Path | None, variable: str) -> SecretStr | None:
    if path is None:
        return None
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(MAX_TOKEN_FILE_BYTES).strip()
    except OSError as error:
        raise ValueError(f"{variable} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{variable} {path} is not a text file with a token") from None
    try:
        return _checked_token(text)
    except ValueError as error:
        raise ValueError(f"{variable} {path}: {error}") from None


def _checked_token(text: str) -> SecretStr:
    if not text:
        raise ValueError("the token is empty")
    if not _TOKEN_CHARACTERS.issuperset(text):
        raise ValueError("a token holds ASCII letters, digits and punctuation only, no spaces or line breaks")
    return SecretStr(text)


def load_settings() -> Settings:
    """The settings; InvalidSettings with every mistake in one line when something is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        mistakes = "; ".join(_explain(dict(mistake)) for mistake in error.errors(include_url=False))
        raise InvalidSettings(f"{mistakes}.", hint="See backend/.env.example.") from None
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidSettings(f"{ENV_FILE} cannot be read: {reason}.", hint="Correct or remove it.") from None


def _explain(mistake: dict[str, Any]) -> str:
    reason = str(mistake["msg"]).removeprefix("Value error, ")
    if not mistake["loc"]:
        return reason
    field = str(mistake["loc"][0])
    name = field.upper()
    where = "environment" if any(key.upper() == name for key in os.environ) else f"{ENV_FILE} file"
    shown = "" if field in _SECRETS else f"={str(mistake['input'])[:80]!r}"
    return f"{name}{shown} ({where}): {reason}; set {Settings.model_fields[field].description}"
