"""The form of a key: `cs_<id>_<secret>`. The id finds it, the secret proves it; only the secret's hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from pydantic import SecretStr

_FORM = re.compile(r"cs_(?P<id>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its owner holds it. 256 random bits need no slow hash: they cannot be guessed one by one."""

    id: str
    secret: SecretStr

    @classmethod
    def new(cls) -> Key:
        """A key that nobody has."""
        return cls(secrets.token_hex(8), SecretStr(secrets.token_urlsafe(32)))

    @classmethod
    def parse(cls, text: str) -> Key | None:
        """The key that the text is, if it is one."""
        match = _FORM.fullmatch(text)
        return cls(match["id"], SecretStr(match["secret"])) if match else None

    def reveal(self) -> str:
        """The whole key, to be shown once."""
        return f"cs_{self.id}_{self.secret.get_secret_value()}"

    def hash(self) -> bytes:
        """SHA-256 of the secret, 32 bytes."""
        return hashlib.sha256(self.secret.get_secret_value().encode()).digest()

    def matches(self, kept: bytes) -> bool:
        """Whether this is the key of that hash, in a time that tells nothing."""
        return hmac.compare_digest(self.hash(), kept)
