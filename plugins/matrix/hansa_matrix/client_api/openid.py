"""OpenID tokens. SPEC: client-server API, "OpenID"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import (
    Request,
)

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import (
    Handler,
    RateLimited,
    require_own_user,
)
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.users.openid import OpenId


class OpenIdEndpoints:
    """Tokens by which a third party learns who a user is."""

    def __init__(self, own: LocalServer, openid: OpenId) -> None:
        self._own = own
        self._openid = openid

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("POST", "/v3/user/{user}/openid/request_token"): self.request_token}

    async def request_token(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``POST /openid/request_token``."""
        token = await self._openid.issue_token(require_own_user(caller, request), 3600)
        return {
            "access_token": token,
            "expires_in": 3600,
            "matrix_server_name": self._own.server,
            "token_type": "Bearer",
        }
