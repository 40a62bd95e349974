"""The device lists of users of other servers, as those servers send them, for users that a local user asked
about.

SPEC: server-server API, "Device Management". A list with a missed change is stale: it is fetched again, and
not used until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from hansa import (
    Busy,
    CompareAndSwap,
    FairSlots,
    NetworkContext,
    RemoteProtocolError,
    Remove,
    Row,
    SlotShares,
    StoreError,
    StoreFault,
    Write,
    again_on_conflict,
    scan_all,
)

from hansa_matrix.crossings import Crossings, is_allowed
from hansa_matrix.federation.client import REQUEST_FAILURES, FederationClient, build_path
from hansa_matrix.local.client_notifier import ClientNotifier
from hansa_matrix.local.client_stream import DEVICES
from hansa_matrix.local.latest_rows import LatestRows
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
from hansa_matrix.ratelimit import RateLimiter
from hansa_matrix.users.key_texts import KeyTexts
from hansa_matrix.users.shared_rooms import SharedRooms

#: A list in more bytes is not kept: it is asked for each time.
_MAX_LIST_BYTES = 768 * 1024
#: A list in more bytes is not changed piece by piece: it is fetched again, once for many changes.
_MAX_PATCHED_BYTES = 128 * 1024
#: Lists and bytes of one server that are kept, and bytes in all; a server that has less than the least has a
#: place in any case. Of a list that is not kept nothing is lost but time.
MAX_LISTS_OF_SERVER, MAX_BYTES_OF_SERVER = 200_000, 512 * 1024 * 1024
MAX_BYTES, GUARANTEED_BYTES = 4 * 1024**3, 4 * 1024 * 1024
#: Lists that are fetched at a time, and that may wait for it, of one server and in all.
FETCH_LIMITS = SlotShares(in_all=20, each={"server": 3}, waiting=200)
_MAX_FETCHES = 1000
#: Lists that are fetched again because their server announced changes: at once, and per second after that.
REFETCH_BURST, REFETCH_RATE = 200.0, 1.0
_PURGE_PAGE_SIZE = 200
_FETCH_TIMEOUT_S = 10.0
#: How often a list is asked for that is older than what its server told meanwhile.
_MAX_ATTEMPTS = 3


class RemoteDeviceLists:
    """Lists by user. Nobody is told twice of the same change, and of none that was not kept."""

    def __init__(
        self, ctx: NetworkContext, client: FederationClient, company: SharedRooms, notifier: ClientNotifier
    ) -> None:
        self._ctx = ctx
        self._notifier = notifier
        self._client = client
        self._company = company
        self._crossings = Crossings(ctx)
        self._texts = KeyTexts(ctx)
        self._one = asyncio.Lock()
        self._fetching: dict[str, int] = {}
        self._shares = FairSlots(FETCH_LIMITS)
        self._latest = LatestRows()
        self._anew = RateLimiter(ctx.clock, REFETCH_RATE, REFETCH_BURST)
        self._again: set[str] = set()
        self._bytes: int | None = None
        self._swept_to: str | None = None

    async def mark_changed(self, user: str) -> None:
        """Notes for clients that a user's keys changed."""
        (position,) = await self._ctx.store.commit(self._latest.announce_writes(DEVICES, user))
        self._latest.on_row_committed(DEVICES, user, position)

    async def get_current(self, user: str) -> UserDevices | None:
        """A list that is up to date, None if there is none: then the server has to be asked."""
        row = await self._ctx.store.get("remote_devices", (user,))
        if row is None or row.fields["stale"]:
            return None
        if not self._company.is_tracked(user):  # nobody tells us of changes any more
            # It runs to its end, although the caller may hang up meanwhile.
            await asyncio.shield(
                self._ctx.spawn(partial(self._drop_untracked, user), f"forget the devices of {user}")
            )
            return None
        return parse_user_devices(orjson.loads(row.body), user)

    async def _drop_untracked(self, user: str) -> None:
        async with self._one:
            try:
                await again_on_conflict(partial(self._delete_list, user))
            except StoreError as error:
                self._ctx.log.warning("the devices of %s are kept for longer: %s", user, error)

    async def handle_updates(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """The ``m.device_list_update`` of a transaction: how many are none. Raises ``StoreError``."""
        ignored = 0
        for content in contents:
            update = parse_device_list(content, origin)
            if update is None:
                ignored += 1
            elif not await self._can_have_keys(update.user):
                continue
            elif await self._store_update(update):
                await self.mark_changed(update.user)
                self._notifier.wake_contacts(update.user)
        return ignored

    async def _can_have_keys(self, user: str) -> bool:
        """True if the policies let local users have a user's keys."""
        if not self._ctx.has_policies:
            return True
        asked = self._crossings.keys_query(ids.domain_of(user), [user], outbound=True)
        return await is_allowed(self._ctx, asked)

    async def _store_update(self, update: DeviceListUpdate) -> bool:
        """Stores a change; True if it is new."""
        async with self._one:
            return await again_on_conflict(partial(self._try_store_update, update))

    async def _try_store_update(self, update: DeviceListUpdate) -> bool:
        """See ``_store_update``. Raises ``Conflict`` where another changed the list since it was read."""
        row = await self._ctx.store.get("remote_devices", (update.user,))
        if row is None:  # nobody here asked for the list yet
            return self._company.is_tracked(update.user)
        known = None if row.fields["stale"] else parse_user_devices(orjson.loads(row.body), update.user)
        if known is not None and _is_repeated(update, known):
            return False
        if known is None or not _is_next(update, known) or len(row.body) > _MAX_PATCHED_BYTES:
            self._ctx.count("matrix_device_lists_stale")
            if not row.fields["stale"]:
                await self._write_list(update.user, row, b"", stale=True)
            ahead = known is None or update.stream_id > known.stream_id
            self._fetch_anew(update.user, update.stream_id if ahead else 0)
            return True
        devices = dict(known.devices)
        devices.pop(update.device.device_id, None)
        if not update.deleted and update.device.keys is not None and len(devices) < MAX_DEVICES:
            devices[update.device.device_id] = update.device
        await self._store_list(replace(known, devices=devices, stream_id=update.stream_id), row)
        return True

    async def handle_signing_keys(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """The ``m.signing_key_update`` of a transaction: how many are none. Raises ``StoreError``."""
        ignored = 0
        for content in contents:
            update = parse_signing_keys(content, origin)
            if update is None or not update.keys:
                ignored += 1
            elif await self._can_have_keys(update.user):
                await self._store_signing_keys(update)
                await self.mark_changed(update.user)
                self._notifier.wake_contacts(update.user)
        return ignored

    async def _store_signing_keys(self, update: SigningKeyUpdate) -> None:
        async with self._one:
            await again_on_conflict(partial(self._try_store_signing_keys, update))

    async def _try_store_signing_keys(self, update: SigningKeyUpdate) -> None:
        row = await self._ctx.store.get("remote_devices", (update.user,))
        if row is None or row.fields["stale"]:
            return
        known = parse_user_devices(orjson.loads(row.body), update.user)
        if known is None:
            return
        signing = {**known.cross_signing, **update.keys}
        await self._store_list(replace(known, cross_signing=signing), row)

    async def _replace_list(self, devices: UserDevices) -> None:
        """Keep a list as its server gave it, in place of what was known."""
        await self._store_list(devices, await self._ctx.store.get("remote_devices", (devices.user,)))

    async def _store_list(self, devices: UserDevices, before: Row | None) -> None:
        """Keep a list in place of the row that was read. Raises ``Conflict`` where that has changed."""
        devices = await self._texts.filter_devices(devices)
        body = orjson.dumps(devices.query_response())
        if len(body) > _MAX_LIST_BYTES or not await self._write_list(devices.user, before, body, stale=False):
            await self._delete_list(devices.user)

    async def _write_list(self, user: str, before: Row | None, body: bytes, *, stale: bool) -> bool:
        """Keep a list where its server has a place for it, in the commit that counts it; whether it has."""
        server = ids.domain_of(user)
        usage, lists, size = await self._usage_of_server(server)
        more = len(body) - (len(before.body) if before is not None else 0)
        lists, size = lists + (before is None), max(0, size + more)
        in_all = await self._total_bytes() + more
        if more > 0 and (
            lists > MAX_LISTS_OF_SERVER
            or size > MAX_BYTES_OF_SERVER
            or (in_all > MAX_BYTES and size > GUARANTEED_BYTES)
        ):
            self._ctx.count("matrix_device_lists_not_kept")
            return False
        counted = CompareAndSwap("remote_devices_usage", (server,), usage, orjson.dumps([lists, size]))
        was = before.body if before is not None else None
        row = CompareAndSwap("remote_devices", (user,), was, body, {"stale": int(stale)})
        await self._ctx.store.commit([row, counted])
        self._set_total_bytes(in_all)
        return True

    async def _delete_list(self, user: str) -> None:
        before = await self._ctx.store.get("remote_devices", (user,))
        if before is None:
            return
        server = ids.domain_of(user)
        usage, lists, size = await self._usage_of_server(server)
        left = [max(0, lists - 1), max(0, size - len(before.body))]
        counted: Write = CompareAndSwap("remote_devices_usage", (server,), usage, orjson.dumps(left))
        if not left[0] and usage is not None:
            counted = Remove("remote_devices_usage", (server,), usage)
        in_all = await self._total_bytes() - len(before.body)
        gone = Remove("remote_devices", (user,), before.body)
        await self._ctx.store.commit([gone, counted], durability="lazy")
        self._set_total_bytes(in_all)

    async def _usage_of_server(self, server: str) -> tuple[bytes | None, int, int]:
        """The row of what a server's lists take, and the lists and bytes in it."""
        row = await self._ctx.store.get("remote_devices_usage", (server,))
        lists, size = orjson.loads(row.body) if row is not None else (0, 0)
        return row.body if row is not None else None, lists, size

    async def _total_bytes(self) -> int:
        """Bytes of all lists."""
        if self._bytes is None:
            found = 0
            async for row in scan_all(self._ctx.store, "remote_devices_usage"):
                found += orjson.loads(row.body)[1]
            self._bytes = found
        return self._bytes

    def _set_total_bytes(self, in_all: int) -> None:
        self._bytes = max(0, in_all)
        self._ctx.set_gauge("matrix_device_lists_bytes", self._bytes)

    async def sweep(self) -> None:
        """Let go of the lists, of a few at a time, of those who are in no room with us any more."""
        rows = await self._ctx.store.scan("remote_devices", after=self._swept_to, limit=_PURGE_PAGE_SIZE)
        self._swept_to = str(rows[-1].key[0]) if rows else None
        for row in rows:
            if not self._company.is_tracked(str(row.key[0])):
                async with self._one:
                    await again_on_conflict(partial(self._delete_list, str(row.key[0])))

    def _fetch_anew(self, user: str, at_least: int) -> None:
        """Fetches a list because its server announced a change, as often as a server may cause it. Until then
        the list is stale, and readers ask the server.
        """
        if self._anew.take(ids.domain_of(user)):
            self._ctx.count("matrix_device_lists_not_fetched")
        else:
            self.schedule_fetch(user, at_least)

    def schedule_fetch(self, user: str, at_least: int = 0) -> None:
        """Fetches a user's list in the background, once at a time. ``at_least`` is the number of a change
        that it must contain; with 0 the list is fetched once more after a request that is in progress.
        """
        if user in self._fetching:
            self._fetching[user] = max(self._fetching[user], at_least)
            if not at_least:
                self._again.add(user)
        elif self._can_fetch(user) and self._company.is_tracked(user):
            self._fetching[user] = at_least
            self._ctx.spawn(partial(self._fetch_list, user), f"devices of {user}")

    def _can_fetch(self, user: str) -> bool:
        """Of one server no more may wait than the slots let wait."""
        server = ids.domain_of(user)
        of_server = sum(ids.domain_of(other) == server for other in self._fetching)
        return len(self._fetching) < _MAX_FETCHES and of_server < FETCH_LIMITS.waiting

    async def _fetch_list(self, user: str) -> None:
        target = build_path("_matrix", "federation", "v1", "user", "devices", user)
        try:
            if not await self._can_have_keys(user):
                return
            for attempt in range(1, _MAX_ATTEMPTS + 1):
                self._again.discard(user)
                async with self._shares.hold_slot(("server", ids.domain_of(user))):
                    answer = await self._client.request(
                        "GET", ids.domain_of(user), target, seconds=_FETCH_TIMEOUT_S
                    )
                devices = parse_user_devices(answer, user)
                if devices is None:
                    raise RemoteProtocolError("the answer must be a list of devices")
                # COMPAT: the numbers of some servers never grow, or begin again: the last answer is taken.
                current = devices.stream_id >= self._fetching[user] and user not in self._again
                if current or attempt == _MAX_ATTEMPTS:
                    async with self._one:
                        await again_on_conflict(partial(self._replace_list, devices))
                    return
        except (*REQUEST_FAILURES, Busy, StoreFault) as error:
            self._ctx.log.info("the devices of %s: %s", user, error)
        finally:
            del self._fetching[user]
            self._again.discard(user)


def _is_repeated(update: DeviceListUpdate, known: UserDevices) -> bool:
    """True if a list already contains a change: its number is not later, and the device is equal."""
    if update.stream_id > known.stream_id:
        return False
    gone = update.deleted or update.device.keys is None
    return known.devices.get(update.device.device_id) == (None if gone else update.device)


def _is_next(update: DeviceListUpdate, known: UserDevices) -> bool:
    """True if a change is the next after those in a list. Servers that do not name the changes before, or
    that begin to count again, give no order.
    """
    return bool(update.previous) and max(update.previous) <= known.stream_id < update.stream_id
