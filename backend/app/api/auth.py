"""Who asks: every route but health and metrics depends on `Caller`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from app.core.errors import UnknownTenant
from app.core.memory.tenant import Tenant
from app.services import Services

_bearer = HTTPBearer(auto_error=False, scheme_name="Bearer", description="An API key, from `app keys issue`.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="X-API-Key", description="The same.")
_Meant = Annotated[
    str | None,
    Header(
        alias="X-Tenant",
        description="`user/project`, in UTF-8: for who has many keys. A request whose key "
        "is another tenant's is stopped with 404.",
    ),
]


async def caller(
    request: Request,
    services: Services,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
    meant: _Meant = None,
) -> Tenant:
    """The tenant of the request's key."""
    tenant = await services.doorkeeper.tenant(bearer.credentials if bearer else header)
    request.state.tenant = tenant  # for the access line
    # For who has many keys: a request that means another tenant than its key's is stopped, not served.
    # headers are read as latin-1; a name that has other letters comes in UTF-8
    if meant is not None and meant.encode("latin-1") != str(tenant).encode():
        raise UnknownTenant("There is no such tenant, or this key is not one of it.")
    return tenant


Caller = Annotated[Tenant, Depends(caller)]
