"""Texts in the keys of devices, and the users that may read them.

SPEC: client-server API, "End-to-End Encryption". Documents of keys are signed and passed on unchanged, with
all other fields. Policies judge these fields when keys are uploaded, stored and returned; keys without such
fields are not asked about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hansa import NetworkContext

from hansa_matrix.crossings import Crossings, is_allowed
from hansa_matrix.proto.devices import PUBLIC_USAGES, Device, UserDevices
from hansa_matrix.texts import texts_of_keys

#: People whose devices are looked at without a pause.
_USERS_PER_STEP = 10


class KeyTexts:
    """With no policy nothing is looked at."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._crossings = Crossings(ctx)

    async def can_read(self, user: str, keys: Any) -> bool:
        """True if the additional fields in a user's keys may be read now."""
        texts = texts_of_keys(keys) if self._ctx.has_policies else ()
        if not texts:
            return True
        return await is_allowed(self._ctx, self._crossings.profile_change(user, texts, again=True))

    async def filter_devices(self, of: UserDevices) -> UserDevices:
        """Returns a user's devices without texts that may not cross: without a device's name, or without the
        device if the text is in the signed part.
        """
        names = {one.device_id: one.name for one in of.devices.values()}
        signed = {one.device_id: one.keys for one in of.devices.values()}
        if await self.can_read(of.user, [names, signed, of.cross_signing]):
            return of
        devices: dict[str, Device] = {}
        for device_id, device in of.devices.items():
            if await self.can_read(of.user, [device_id, device.keys]):
                named = await self.can_read(of.user, device.name)
                devices[device_id] = device if named else replace(device, name="")
        signing = {u: key for u, key in of.cross_signing.items() if await self.can_read(of.user, key)}
        return replace(of, devices=devices, cross_signing=signing)

    async def filter_query(self, found: dict[str, dict[str, Any]]) -> None:
        """Leave the same out of an answer to ``/keys/query``."""
        for number, (user, devices) in enumerate(found["device_keys"].items(), 1):
            if not number % _USERS_PER_STEP:
                await asyncio.sleep(0)
            if not await self.can_read(user, devices):
                found["device_keys"][user] = await self._readable_devices(user, devices)
        for usage in PUBLIC_USAGES:
            of = found[f"{usage}_keys"]
            for user in [user for user in of if not await self.can_read(user, of[user])]:
                del of[user]

    async def _readable_devices(self, user: str, devices: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for device_id, keys in devices.items():
            signed = {name: value for name, value in keys.items() if name != "unsigned"}
            if await self.can_read(user, [device_id, signed]):
                named = await self.can_read(user, keys.get("unsigned"))
                found[device_id] = keys if named else signed
        return found

    async def filter_claimed(self, found: dict[str, dict[str, Any]]) -> None:
        """Leave the same out of one-time keys, by user and device."""
        for user, devices in found.items():
            for device_id in [one for one in devices if not await self.can_read(user, devices[one])]:
                del devices[device_id]
