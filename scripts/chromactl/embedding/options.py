"""The options that say who embeds the texts of test queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chromactl.embedding.openai import Endpoint, OpenAIEmbedder
from chromactl.embedding.provider import Embedder, HashEmbedder
from chromactl.errors import UsageError
from chromactl.options import F, network, option, secret

KEY = "CHROMACTL_EMBEDDING_KEY"
_OF_OPENAI = ("embedding_url", "embedding_model", "embedding_key_file")


def embedding_options(command: F) -> F:
    """The options of who embeds; `embedder` takes what they give."""
    for add in (
        option(
            "--embedding-key-file",
            type=click.Path(path_type=Path, readable=False),
            help=f"File with the API's key (or {KEY} itself).",
        ),
        option("--embedding-model", help="The model that made the collections' vectors, as the API calls it."),
        option("--embedding-url", help="An OpenAI-compatible API: http://host:port/v1 or https://…"),
        option(
            "--embedding-provider",
            type=click.Choice(["hash", "openai"]),
            default="hash",
            show_default=True,
            help="Who embeds the texts of test queries.",
        ),
    ):
        command = add(command)
    return command


def embedder(given: dict[str, Any]) -> Embedder:
    """The embedder that the options name; nothing is asked of it yet.

    Raises:
        UsageError: an option is missing, or belongs to another provider.
        PreconditionError: the key file cannot be read, or is empty.
    """
    if given["embedding_provider"] == "hash":
        if others := [name for name in _OF_OPENAI if given[name]]:
            raise UsageError(f"--{others[0].replace('_', '-')} is for --embedding-provider openai")
        return HashEmbedder()
    if missing := [name for name in _OF_OPENAI[:2] if not given[name]]:
        raise UsageError(f"--embedding-provider openai: give --{missing[0].replace('_', '-')} too")
    key = secret(given["embedding_key_file"], KEY, "key")
    return OpenAIEmbedder(Endpoint(given["embedding_url"], given["embedding_model"], key, network(given)))
