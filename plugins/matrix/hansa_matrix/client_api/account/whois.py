"""The endpoint that lists a user's devices and addresses. SPEC: client-server API, "Server
Administration".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Request

from hansa_matrix.client_api.account.accounts import Accounts, Requester
from hansa_matrix.client_api.account.last_seen import NEVER
from hansa_matrix.client_api.http import Handler, RateLimited
from hansa_matrix.errors import matrix_error
from hansa_matrix.users.devices import Devices


class Whois:
    """Answers about the caller, and for administrators about any local user."""

    def __init__(self, accounts: Accounts, devices: Devices) -> None:
        self._accounts = accounts
        self._devices = devices

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("GET", "/v3/admin/whois/{user}"): self.get_whois}

    async def get_whois(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /admin/whois/{userId}``: a device has one session, with its last request."""
        user = request.path["user"]
        if user != caller.user and not caller.admin:
            raise matrix_error(403, "M_FORBIDDEN", "that is for administrators and for oneself")
        if await self._accounts.get(user) is None:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no account named {user[:255]}")
        seen = await self._accounts.last_seen.devices_of(user)
        devices: dict[str, Any] = {}
        for device in (await self._devices.get_all(user)).devices:
            last = seen.get(device, NEVER)
            known = [{"ip": last.address, "last_seen": last.ts}] if last.ts else []
            devices[device] = {"sessions": [{"connections": known}]}
        return {"user_id": user, "devices": devices}
