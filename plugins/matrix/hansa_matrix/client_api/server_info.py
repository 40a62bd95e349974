"""What this server can do, and where it is. SPEC: client-server API, "API Versions", "Server Discovery",
"Capabilities negotiation".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, Request, Response

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import (
    Handler,
    PublicHandler,
    RateLimited,
)
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.room_versions import VERSIONS

_SPEC_VERSIONS = ["r0.6.1", *(f"v1.{minor}" for minor in range(1, 13))]


class ServerInfoEndpoints:
    """Versions, capabilities, and the endpoints of what this server does not have."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    def public_routes(self) -> Mapping[tuple[str, str], PublicHandler]:
        """Returns the endpoints that need no token."""
        return {("GET", "/versions"): self.get_versions}

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("GET", "/v3/capabilities"): self.get_capabilities,
            ("GET", "/v3/voip/turnServer"): self._get_empty,
            ("GET", "/v3/thirdparty/protocols"): self._get_empty,
            ("GET", "/v3/pushers"): self._get_pushers,
        }

    async def get_versions(self, _request: Request, _body: Any) -> Any:
        """``GET /versions``."""
        return {"versions": _SPEC_VERSIONS, "unstable_features": {"org.matrix.msc4222": True}}

    async def get_well_known(self, _request: Request, _body: Any) -> Response | dict[str, Any]:
        """``GET /.well-known/matrix/client``."""
        base = self._ctx.config.public_base_url
        if not base:
            raise matrix_error(404, "M_NOT_FOUND", "this server does not say where clients are to go")
        hint = {"default": bool(self._ctx.config.encryption_by_default)}
        return {"m.homeserver": {"base_url": base}, "io.element.e2ee": hint}

    async def get_capabilities(self, _caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /capabilities``."""
        default = self._ctx.config.room_version
        return {
            "capabilities": {
                "m.room_versions": {"default": default, "available": dict.fromkeys(VERSIONS, "stable")},
                "m.change_password": {"enabled": True},
                "m.set_displayname": {"enabled": True},
                "m.set_avatar_url": {"enabled": True},
                "m.3pid_changes": {"enabled": False},
                "m.get_login_token": {"enabled": False},
                "m.profile_fields": {"enabled": True},
            }
        }

    async def _get_empty(self, *_: Any) -> Any:
        return {}

    async def _get_pushers(self, *_: Any) -> Any:
        return {"pushers": []}
