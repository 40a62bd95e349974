"""The devices of people of this server: their keys, and what other servers are told when they change.

SPEC: server-server API, "Device Management"; client-server API, "End-to-End Encryption". Ghosts have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import orjson
from hansa import (
    CompareAndSwap,
    Delete,
    Insert,
    LocalProtocolError,
    NetworkContext,
    Put,
    Remove,
    Row,
    Value,
    Write,
    again_on_conflict,
    pieces,
    scan_all,
)

from hansa_matrix.crossings import Crossings, is_allowed
from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.local.client_notifier import ClientNotifier
from hansa_matrix.local.client_stream import DEVICES, stream_write
from hansa_matrix.proto.devices import (
    MAX_DEVICES,
    MAX_KEYS_SIZE,
    PUBLIC_USAGES,
    USAGES,
    Device,
    DeviceListUpdate,
    SigningKeyUpdate,
    UserDevices,
    device_list_edu,
    fits_object,
    is_valid_device_id,
    merge_signatures,
    parse_cross_signing_key,
    parse_device_keys,
    parse_one_time_key,
    signing_keys_edu,
)
from hansa_matrix.proto.signing import signable_bytes, signatures_of
from hansa_matrix.users.key_texts import KeyTexts
from hansa_matrix.users.shared_rooms import SharedRooms

_MAX_ONE_TIME_KEYS = 5000
#: One-time keys of all devices of one person, fallback keys of one device, and signatures of one person on
#: the keys of others.
MAX_ONE_TIME_KEYS_OF_USER, MAX_FALLBACK_KEYS, MAX_USER_SIGNATURES = 50_000, 10, 10_000
#: People who are looked up in one go.
_USERS_PER_LOOKUP = 250
#: Devices that are removed in one commit, and rows of what each had; the rest goes before it. Devices whose
#: keys are claimed in one.
_MAX_REMOVED_DEVICES, _MAX_REMOVED_ROWS, _MAX_CLAIMED_DEVICES = 20, 150, 500


class Devices:
    """Every change is durable, and on its way to the servers concerned, when it returns."""

    def __init__(
        self, ctx: NetworkContext, company: SharedRooms, sender: FederationSender, notifier: ClientNotifier
    ) -> None:
        self._ctx = ctx
        self.company = company
        self._notifier = notifier
        self._sender = sender
        self._crossings = Crossings(ctx)
        self._texts = KeyTexts(ctx)
        #: A claim reads, then deletes, and a change numbers itself: one at a time.
        self._one = asyncio.Lock()

    async def get_all(self, user: str) -> UserDevices:
        """Returns all devices of a user."""
        store = self._ctx.store
        rows = scan_all(store, "device", equal=(user,))
        devices = {str(row.key[1]): _device_from_row(str(row.key[1]), row.body) async for row in rows}
        signing = await store.get_many("cross_signing_key", [(user, usage) for usage in USAGES])
        keys = {str(key[1]): orjson.loads(row.body) for key, row in signing.items()}
        stream_id = await self._last_stream_id(user)
        return UserDevices(user=user, stream_id=stream_id, devices=devices, cross_signing=keys)

    async def users_with_keys(self, users: Sequence[str]) -> set[str]:
        """Those of some people who have, or had, a device or a key: the others take no look-up each."""
        store, found = self._ctx.store, set[str]()
        for at in range(0, len(users), _USERS_PER_LOOKUP):
            part = users[at : at + _USERS_PER_LOOKUP]
            lists = await store.get_many("device_list", [(user,) for user in part])
            rest = [(user, usage) for user in part if (user,) not in lists for usage in USAGES]
            signing = await store.get_many("cross_signing_key", rest) if rest else {}
            found |= {str(key[0]) for key in (*lists, *signing)}
        return found

    async def get_public(self, user: str) -> UserDevices:
        """Returns all devices of a user, as other servers see them."""
        found = await self._texts.filter_devices(await self.get_all(user))
        return replace(found, devices={name: self._public_device(one) for name, one in found.devices.items()})

    def _public_device(self, device: Device) -> Device:
        """Returns a device as other servers see it. Its name may reveal the kind of device and its owner."""
        return device if self._ctx.config.share_device_names else replace(device, name="")

    async def _last_stream_id(self, user: str) -> int:
        row = await self._ctx.store.get("device_list", (user,))
        return int(row.body) if row is not None else 0

    async def get(self, user: str, device_id: str) -> Device | None:
        """One device, None if there is none."""
        row = await self._ctx.store.get("device", (user, device_id))
        return _device_from_row(device_id, row.body) if row is not None else None

    async def put(self, user: str, device: Device) -> None:
        """Stores a new device, or other keys or another name of one. Raises LocalProtocolError for a value
        that is not a key object of this device, and for other identity keys than it had.
        """

        async def put_once() -> None:
            row = await self._ctx.store.get("device", (user, device.device_id))
            await self._store_device(user, row, device)

        async with self._one:
            await again_on_conflict(put_once)

    async def update_device(self, user: str, device_id: str, change: Callable[[Device], Device]) -> None:
        """Make a device otherwise, whatever else changes it at the same time. Raises LocalProtocolError as
        ``put`` does, and for a device that is not there, or not any more: who is logged out at this moment
        does not come back by their keys.
        """

        async def change_once() -> None:
            row = await self._require_device(user, device_id)
            await self._store_device(user, row, change(_device_from_row(device_id, row.body)))

        async with self._one:
            await again_on_conflict(change_once)

    async def _require_device(self, user: str, device_id: str) -> Row:
        row = await self._ctx.store.get("device", (user, device_id))
        if row is None:
            raise LocalProtocolError(f"{user} has no device {device_id[:80]}")
        return row

    async def _store_device(self, user: str, row: Row | None, device: Device) -> None:
        """Keep a device in place of the row that was read. Raises ``Conflict`` where that has changed."""
        known = _device_from_row(device.device_id, row.body) if row is not None else None
        if not is_valid_device_id(device.device_id):
            raise LocalProtocolError("a device ID must have 1 to 255 bytes")
        if device.keys is not None and parse_device_keys(device.keys, user, device.device_id) is None:
            raise LocalProtocolError(f"these are not the keys of {user} on {device.device_id}")
        if known == device:
            return
        if known is None and await self._ctx.store.count("device", equal={"user_id": user}) >= MAX_DEVICES:
            raise LocalProtocolError(f"{user} has {MAX_DEVICES} devices: remove one first")
        if known is not None and known.keys is not None and not _same_identity(known.keys, device.keys):
            raise LocalProtocolError(f"the identity keys of {device.device_id} are set and stay")
        body = orjson.dumps({"keys": device.keys, "name": device.name})
        was = row.body if row is not None else None
        await self._commit_with_edus(
            user, [CompareAndSwap("device", (user, device.device_id), was, body)], [(device, False)]
        )

    async def remove(self, user: str, device_ids: Sequence[str]) -> None:
        """Devices that are gone, with their keys and with what waits for them."""
        for at in range(0, len(device_ids), _MAX_REMOVED_DEVICES):
            async with self._one:
                await again_on_conflict(
                    partial(self._try_remove, user, device_ids[at : at + _MAX_REMOVED_DEVICES])
                )

    async def _try_remove(self, user: str, device_ids: Sequence[str]) -> None:
        """See ``remove``. Raises ``Conflict`` where another changed one of them since it was read."""
        writes: list[Write] = []
        gone: list[tuple[Device, bool]] = []
        for device_id in device_ids:
            row = await self._ctx.store.get("device", (user, device_id))
            if row is None:
                continue
            writes.append(Remove("device", (user, device_id), row.body))
            gone.append((Device(device_id=device_id), True))
            few = await self._removal_writes(user, device_id)
            for piece in pieces(few[_MAX_REMOVED_ROWS:]):  # who has a device no more needs none of it
                await self._ctx.store.commit(piece)
            writes += few[:_MAX_REMOVED_ROWS]
        if not gone:
            return
        await self._commit_with_edus(user, writes, gone)
        # Rows that were stored since the rows were read; there are none from now on, as the device does not
        # exist.
        for device, _ in gone:
            more = await self._removal_writes(user, device.device_id)
            if more and await self.get(user, device.device_id) is None:
                for piece in pieces(more):
                    await self._ctx.store.commit(piece)

    async def _removal_writes(self, user: str, device_id: str) -> list[Write]:
        """The writes that remove what a device had, its keys and what waits for it."""
        writes: list[Write] = []
        for collection in ("one_time_key", "fallback_key", "to_device_usage"):
            rows = scan_all(self._ctx.store, collection, equal=(user, device_id))
            writes += [Delete(collection, row.key) async for row in rows]
        index = ("user_id", "device_id", "position")
        waiting = scan_all(self._ctx.store, "to_device", index=index, equal=(user, device_id))
        return writes + [Delete("to_device", row.key) async for row in waiting]

    async def _commit_with_edus(
        self, user: str, writes: Sequence[Write], changed: Iterable[tuple[Device, bool]]
    ) -> None:
        """Commit what changed with the EDUs that tell of it, each of which names the one before. Raises
        ``Conflict`` where another change was told of meanwhile.
        """
        last = await self._ctx.store.get("device_list", (user,))
        stream_id = int(last.body) if last is not None else 0
        servers = await self._servers_to_notify(user)
        all_writes = list(writes)
        for device, deleted in changed:
            update = DeviceListUpdate(
                user=user,
                stream_id=stream_id + 1,
                device=self._public_device(device),
                previous=(stream_id,) if stream_id else (),
                deleted=deleted,
            )
            stream_id += 1
            all_writes += self._sender.durable_edu_writes(device_list_edu(update), servers)
        was = last.body if last is not None else None
        all_writes.append(CompareAndSwap("device_list", (user,), was, str(stream_id).encode()))
        all_writes.append(stream_write(DEVICES, user))
        await self._ctx.store.commit(all_writes)
        self._sender.on_committed(servers)
        self._notifier.wake_contacts(user)

    async def _servers_to_notify(self, user: str, of: Collection[str] | None = None) -> set[str]:
        """Returns the servers that learn of a user's keys, of some or of all that the user meets: those that
        may ask for them.
        """
        servers = self.company.servers_sharing(user) if of is None else set(of)
        if not self._ctx.has_policies:
            return servers
        each = {s: self._crossings.keys_query(s, [user], outbound=False) for s in sorted(servers)}
        return {server for server, crossing in each.items() if await is_allowed(self._ctx, crossing)}

    async def announce_devices(self, user: str, servers: Collection[str]) -> None:
        """Tells servers that meet a user now about the user's devices. One is named, without a previous
        change: so they ask for all of them, and servers that know them already miss no change.

        SPEC: server-server API, "Device Management".
        """
        devices = (await self.get_public(user)).devices.values()
        device = next((one for one in devices if one.keys is not None), None)
        told = await self._servers_to_notify(user, servers)
        if device is None or not told:
            return
        async with self._one:
            stream_id = await self._last_stream_id(user)
            update = DeviceListUpdate(
                user=user, stream_id=stream_id, device=device, previous=(), deleted=False
            )
            await self._ctx.store.commit(self._sender.durable_edu_writes(device_list_edu(update), told))
        self._sender.on_committed(told)

    async def set_cross_signing(
        self, user: str, keys: Mapping[str, Any], *, was: Mapping[str, bytes | None] = MappingProxyType({})
    ) -> None:
        """Cross-signing keys by usage, in place of those there were. ``was``: the rows of some usages as they
        were read, None where there was none. Raises LocalProtocolError, and ``Conflict`` where such a row is
        another one now.
        """
        for usage, key in keys.items():
            if usage not in USAGES or parse_cross_signing_key(key, user, usage) is None:
                raise LocalProtocolError(f"this is not a {usage[:20]} key of {user}")
        servers = await self._servers_to_notify(user)
        writes: list[Write] = []
        for usage, key in keys.items():
            at, body = (user, usage), orjson.dumps(key)
            put = Put("cross_signing_key", at, body)
            writes.append(CompareAndSwap("cross_signing_key", at, was[usage], body) if usage in was else put)
        writes.append(stream_write(DEVICES, user))
        shown = {usage: key for usage, key in keys.items() if usage in PUBLIC_USAGES}
        if shown:
            writes += self._sender.durable_edu_writes(
                signing_keys_edu(SigningKeyUpdate(user=user, keys=shown)), servers
            )
        async with self._one:
            await self._ctx.store.commit(writes)
        self._sender.on_committed(servers if shown else ())
        self._notifier.wake_contacts(user)

    async def upload_signatures(self, by: str, user: str, key_id: str, signed: object) -> str:
        """Stores a user's signatures on a device or master key of their own, or on another user's master key;
        returns the reason of a refusal, else empty.
        """
        given = signatures_of(signed, by) if isinstance(signed, dict) else {}
        if not isinstance(signed, dict) or not given or not fits_object(signed, MAX_KEYS_SIZE):
            return f"there is no signature by {by}"
        signers, message = await self._signing_keys(by), signable_bytes(signed)
        if not all(verify_signature(signers.get(name, ""), one, message) for name, one in given.items()):
            return "a signature is not valid, or made by an unknown key"
        if by != user:
            return await self._store_user_signature(by, user, key_id, signed)
        device = await self.get(user, key_id)
        if device is None or device.keys is None:
            return await self._sign_master(by, key_id, signed)
        taken: Mapping[str, Any] = signed

        def add_signatures(known: Device) -> Device:
            keys = merge_signatures(known.keys, taken, by) if known.keys is not None else None
            if keys is None:
                raise LocalProtocolError("what was signed is not what is kept")
            return replace(known, keys=keys)

        try:
            await self.update_device(user, key_id, add_signatures)
        except LocalProtocolError as problem:
            return str(problem)
        return ""

    async def _sign_master(self, user: str, key_id: str, signed: Mapping[str, Any]) -> str:
        """Does the same for the user's own master key."""

        async def sign_once() -> str:
            row = await self._ctx.store.get("cross_signing_key", (user, "master"))
            master = orjson.loads(row.body) if row is not None else None
            merged = merge_signatures(master, signed, user) if master is not None else None
            if row is None or merged is None or f"ed25519:{key_id}" not in merged["keys"]:
                return "there is no such key"
            await self.set_cross_signing(user, {"master": merged}, was={"master": row.body})
            return ""

        return await again_on_conflict(sign_once)

    async def _signing_keys(self, user: str) -> dict[str, str]:
        """Returns the public keys that a user signs with: of devices, and of cross-signing."""
        of = await self.get_all(user)
        found: dict[str, str] = {}
        for keys in (*(d.keys for d in of.devices.values() if d.keys), *of.cross_signing.values()):
            found |= {name: key for name, key in keys["keys"].items() if name.startswith("ed25519:")}
        return found

    async def _store_user_signature(self, by: str, user: str, key_id: str, signed: Mapping[str, Any]) -> str:
        """A signature on another's master key is for who made it alone."""
        if (
            parse_cross_signing_key(signed, user, "master") is None
            or f"ed25519:{key_id}" not in signed["keys"]
        ):
            return "only the master keys of others are signed"
        known = await self._ctx.store.get("vouched", (by, user, key_id))
        if known is None and await self._ctx.store.count("vouched", equal={"by": by}) >= MAX_USER_SIGNATURES:
            return f"{by} has signed the keys of {MAX_USER_SIGNATURES} people: that is enough"
        body = orjson.dumps(signed["signatures"][by])
        writes: list[Write] = [Put("vouched", (by, user, key_id), body), stream_write(DEVICES, user)]
        await self._ctx.store.commit(writes)
        self._notifier.wake_contacts(user)
        return ""

    async def user_signatures(self, by: str, user: str, key_id: str) -> dict[str, str]:
        """Returns a user's signatures on another user's master key."""
        row = await self._ctx.store.get("vouched", (by, user, key_id))
        return orjson.loads(row.body) if row is not None else {}

    async def add_one_time_keys(self, user: str, device_id: str, keys: Mapping[str, Any]) -> None:
        """Adds one-time keys ``ALGORITHM:ID``, to be handed out in this order. A repeated key is not a new
        one. Raises LocalProtocolError for a value that is not a key, for another key of a known id, and for a
        device that does not exist, or no longer.
        """
        async with self._one:
            await again_on_conflict(partial(self._try_add_keys, user, device_id, keys))

    async def _try_add_keys(self, user: str, device_id: str, keys: Mapping[str, Any]) -> None:
        """See ``add_one_time_keys``. Raises ``Conflict`` where the device or a key came or went meanwhile."""
        device = await self._require_device(user, device_id)
        store = self._ctx.store
        named = [(user, device_id, key_id) for key_id in keys]
        known = await store.get_many("one_time_key", named)
        writes: list[Write] = []
        at: dict[str, int] = {}
        for key_id, key in keys.items():
            algorithm = parse_one_time_key(key_id, key)
            if algorithm is None:
                raise LocalProtocolError(f"{key_id[:80]!r} is not a one-time key")
            body = orjson.dumps(key)
            row = known.get((user, device_id, key_id))
            if row is not None and orjson.loads(row.body) != key:
                raise LocalProtocolError(f"{key_id} is another key already")
            if row is not None:
                continue
            if algorithm not in at:
                at[algorithm] = await self._last_key_index(user, device_id, algorithm)
            at[algorithm] += 1
            fields: dict[str, Value] = {"algorithm": algorithm, "at": at[algorithm]}
            writes.append(Insert("one_time_key", (user, device_id, key_id), body, fields))
        for whose, most in (({"device_id": device_id}, _MAX_ONE_TIME_KEYS), ({}, MAX_ONE_TIME_KEYS_OF_USER)):
            counted = await store.count("one_time_key", equal={"user_id": user, **whose})
            if writes and counted + len(writes) > most:
                who = device_id if whose else user
                raise LocalProtocolError(f"{who} has {counted} one-time keys: that is enough")
        if writes:
            await store.commit([_compare_only(device), *writes])

    async def _last_key_index(self, user: str, device_id: str, algorithm: str) -> int:
        rows = await self._ctx.store.scan(
            "one_time_key",
            index=("user_id", "device_id", "algorithm", "at"),
            equal=(user, device_id, algorithm),
            limit=1,
            reverse=True,
        )
        return int(rows[0].fields["at"] or 0) if rows else 0

    async def set_fallback_keys(self, user: str, device_id: str, keys: Mapping[str, Any]) -> None:
        """Sets the fallback keys, one of each algorithm, which are handed out when no one-time key is left.
        Raises LocalProtocolError, also for a device that does not exist.
        """
        bodies: dict[tuple[str | int, ...], bytes] = {}
        for key_id, key in keys.items():
            algorithm = parse_one_time_key(key_id, key)
            if algorithm is None:
                raise LocalProtocolError(f"{key_id[:80]!r} is not a fallback key")
            body = orjson.dumps({"key_id": key_id, "key": key, "used": False})
            bodies[user, device_id, algorithm] = body

        async def set_once() -> None:
            device = await self._require_device(user, device_id)
            rows = await self._ctx.store.scan("fallback_key", equal=(user, device_id))
            known = {row.key: row.body for row in rows}
            if len(bodies.keys() | known.keys()) > MAX_FALLBACK_KEYS:
                raise LocalProtocolError(f"{device_id} has fallback keys of {len(known)} algorithms already")
            kept = [CompareAndSwap("fallback_key", key, known.get(key), body) for key, body in bodies.items()]
            await self._ctx.store.commit([_compare_only(device), *kept])

        async with self._one:
            await again_on_conflict(set_once)

    async def one_time_key_counts(self, user: str, device_id: str) -> dict[str, int]:
        """One-time keys that are left, by algorithm; ``signed_curve25519`` is there with 0 too."""
        found = {"signed_curve25519": 0}
        rows = await self._ctx.store.scan("one_time_key", equal=(user, device_id), limit=_MAX_ONE_TIME_KEYS)
        for row in rows:
            algorithm = str(row.fields["algorithm"])
            found[algorithm] = found.get(algorithm, 0) + 1
        return found

    async def unused_fallback(self, user: str, device_id: str) -> list[str]:
        """The algorithms whose fallback key was never handed out."""
        rows = await self._ctx.store.scan("fallback_key", equal=(user, device_id))
        return [str(row.key[2]) for row in rows if not orjson.loads(row.body)["used"]]

    async def claim_keys(
        self, wanted: Mapping[str, Mapping[str, str]]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Claims a key of each device, by user, device and algorithm. A one-time key is removed, durably,
        before it is handed out.
        """
        every = [(user, one, algorithm) for user, of in wanted.items() for one, algorithm in of.items()]
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for at in range(0, len(every), _MAX_CLAIMED_DEVICES):
            part: dict[str, dict[str, str]] = {}
            for user, device_id, algorithm in every[at : at + _MAX_CLAIMED_DEVICES]:
                part.setdefault(user, {})[device_id] = algorithm
            async with self._one:
                taken = await again_on_conflict(partial(self._try_claim, part))
            for user, keys in taken.items():
                found.setdefault(user, {}).update(keys)
        return found

    async def _try_claim(
        self, wanted: Mapping[str, Mapping[str, str]]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """See ``claim_keys``. Raises ``Conflict`` where another took one of the keys since it was read."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        writes: list[Write] = []
        for user, devices in wanted.items():
            for device_id, algorithm in devices.items():
                key, write = await self._claim_key(user, device_id, algorithm)
                if key:
                    found.setdefault(user, {})[device_id] = key
                    writes += write
        if writes:
            await self._ctx.store.commit(writes)
        return found

    async def _claim_key(
        self, user: str, device_id: str, algorithm: str
    ) -> tuple[dict[str, Any], list[Write]]:
        rows = await self._ctx.store.scan(
            "one_time_key",
            index=("user_id", "device_id", "algorithm", "at"),
            equal=(user, device_id, algorithm),
            limit=1,
        )
        if rows:
            key = {str(rows[0].key[2]): orjson.loads(rows[0].body)}
            return key, [Remove("one_time_key", rows[0].key, rows[0].body)]
        row = await self._ctx.store.get("fallback_key", (user, device_id, algorithm))
        if row is None:
            return {}, []
        kept = orjson.loads(row.body)
        used = CompareAndSwap("fallback_key", row.key, row.body, orjson.dumps(kept | {"used": True}))
        return {kept["key_id"]: kept["key"]}, [] if kept["used"] else [used]


def _device_from_row(device_id: str, body: bytes) -> Device:
    kept = orjson.loads(body)
    return Device(device_id=device_id, keys=kept["keys"], name=kept["name"])


def _compare_only(row: Row) -> CompareAndSwap:
    """The write that only compares: for what must not outlive the device."""
    return CompareAndSwap("device", row.key, row.body, row.body)


def _same_identity(known: Mapping[str, Any], keys: Mapping[str, Any] | None) -> bool:
    return keys is not None and keys["keys"] == known["keys"]
