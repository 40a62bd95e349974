"""Logging in and out. SPEC: client-server API, "Login", "Account registration and management", "Device
Management".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hansa import Conflict, LocalProtocolError, NetworkContext, Request, Write

from hansa_matrix.client_api.account.accounts import Accounts, Proof, Requester
from hansa_matrix.client_api.account.address_shares import AddressShares, address_group
from hansa_matrix.client_api.account.last_seen import NEVER, Seen
from hansa_matrix.client_api.account.login_attempts import LoginAttempts
from hansa_matrix.client_api.account.registration_tokens import RegistrationTokens
from hansa_matrix.client_api.account.ui_auth import DUMMY, PASSWORD, TOKEN, Check, UserInteractiveAuth
from hansa_matrix.client_api.http import Handler, PublicHandler, RateLimited, get_string
from hansa_matrix.crossings import Crossings, require_allowed, texts_of_values
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.devices import Device, truncate_name
from hansa_matrix.users.devices import Devices

_MAX_REMOVED_DEVICES = 1000
_MAX_NONCES, _MAX_NONCES_PER_ADDRESS, _NONCE_TTL_S = 1000, 20, 60.0


class LoginEndpoints:
    """Everything with which a person, or an administrator's tool, begins."""

    def __init__(
        self, ctx: NetworkContext, accounts: Accounts, devices: Devices, tokens: RegistrationTokens
    ) -> None:
        self._ctx = ctx
        self._attempts = LoginAttempts(ctx, accounts.came_from)
        self._accounts = accounts
        self._devices = devices
        self._tokens = tokens
        self._stages = UserInteractiveAuth(ctx.clock, ctx.random)
        self._nonces: AddressShares[bool] = AddressShares(
            ctx.clock, most=_MAX_NONCES, each=_MAX_NONCES_PER_ADDRESS, seconds=_NONCE_TTL_S
        )

    def public_routes(self) -> Mapping[tuple[str, str], PublicHandler]:
        """Returns the endpoints that need no token."""
        return {
            ("GET", "/v3/login"): self.get_login_flows,
            ("POST", "/v3/login"): self.log_in,
            ("POST", "/v3/register"): self.register_account,
            ("GET", "/v3/register/available"): self.check_available,
            ("GET", "/v1/register/m.login.registration_token/validity"): self.token_validity,
        }

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("GET", "/v3/account/whoami"): self.get_whoami,
            ("POST", "/v3/account/password"): self.change_password,
            ("POST", "/v3/account/deactivate"): self.deactivate_account,
            ("GET", "/v3/account/3pid"): self.get_third_party_ids,
            ("POST", "/v3/logout"): self.log_out,
            ("POST", "/v3/logout/all"): self.log_out_all,
            ("GET", "/v3/devices"): self.get_devices,
            ("GET", "/v3/devices/{device}"): self.get_device,
            ("PUT", "/v3/devices/{device}"): self.rename_device,
            ("DELETE", "/v3/devices/{device}"): self.delete_device,
            ("POST", "/v3/delete_devices"): self.delete_devices,
        }

    async def get_login_flows(self, _request: Request, _body: Any) -> Any:
        """``GET /login``."""
        return {"flows": [{"type": PASSWORD}]}

    async def log_in(self, request: Request, body: Any) -> Any:
        """``POST /login``."""
        if get_string(body, "type") != PASSWORD:
            raise matrix_error(400, "M_UNKNOWN", "only password login is supported")
        user = self._identifier_of(body)
        await self._attempts.limit_login(request, user)
        began = self._accounts.current_generation()
        proof = await self._accounts.check_password(user, get_string(body, "password"))
        if proof is not Proof.RIGHT:
            self._ctx.count("matrix_logins", status="refused")
            if proof is Proof.CLOSED:
                raise matrix_error(403, "M_USER_DEACTIVATED", "this account has been deactivated")
            raise matrix_error(403, "M_FORBIDDEN", "wrong user name or password")
        self._ctx.count("matrix_logins", status="let in")
        return await self._login_response(request, user, body, began)

    def _identifier_of(self, body: Mapping[str, Any]) -> str:
        identifier = body.get("identifier")
        if identifier is None:
            name = get_string(body, "user")
        elif isinstance(identifier, dict) and identifier.get("type") == "m.id.user":
            name = get_string(identifier, "user")
        else:
            raise matrix_error(400, "M_UNKNOWN", "only user IDs are supported as identifiers")
        try:
            return self._accounts.resolve_user_id(name)
        except LocalProtocolError as problem:
            raise matrix_error(403, "M_FORBIDDEN", "wrong user name or password") from problem

    async def _login_response(
        self, request: Request, user: str, body: Mapping[str, Any], began: int
    ) -> dict[str, Any]:
        name, group = get_string(body, "initial_device_display_name", ""), address_group(request.remote)
        device_id, token = await self._accounts.log_in(
            user, get_string(body, "device_id", ""), name, group=group, began=began
        )
        self._attempts.record_success(request, user, device_id)
        answer: dict[str, Any] = {"user_id": user, "access_token": token, "device_id": device_id}
        answer["home_server"] = user.partition(":")[2]
        if self._ctx.config.public_base_url:
            answer["well_known"] = {"m.homeserver": {"base_url": self._ctx.config.public_base_url}}
        return answer

    async def register_account(self, request: Request, body: Any) -> Any:
        """``POST /register``."""
        if request.first("kind", "user") != "user":
            raise matrix_error(403, "M_GUEST_ACCESS_FORBIDDEN", "guest accounts are not supported")
        mode = self._ctx.config.registration
        if mode == "closed":
            raise matrix_error(403, "M_FORBIDDEN", "registration is disabled on this server")
        self._attempts.limit_address(request)
        user = await self._require_available(
            get_string(body, "username", "") or self._ctx.random.bytes(6).hex()
        )
        password = get_string(body, "password", "")
        checks: dict[str, Check] = {}
        if mode == "token":

            async def is_token_valid(auth: Mapping[str, Any]) -> bool:
                token = auth.get("token")
                return isinstance(token, str) and await self._tokens.is_valid(token)

            checks[TOKEN] = is_token_valid
        flow = [TOKEN] if mode == "token" else [DUMMY]
        proven = await self._stages.require_flow(request, body, "", flow, checks)
        if not password:
            raise matrix_error(400, "M_MISSING_PARAM", "password is missing")
        token = str(proven[TOKEN]["token"]) if mode == "token" else ""
        return await self._create_account(request, user, password, body, token=token)

    async def _create_account(
        self,
        request: Request,
        user: str,
        password: str,
        body: Mapping[str, Any],
        *,
        admin: bool = False,
        token: str = "",
    ) -> Any:
        """An account, by one use of a registration token where there is one."""

        async def use_token() -> Write:
            use = await self._tokens.use_write(token)
            if use is None:
                raise matrix_error(403, "M_FORBIDDEN", "the token has been used too often")
            return use

        began = self._accounts.current_generation()
        try:
            await self._accounts.create_account(
                user, password, admin=admin, using=use_token if token else None
            )
        except Conflict as conflict:
            raise matrix_error(400, "M_USER_IN_USE", f"{user} is taken already") from conflict
        self._ctx.log.info("%s has an account now", user)
        if body.get("inhibit_login") is True:
            return {"user_id": user}
        return await self._login_response(request, user, body, began)

    async def _require_available(self, name: str) -> str:
        try:
            user = self._accounts.user_id(name)
        except LocalProtocolError as problem:
            raise matrix_error(400, "M_INVALID_USERNAME", str(problem)) from problem
        if self._accounts.is_reserved(user):
            raise matrix_error(400, "M_EXCLUSIVE", f"{user} is kept for the bridge and its ghosts")
        if await self._accounts.get(user) is not None:
            raise matrix_error(400, "M_USER_IN_USE", f"{user} is taken already")
        return user

    async def check_available(self, request: Request, _body: Any) -> Any:
        """``GET /register/available``."""
        self._attempts.limit_address(request)
        if self._ctx.config.registration == "closed":
            raise matrix_error(403, "M_FORBIDDEN", "registration is disabled on this server")
        await self._require_available(request.first("username"))
        return {"available": True}

    async def token_validity(self, request: Request, _body: Any) -> Any:
        """``GET /register/m.login.registration_token/validity``."""
        self._attempts.limit_address(request)
        return {"valid": await self._tokens.is_valid(request.first("token"))}

    async def get_nonce(self, request: Request, _body: Any) -> Any:
        """A number used once, for ``register_with_secret``."""
        if not self._ctx.config.registration_secret:
            raise matrix_error(
                404, "M_UNRECOGNIZED", "registration by shared secret is disabled on this server"
            )
        name = self._ctx.random.bytes(32).hex()
        self._nonces.put(name, request.remote, True)  # there is nothing to keep of it
        return {"nonce": name}

    async def register_with_secret(self, request: Request, body: Any) -> Any:
        """Make an account by proof of a secret that administrators' tools share with this server."""
        secret = self._ctx.config.registration_secret
        if not secret:
            raise matrix_error(
                404, "M_UNRECOGNIZED", "registration by shared secret is disabled on this server"
            )
        self._attempts.limit_address(request)
        nonce, name, password = (
            get_string(body, "nonce"),
            get_string(body, "username"),
            get_string(body, "password"),
        )
        if self._nonces.pop(nonce) is None:
            raise matrix_error(400, "M_UNKNOWN", "unknown or expired nonce")
        admin = body.get("admin") is True
        said = [nonce, name, password, "admin" if admin else "notadmin"]
        mac = hmac.new(secret.encode(), "\0".join(said).encode(), hashlib.sha1).hexdigest()
        if not hmac.compare_digest(mac.encode(), get_string(body, "mac").encode()):
            raise matrix_error(403, "M_FORBIDDEN", "the HMAC is wrong")
        return await self._create_account(
            request, await self._require_available(name), password, body, admin=admin
        )

    async def get_whoami(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /account/whoami``."""
        return {"user_id": caller.user, "device_id": caller.device, "is_guest": False}

    async def require_ui_auth(self, caller: Requester, request: Request, body: Mapping[str, Any]) -> None:
        """The caller knows the password too. Raises the error answer that asks for it, until it is given, and
        ``Busy`` where it is guessed.
        """
        self._attempts.limit_device(caller.user, caller.device)

        async def is_own_password(auth: Mapping[str, Any]) -> bool:
            identifier, password = auth.get("identifier"), auth.get("password")
            named = identifier.get("user") if isinstance(identifier, dict) else auth.get("user", caller.user)
            if named not in {caller.user, caller.user[1:].partition(":")[0]} or not isinstance(password, str):
                return False
            return await self._accounts.check_password(caller.user, password) is Proof.RIGHT

        await self._stages.require_flow(request, body, caller.user, [PASSWORD], {PASSWORD: is_own_password})

    async def change_password(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /account/password``."""
        fresh = get_string(body, "new_password")
        if not fresh:
            raise matrix_error(400, "M_INVALID_PARAM", "the password must not be empty")
        await self.require_ui_auth(caller, request, body)
        await self._accounts.set_password(caller.user, fresh)
        if body.get("logout_devices", True) is not False:
            await self._accounts.log_out_all(caller.user, but=caller.device)
        return {}

    async def deactivate_account(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /account/deactivate``."""
        await self.require_ui_auth(caller, request, body)
        await self._accounts.deactivate_account(caller.user, erase=body.get("erase") is True)
        return {"id_server_unbind_result": "no-support"}

    async def get_third_party_ids(self, _caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /account/3pid``: nobody is known by an address here."""
        return {"threepids": []}

    async def log_out(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``POST /logout``."""
        await self._accounts.log_out(caller.user, [caller.device])
        return {}

    async def log_out_all(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``POST /logout/all``."""
        await self._accounts.log_out_all(caller.user)
        return {}

    async def get_devices(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /devices``."""
        found = (await self._devices.get_all(caller.user)).devices.values()
        seen = await self._accounts.last_seen.devices_of(caller.user)
        return {
            "devices": [
                _device_json(device, caller.user, seen.get(device.device_id, NEVER)) for device in found
            ]
        }

    async def get_device(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /devices/{deviceId}``."""
        device = await self._require_device(caller, request)
        seen = await self._accounts.last_seen.devices_of(caller.user)
        return _device_json(device, caller.user, seen.get(device.device_id, NEVER))

    async def _require_device(self, caller: Requester, request: Request) -> Device:
        device = await self._devices.get(caller.user, request.path["device"])
        if device is None:
            raise matrix_error(404, "M_NOT_FOUND", "there is no such device")
        return device

    async def rename_device(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /devices/{deviceId}``."""
        device = await self._require_device(caller, request)
        if "display_name" in body:
            name = truncate_name(get_string(body, "display_name", ""))
            if self._ctx.has_policies:
                crossings = Crossings(self._ctx)
                await require_allowed(
                    self._ctx, crossings.profile_change(caller.user, texts_of_values(body=name))
                )
            await self._devices.update_device(
                caller.user, device.device_id, lambda known: replace(known, name=name)
            )
        return {}

    async def delete_device(self, caller: Requester, request: Request, body: Any) -> Any:
        """``DELETE /devices/{deviceId}``."""
        await self.require_ui_auth(caller, request, body)
        await self._accounts.log_out(caller.user, [request.path["device"]])
        return {}

    async def delete_devices(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /delete_devices``."""
        listed = body.get("devices")
        if not isinstance(listed, list) or len(listed) > _MAX_REMOVED_DEVICES:
            raise matrix_error(400, "M_BAD_JSON", "devices must be a list of device IDs")
        await self.require_ui_auth(caller, request, body)
        await self._accounts.log_out(caller.user, [one for one in listed if isinstance(one, str)])
        return {}


def _device_json(device: Device, user: str, seen: Seen) -> dict[str, Any]:
    # COMPAT: matrix-nio refuses a list in which one of these is missing; Synapse gives null.
    return {
        "device_id": device.device_id,
        "user_id": user,
        "display_name": device.name or None,
        "last_seen_ip": seen.address or None,
        "last_seen_ts": seen.ts or None,
    }
