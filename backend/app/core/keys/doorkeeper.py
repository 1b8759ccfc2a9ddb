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
    """Lets keys in. A revoked key is let in for at most `seconds` more, by those who have just seen it."""

    def __init__(self, keys: KeyRepository, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._seconds = seconds
        self._clock = clock
        # by the hash of the secret as well: a wrong secret never finds what a right one left
        self._seen: OrderedDict[tuple[str, bytes], tuple[Tenant, float]] = OrderedDict()

    async def tenant(self, text: str | None) -> Tenant:
        """The tenant of this key; InvalidKey, DatabaseUnavailable."""
        if not text:
            raise InvalidKey("There is no API key.", hint="Send it as: Authorization: Bearer cs_…")
        key = Key.parse(text)
        if key is None:
            raise InvalidKey
        mark = key.id, key.hash()
        seen = self._seen.get(mark)
        if seen is not None and self._clock() < seen[1]:
            return seen[0]
        asked = self._clock()
        tenant = await self._keys.tenant_of(key)
        if tenant is None:
            self._seen.pop(mark, None)
            raise InvalidKey
        self._seen[mark] = tenant, asked + self._seconds
        self._seen.move_to_end(mark)
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return tenant
