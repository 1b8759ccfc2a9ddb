"""Who asks: every route but health and metrics depends on `Caller`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from app.core.errors import UnknownTenant
from app.core.memory.tenant import Tenant
from app.services import Services

TENANT_HEADER = "X-Tenant"

_bearer = HTTPBearer(auto_error=False, scheme_name="Bearer", description="An API key, from `app keys issue`.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="X-API-Key", description="The same.")


async def _caller(
    request: Request,
    services: Services,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Tenant:
    tenant = await services.doorkeeper.tenant(bearer.credentials if bearer else header)
    request.state.tenant = tenant  # for the access line
    # For who has many keys: a request that means another tenant than its key's is stopped, not served.
    meant = request.headers.get(TENANT_HEADER)
    # headers are read as latin-1; a name that has other letters comes in UTF-8
    if meant is not None and meant.encode("latin-1") != str(tenant).encode():
        raise UnknownTenant("There is no such tenant, or this key is not one of it.")
    return tenant


Caller = Annotated[Tenant, Depends(_caller)]
