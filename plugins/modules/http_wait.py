#!/usr/bin/python
"""Wait until every one of some addresses answers with 200."""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

# Ansible writes the call's arguments here; file_set.py says why.
ARGUMENTS = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""

DOCUMENTATION = r"""
module: http_wait
short_description: Wait until every one of some addresses answers with 200
description:
  - Asks again five times a second, so that a service that is up costs nothing and one that starts costs no more than
    its start. Fails with what the address said last.
options:
  urls: {description: The addresses, with http, type: list, elements: str, required: true}
  seconds: {description: How long all of them may take together, type: int, default: 60}
attributes:
  check_mode: {support: full, details: In check mode nothing is asked; what would be started is not there.}
"""

EXAMPLES = r"""
- name: "service | Wait for the health of the workers, at most 60 s"
  http_wait:
    urls: ["http://127.0.0.1:8001/health"]
"""

PAUSE_SECONDS = 0.2
ANSWER_SECONDS = 5


def ask(url: str) -> str:
    """Return nothing where URL answers with 200, else what it did instead."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        text = response.read(500).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if response.status == http.client.OK else f"{response.status} {text}"


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result for these arguments."""
    seconds = arguments.get("seconds", 60)
    if arguments["_ansible_check_mode"]:
        return {"changed": False}
    deadline = time.monotonic() + seconds
    for url in arguments["urls"]:
        while said := ask(url):
            if time.monotonic() > deadline:
                return {"failed": True, "msg": f"{url} does not answer with 200 after {seconds} s; it said: {said}"}
            time.sleep(PAUSE_SECONDS)
    return {"changed": False}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(ARGUMENTS))))
