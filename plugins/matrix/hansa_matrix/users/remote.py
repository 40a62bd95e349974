"""The devices of people elsewhere, as their servers tell, of those whom somebody here asked for.

SPEC: server-server API, "Device Management". A list that a change was missed of is stale: it is asked for
anew, and not used until it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from hansa import Delete, NetworkContext, Put, RemoteProtocolError

from hansa_matrix.crossings import Crossings, passes
from hansa_matrix.federation.client import Client, Unreachable, path
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import (
    MAX_DEVICES,
    DeviceListUpdate,
    SigningKeyUpdate,
    UserDevices,
    parse_device_list,
    parse_signing_keys,
    parse_user_devices,
)
from hansa_matrix.room.news import DEVICES, told
from hansa_matrix.users.company import Company

#: A list in more bytes is not kept: it is asked for each time.
_LARGEST = 768 * 1024
#: Lists that are fetched at a time, and that may wait for it; of the others nothing is lost but time.
_AT_A_TIME, _MOST_FETCHING = 10, 1000
_WITHIN = 10.0
#: How often a list is asked for that is older than what its server told meanwhile.
_ATTEMPTS = 3


class RemoteDevices:
    """Lists by user. Nobody is told twice of the same change, and of none that was not kept."""

    def __init__(self, ctx: NetworkContext, client: Client, company: Company) -> None:
        self._ctx = ctx
        self._client = client
        self._company = company
        self._crossings = Crossings(ctx)
        self._one = asyncio.Lock()
        self._fetching: dict[str, int] = {}
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        #: Told whose devices or cross-signing keys changed.
        self.changed: Callable[[str], None] = lambda _: None

    async def note(self, user: str) -> None:
        """Keep for clients that somebody's keys are others now."""
        await self._ctx.store.commit([told(DEVICES, user)])

    async def of(self, user: str) -> UserDevices | None:
        """A list that is up to date, None if there is none: then the server has to be asked."""
        row = await self._ctx.store.get("remote_devices", (user,))
        if row is None or row.fields["stale"]:
            return None
        if not self._company.shared(user):  # nobody tells us of changes any more
            await self._ctx.store.commit([Delete("remote_devices", (user,))], durability="lazy")
            return None
        return parse_user_devices(orjson.loads(row.body), user)

    async def take_updates(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """The ``m.device_list_update`` of a transaction: how many are none. Raises ``StoreError``."""
        ignored = 0
        for content in contents:
            update = parse_device_list(content, origin)
            if update is None:
                ignored += 1
            elif not await self._lets(update.user):
                continue
            elif await self._update(update):
                await self.note(update.user)
                self.changed(update.user)
        return ignored

    async def _lets(self, user: str) -> bool:
        """Whether the policies let people here have somebody's keys."""
        if not self._ctx.governed:
            return True
        asked = self._crossings.keys_query(ids.domain_of(user), [user], outbound=True)
        return await passes(self._ctx, asked)

    async def _update(self, update: DeviceListUpdate) -> bool:
        """Whether it is news."""
        async with self._one:
            row = await self._ctx.store.get("remote_devices", (update.user,))
            if row is None:
                return True
            known = None if row.fields["stale"] else parse_user_devices(orjson.loads(row.body), update.user)
            if known is not None and update.stream_id <= known.stream_id:
                return False
            missed = known is None or not update.previous or max(update.previous) > known.stream_id
            if known is None or missed:
                self._ctx.count("matrix_device_lists_stale")
                await self._ctx.store.commit([Put("remote_devices", (update.user,), row.body, {"stale": 1})])
                self.fetch(update.user, update.stream_id)
                return True
            devices = dict(known.devices)
            devices.pop(update.device.device_id, None)
            if not update.deleted and update.device.keys is not None and len(devices) < MAX_DEVICES:
                devices[update.device.device_id] = update.device
            await self._keep(replace(known, devices=devices, stream_id=update.stream_id))
            return True

    async def take_signing_keys(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """The ``m.signing_key_update`` of a transaction: how many are none. Raises ``StoreError``."""
        ignored = 0
        for content in contents:
            update = parse_signing_keys(content, origin)
            if update is None or not update.keys:
                ignored += 1
            elif await self._lets(update.user):
                await self._signing(update)
                await self.note(update.user)
                self.changed(update.user)
        return ignored

    async def _signing(self, update: SigningKeyUpdate) -> None:
        async with self._one:
            row = await self._ctx.store.get("remote_devices", (update.user,))
            known = parse_user_devices(orjson.loads(row.body), update.user) if row is not None else None
            if row is None or known is None or row.fields["stale"]:
                return
            signing = {**known.cross_signing, **update.keys}
            await self._keep(replace(known, cross_signing=signing))

    async def _keep(self, devices: UserDevices) -> None:
        devices = await self._named(devices)
        body = orjson.dumps(devices.listed())
        if len(body) > _LARGEST:
            await self._ctx.store.commit([Delete("remote_devices", (devices.user,))])
            return
        await self._ctx.store.commit([Put("remote_devices", (devices.user,), body, {"stale": 0})])

    async def _named(self, devices: UserDevices) -> UserDevices:
        """Somebody's devices, without their names if those may not cross."""
        names = dict.fromkeys(one.name for one in devices.devices.values() if one.name)
        if not names or not self._ctx.governed:
            return devices
        if await passes(self._ctx, self._crossings.profile_change(devices.user, tuple(names))):
            return devices
        bare = {name: replace(one, name="") for name, one in devices.devices.items()}
        return replace(devices, devices=bare)

    def fetch(self, user: str, at_least: int = 0) -> None:
        """Ask for somebody's list in the background, once at a time. ``at_least`` is the number of a change
        that it has to have.
        """
        if user in self._fetching:
            self._fetching[user] = max(self._fetching[user], at_least)
        elif len(self._fetching) < _MOST_FETCHING and self._company.shared(user):
            self._fetching[user] = at_least
            self._ctx.spawn(self._fetch(user), f"devices of {user}")

    async def _fetch(self, user: str) -> None:
        target = path("_matrix", "federation", "v1", "user", "devices", user)
        try:
            if not await self._lets(user):
                return
            for _ in range(_ATTEMPTS):
                async with self._slots:
                    answer = await self._client.request("GET", ids.domain_of(user), target, seconds=_WITHIN)
                devices = parse_user_devices(answer, user)
                if devices is None:
                    raise RemoteProtocolError("the answer is no list of devices")
                if devices.stream_id >= self._fetching[user]:
                    async with self._one:
                        await self._keep(devices)
                    return
        except (Unreachable, RemoteProtocolError) as error:
            self._ctx.log.info("the devices of %s: %s", user, error)
        finally:
            del self._fetching[user]
