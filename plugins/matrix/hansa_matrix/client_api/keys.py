"""Keys of devices and messages to them. SPEC: client-server API, "End-to-End Encryption", "Send-to-Device
messaging". Encrypted content stays encrypted: this server passes it on and never reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hansa import Conflict, NetworkContext, Request

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.account.login import LoginEndpoints
from hansa_matrix.client_api.http import Handler, RateLimited
from hansa_matrix.client_api.sync.sync import SyncEndpoint
from hansa_matrix.crossings import Crossings, require_allowed
from hansa_matrix.crypto import verify_signature
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import (
    USAGES,
    ToDeviceEdu,
    is_valid_device_id,
    parse_cross_signing_key,
    parse_device_keys,
)
from hansa_matrix.proto.signing import signable_bytes, signatures_of
from hansa_matrix.texts import texts_of_keys
from hansa_matrix.users.user_services import Users

_MAX_USERS, _MAX_SIGNED = 10_000, 200
_TIMEOUT_S = 10.0


class KeysEndpoints:
    """The endpoints."""

    def __init__(
        self, ctx: NetworkContext, known: Users, sessions: LoginEndpoints, sync: SyncEndpoint
    ) -> None:
        self._ctx = ctx
        self._known = known
        self._sessions = sessions
        self._sync = sync

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("POST", "/v3/keys/upload"): self.upload_keys,
            ("POST", "/v3/keys/upload/{device}"): self.upload_keys,
            ("POST", "/v3/keys/query"): self.query_keys,
            ("POST", "/v3/keys/claim"): self.claim_keys,
            ("GET", "/v3/keys/changes"): self._sync.get_key_changes,
            ("POST", "/v3/keys/device_signing/upload"): self.upload_cross_signing,
            ("POST", "/v3/keys/signatures/upload"): self.upload_signatures,
            ("PUT", "/v3/sendToDevice/{type}/{txn}"): RateLimited(self.send_to_device),
        }

    async def upload_keys(self, caller: Requester, _request: Request, body: Any) -> Any:
        """``POST /keys/upload``."""
        user, device_id = caller.user, caller.device
        await self._require_allowed(caller, body)
        keys = body.get("device_keys")
        if keys is not None:
            if parse_device_keys(keys, user, device_id) is None or not _is_own_device(keys, user, device_id):
                raise matrix_error(400, "M_INVALID_PARAM", "device_keys are not those of this device")
            await self._known.devices.update_device(user, device_id, lambda known: replace(known, keys=keys))
        once, fallback = body.get("one_time_keys", {}), body.get("fallback_keys", {})
        if not isinstance(once, dict) or not isinstance(fallback, dict):
            raise matrix_error(400, "M_BAD_JSON", "one_time_keys and fallback_keys are objects")
        if once:
            await self._known.devices.add_one_time_keys(user, device_id, once)
        if fallback:
            await self._known.devices.set_fallback_keys(user, device_id, fallback)
        return {"one_time_key_counts": await self._known.devices.one_time_key_counts(user, device_id)}

    async def _require_allowed(self, caller: Requester, keys: Any) -> None:
        """Raises the error answer where a policy denies what keys say beside being keys: others get it."""
        texts = texts_of_keys(keys) if self._ctx.has_policies else ()
        if texts:
            await require_allowed(self._ctx, Crossings(self._ctx).profile_change(caller.user, texts))

    async def query_keys(self, caller: Requester, _request: Request, body: Any) -> Any:
        """``POST /keys/query``."""
        wanted = body.get("device_keys")
        if not isinstance(wanted, dict) or len(wanted) > _MAX_USERS:
            raise matrix_error(400, "M_BAD_JSON", "device_keys must be an object keyed by user ID")
        if not all(_is_device_list(named) for named in wanted.values()):
            raise matrix_error(400, "M_BAD_JSON", "each value of device_keys must be a list of device IDs")
        return await self._known.keys.query_keys(wanted, within=self._timeout_of(body), reader=caller.user)

    async def claim_keys(self, _caller: Requester, _request: Request, body: Any) -> Any:
        """``POST /keys/claim``."""
        wanted = body.get("one_time_keys")
        if not isinstance(wanted, dict) or len(wanted) > _MAX_USERS:
            raise matrix_error(400, "M_BAD_JSON", "one_time_keys must be an object keyed by user ID")
        for devices in wanted.values():
            if not isinstance(devices, dict) or not _is_device_list(list(devices.values())):
                raise matrix_error(
                    400, "M_BAD_JSON", "one_time_keys must be an object keyed by device ID and algorithm"
                )
        return await self._known.keys.claim_keys(wanted, within=self._timeout_of(body))

    @staticmethod
    def _timeout_of(body: Mapping[str, Any]) -> float:
        timeout = body.get("timeout", _TIMEOUT_S * 1000)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise matrix_error(400, "M_BAD_JSON", "timeout is in milliseconds")
        return max(1.0, min(_TIMEOUT_S, timeout / 1000))

    async def upload_cross_signing(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /keys/device_signing/upload``: the first time as it is, then with the password."""
        keys = {u: body[f"{u}_key"] for u in USAGES if f"{u}_key" in body}
        for usage, key in keys.items():
            if parse_cross_signing_key(key, caller.user, usage) is None:
                raise matrix_error(400, "M_INVALID_PARAM", f"this is not a {usage} key of {caller.user}")
        known = (await self._known.devices.get_all(caller.user)).cross_signing
        fresh = {usage: key for usage, key in keys.items() if known.get(usage) != key}
        if not fresh:
            return {}
        await self._require_allowed(caller, fresh)
        if "master" not in known and "master" not in fresh:
            raise matrix_error(400, "M_INVALID_PARAM", "there is no master key yet")
        if not known:
            try:
                await self._known.devices.set_cross_signing(caller.user, fresh, was={"master": None})
            except Conflict:  # another device was the first at this moment: this one has to prove who it is
                pass
            else:
                return {}
        await self._sessions.require_ui_auth(caller, request, body)
        await self._known.devices.set_cross_signing(caller.user, fresh)
        return {}

    async def upload_signatures(self, caller: Requester, _request: Request, body: Any) -> Any:
        """``POST /keys/signatures/upload``: what fails fails alone."""
        failures: dict[str, dict[str, Any]] = {}
        number_ = 0
        for user, objects in body.items():
            if not ids.is_valid_user_id(user) or not isinstance(objects, dict):
                raise matrix_error(
                    400, "M_BAD_JSON", "the body must be an object keyed by user ID and key ID"
                )
            for key_id, signed in objects.items():
                number_ += 1
                if number_ > _MAX_SIGNED:
                    raise matrix_error(400, "M_TOO_LARGE", f"at most {_MAX_SIGNED} signed keys come at once")
                problem = await self._known.devices.upload_signatures(caller.user, user, key_id, signed)
                if problem:
                    why = {"errcode": "M_INVALID_SIGNATURE", "error": problem}
                    failures.setdefault(user, {})[key_id] = why
        return {"failures": failures}

    async def send_to_device(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /sendToDevice/{eventType}/{txnId}``: a repeat is the same message."""
        messages = body.get("messages")
        if not isinstance(messages, dict) or len(messages) > _MAX_USERS:
            raise matrix_error(400, "M_BAD_JSON", "messages must be an object keyed by user ID")
        for devices in messages.values():
            if not isinstance(devices, dict) or not all(
                is_valid_device_id(d) and isinstance(c, dict) for d, c in devices.items()
            ):
                raise matrix_error(
                    400, "M_BAD_JSON", "each value of messages must be an object keyed by device ID"
                )
        kind = request.path["type"]
        if not is_valid_device_id(kind):
            raise matrix_error(400, "M_INVALID_PARAM", "the event type is not valid")
        named = f"{caller.user} {caller.device} {kind} {request.path['txn']}"
        message_id = hashlib.sha256(named.encode()).hexdigest()[:32]
        message = ToDeviceEdu(sender=caller.user, type=kind, message_id=message_id, messages=messages)
        await self._known.messages.send_message(message, once=True)
        return {}


def _is_device_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_own_device(keys: Mapping[str, Any], user: str, device_id: str) -> bool:
    """True if a device's keys are named by the device and signed by it."""
    names, name = keys["keys"], f"ed25519:{device_id}"
    if not all(one.endswith(f":{device_id}") for one in names):
        return False
    return verify_signature(
        names.get(name, ""), signatures_of(keys, user).get(name, ""), signable_bytes(keys)
    )
