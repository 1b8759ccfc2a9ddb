"""Who a request comes from: the key's tenant, asked of PostgreSQL and remembered for a moment."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from app.core.errors import InvalidKey
from app.core.keys.key import Key
from app.core.keys.repository import KeyRepository
from app.core.memory.tenant import Tenant

MAX_REMEMBERED = 10_000


class Doorkeeper:
    """Lets keys in.

    A key that was revoked is let in for at most `seconds` more, by those who have just seen it; one that expires, not
    a moment longer. Only keys that were let in are remembered: a wrong one is asked for each time, and so works as
    soon as it is issued. `refused` is told of everyone who is not let in, and why.
    """

    def __init__(
        self,
        keys: KeyRepository,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._keys = keys
        self._seconds = seconds
        self._clock = clock
        self._refused = refused
        # by the hash of the secret as well: a wrong secret never finds what a right one left
        self._seen: OrderedDict[tuple[str, bytes], tuple[Tenant, float]] = OrderedDict()

    async def tenant(self, text: str | None) -> Tenant:
        """The tenant of this key; InvalidKey, DatabaseUnavailable."""
        if not text:
            self._refused("missing")
            raise InvalidKey("There is no API key.", hint="Send it as: Authorization: Bearer cs_…")
        key = Key.parse(text)
        if key is None:
            self._refused("malformed")
            raise InvalidKey
        mark = key.id, key.hash()
        seen = self._seen.get(mark)
        if seen is not None and self._clock() < seen[1]:
            return seen[0]
        asked = self._clock()
        admitted = await self._keys.admit(key)
        if admitted is None:
            self._seen.pop(mark, None)
            self._refused("unknown")
            raise InvalidKey
        self._seen[mark] = admitted.tenant, asked + min(self._seconds, admitted.seconds_left)
        self._seen.move_to_end(mark)
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return admitted.tenant
