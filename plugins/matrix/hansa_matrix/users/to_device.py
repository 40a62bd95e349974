"""Messages to devices: kept until the device has them, and sent to other servers without being lost.

SPEC: server-server API, "Send-to-device messaging". Messages to a ghost are dropped: it has no device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from hansa import Busy, Conflict, Insert, LocalProtocolError, LruCache, NetworkContext, Row, Whole, Write

from hansa_matrix.bounds.bounded_rows import TrimmedRows
from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.crossings import Crossings, is_allowed
from hansa_matrix.errors import denial_error
from hansa_matrix.federation.durable_edus import GENERATION
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.local.client_notifier import ClientNotifier
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import (
    MAX_MESSAGE_SIZE,
    ToDeviceEdu,
    fits_object,
    parse_to_device,
    to_device_edu,
)
from hansa_matrix.users.devices import Devices
from hansa_matrix.users.to_device_rate import SERVER_RATE, USER_RATE, ToDeviceRate
from hansa_matrix.users.to_device_shares import Batch, ToDeviceShares

#: How long a message waits for its device (ms).
MESSAGE_TTL_MS = 180 * 86_400_000
#: Messages of one server of which it is known that they came.
MAX_SEEN_IDS, _TRIM_EVERY = 20_000, 500
#: Others of this process wait for each other: what is lost is lost to another process, or to a delivery.
_MAX_ATTEMPTS = 20
_INDEX = ("user_id", "device_id", "position")
ALL_DEVICES = "*"
#: The policies that judged a message, in its row; and how many are remembered that were judged again.
_GENERATION, _MAX_JUDGED = "generation", 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """A message that a device has not got. ``event`` is as a client gets it, ``generation`` the policies that
    judged it.
    """

    position: int
    event: Mapping[str, Any]
    generation: int = 0


class ToDeviceInbox:
    """Messages to devices: the inbox of local devices, and the way to devices on other servers."""

    def __init__(
        self, ctx: NetworkContext, devices: Devices, sender: FederationSender, notifier: ClientNotifier
    ) -> None:
        self._ctx = ctx
        self._company = devices.company
        self._notifier = notifier
        self._devices = devices
        self._sender = sender
        self._crossings = Crossings(ctx)
        #: Messages that were judged again: ``position -> (generation, whether it may be had)``.
        self._judged: LruCache[int, tuple[int, bool]] = LruCache(_MAX_JUDGED)
        #: By peer, whose counts a commit compares.
        self._locks = KeyLocks()
        self.shares = ToDeviceShares(ctx)
        self._of_person = ToDeviceRate(ctx.clock, USER_RATE)
        self._of_server = ToDeviceRate(ctx.clock, SERVER_RATE)
        self.seen = TrimmedRows(ctx, "to_device_seen", MAX_SEEN_IDS, _TRIM_EVERY)

    async def receive_edus(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """The ``m.direct_to_device`` of a transaction, in one commit: how many are none. Raises
        ``StoreError``: then the peer has to send it all again.
        """
        generation = self._ctx.policy_generation
        messages = [one for content in contents if (one := parse_to_device(content, origin)) is not None]
        fresh = {one.message_id: one for one in messages if await self._lets_in(one)}
        async with self._locks.hold_key(origin):
            await self._store_transaction(origin, fresh, generation)
        return len(contents) - len(messages)

    async def _store_transaction(self, origin: str, fresh: dict[str, ToDeviceEdu], generation: int) -> None:
        """Keep the messages of a transaction that did not come before; ``fresh`` loses those that did."""
        for attempt in range(_MAX_ATTEMPTS):
            keys = [(origin, message_id) for message_id in fresh]
            seen = await self._ctx.store.get_many("to_device_seen", keys)
            for _, message_id in seen:
                fresh.pop(str(message_id))
            batch, writes, told = self.shares.start_batch(), list[Write](), list[tuple[str, str]]()
            now = {"ts": self._ctx.clock.now()}
            for message in fresh.values():
                kept = await self._add_to_batch(message, message.messages, origin, batch, generation)
                if kept:  # of what is for nobody nothing need be known
                    writes.append(Insert("to_device_seen", (origin, message.message_id), b"", now))
                    told += kept
            if not writes:
                return
            if not attempt and (wait := self._of_server.take(origin, len(told), batch.added)):
                self._ctx.count("matrix_to_device_limited")
                raise Busy(f"{origin} sends too much to devices", after=wait)
            try:
                await self._ctx.store.commit(Whole([*writes, *batch.all_writes()]))
            except Conflict:  # the same is being taken twice, or more for a device, at this moment
                if attempt == _MAX_ATTEMPTS - 1:
                    raise
                continue
            self.shares.apply_changes(batch.changes)
            for user, _device_id in told:
                self._notifier.wake_user(user)
            await self.seen.added(origin, len(writes))
            return

    async def _lets_in(self, message: ToDeviceEdu) -> bool:
        """True if the policies let local users have a message."""
        if not self._ctx.has_policies:
            return True
        crossing = self._crossings.to_device(message.sender, message.type, message.messages, outbound=False)
        return await is_allowed(self._ctx, crossing)

    async def _allowed_receivers(
        self, message: ToDeviceEdu, here: Mapping[str, Mapping[str, Any]], there: Collection[str]
    ) -> tuple[bool, set[str]]:
        """Returns whether local users may have a local user's message, and the servers that may have it.
        Raises the error answer of a message that nobody may have.
        """
        whole = self._crossings.to_device(
            message.sender, message.type, message.messages, outbound=bool(there)
        )
        verdict = await self._ctx.check(whole)
        if verdict.allowed:
            return True, set(there)
        if verdict.retry_after:
            raise denial_error(verdict)
        allowed: set[str] = set()
        for server in {*map(ids.domain_of, message.messages)}:
            messages = {u: c for u, c in message.messages.items() if ids.domain_of(u) == server}
            outbound = server != self._company.server
            part = self._crossings.to_device(
                message.sender, message.type, messages, outbound=outbound, again=True
            )
            if await is_allowed(self._ctx, part):
                allowed.add(server)
        if not allowed:
            raise denial_error(verdict)
        return self._company.server in allowed or not here, allowed & set(there)

    async def _add_to_batch(
        self,
        message: ToDeviceEdu,
        messages: Mapping[str, Mapping[str, Any]],
        peer: str,
        batch: Batch,
        generation: int,
    ) -> list[tuple[str, str]]:
        """The users and devices here for which a message is in a batch now, judged by the policies of
        ``generation``.
        """
        found: list[tuple[str, str]] = []
        for user, contents in messages.items():
            if not await self._company.is_local_user(user):
                self._ctx.count("matrix_to_device_discarded", reason="nobody")
                continue
            known = (await self._devices.get_all(user)).devices
            for device_id, content in _contents_by_device(contents, known):
                if not fits_object(content, MAX_MESSAGE_SIZE):
                    self._ctx.count("matrix_to_device_discarded", reason="too large")
                    continue
                event = {"sender": message.sender, "type": message.type, "content": content}
                if generation:
                    event[_GENERATION] = generation
                body = orjson.dumps(event)
                if wait := self._of_person.take(message.sender, 1, len(body)):
                    self._ctx.count("matrix_to_device_discarded", reason="rate")
                    if peer == message.sender:  # a local user, who can get the error
                        raise Busy("too much is sent to devices", after=wait)
                elif await batch.add_message(user, device_id, peer, body):
                    found.append((user, device_id))
                else:
                    self._ctx.count("matrix_to_device_discarded", reason="full")
        return found

    async def send_message(self, message: ToDeviceEdu, *, once: bool = False) -> None:
        """Sends from a local user to devices of any server, in one commit. ``message_id`` is unique on this
        server; ``once``: a message with an id that was sent before is not sent again. Raises
        LocalProtocolError for a message that no server would accept, the error answer for one that a policy
        denies to all, and ``Busy`` for too many.
        """
        here: dict[str, Mapping[str, Any]] = {}
        there: dict[str, dict[str, Mapping[str, Any]]] = {}
        for user, contents in message.messages.items():
            if not ids.is_valid_user_id(user):
                raise LocalProtocolError(f"{user[:80]!r} is not a user ID")
            if not all(fits_object(content, MAX_MESSAGE_SIZE) for content in contents.values()):
                raise LocalProtocolError(f"a message to a device has at most {MAX_MESSAGE_SIZE} bytes")
            server = ids.domain_of(user)
            if server == self._company.server:
                here[user] = contents
                continue
            there.setdefault(server, {})[user] = contents
            size = len(orjson.dumps(contents))
            if wait := self._of_person.take(message.sender, len(contents), size):
                raise Busy("too much is sent to devices", after=wait)
        generation = self._ctx.policy_generation
        if self._ctx.has_policies:
            lets, servers = await self._allowed_receivers(message, here, there)
            here = here if lets else {}
            there = {server: by_user for server, by_user in there.items() if server in servers}
        writes: list[Write] = []
        for server, by_user in there.items():
            for number, part in enumerate(_split_messages(by_user)):
                edu = to_device_edu(
                    ToDeviceEdu(
                        sender=message.sender,
                        type=message.type,
                        message_id=f"{message.message_id}.{number}" if number else message.message_id,
                        messages=part,
                    )
                )
                judged = {GENERATION: generation} if generation else {}
                writes += self._sender.durable_edu_writes({**edu, **judged}, (server,))
        if once:
            ts = {"ts": self._ctx.clock.now()}
            writes.append(Insert("to_device_seen", (self._company.server, message.message_id), b"", ts))
        kept = await self._commit_message(message, here, writes, generation)
        for server in there:
            self._sender.on_committed((server,))
        for user, _device_id in kept:
            self._notifier.wake_user(user)

    async def _commit_message(
        self,
        message: ToDeviceEdu,
        here: Mapping[str, Mapping[str, Any]],
        writes: Sequence[Write],
        generation: int,
    ) -> list[tuple[str, str]]:
        """Commits a message with other writes; returns its local recipients, none if it was sent before."""
        async with self._locks.hold_key(message.sender):
            return await self._try_commit_message(message, here, writes, generation)

    async def _try_commit_message(
        self,
        message: ToDeviceEdu,
        here: Mapping[str, Mapping[str, Any]],
        writes: Sequence[Write],
        generation: int,
    ) -> list[tuple[str, str]]:
        for attempt in range(_MAX_ATTEMPTS):
            batch = self.shares.start_batch()
            kept = await self._add_to_batch(message, here, message.sender, batch, generation)
            try:
                await self._ctx.store.commit(Whole([*writes, *batch.all_writes()]))
            except Conflict as conflict:
                if conflict.collection.endswith("to_device_seen"):
                    return []
                if attempt == _MAX_ATTEMPTS - 1:
                    raise
                continue
            self.shares.apply_changes(batch.changes)
            return kept
        return []

    async def queued_messages(
        self, user: str, device_id: str, after: int = 0, most: int = 100
    ) -> list[QueuedMessage]:
        """Returns the messages of a device behind a position, in order."""
        rows = await self._ctx.store.scan(
            "to_device", index=_INDEX, equal=(user, device_id), after=after, limit=most
        )
        return [_queued_message(row) for row in rows]

    async def can_deliver(self, user: str, waiting: QueuedMessage) -> bool:
        """True if the current policies let a user have a message that waits for one of their devices."""
        generation = self._ctx.policy_generation
        if not self._ctx.has_policies or waiting.generation == generation:
            return True
        known = self._judged.get(waiting.position)
        if known is None or known[0] != generation:
            event = waiting.event
            messages = {user: {ALL_DEVICES: event["content"]}}
            verdict = await self._ctx.check(
                self._crossings.to_device(
                    event["sender"], event["type"], messages, outbound=False, again=True
                )
            )
            known = (generation, verdict.allowed)
            self._judged.put(waiting.position, known)
            if not known[1]:
                self._ctx.count("matrix_to_device_discarded", reason="denied")
        return known[1]

    async def delete_upto(self, user: str, device_id: str, upto: int) -> None:
        """The device has everything up to a position."""
        equal = (user, device_id)
        while await self._remove_page(index=_INDEX, equal=equal, upto=upto):
            pass

    async def _remove_page(self, **which: Any) -> bool:
        """Remove some messages; False if there are none."""
        for _ in range(_MAX_ATTEMPTS):
            rows = await self._ctx.store.scan("to_device", limit=500, **which)
            if not rows:
                return False
            batch = self.shares.start_batch()
            await batch.remove_messages(rows)
            try:
                await self._ctx.store.commit(batch.all_writes())
            except Conflict:  # more came at this moment
                continue
            self.shares.apply_changes(batch.changes)
            return True
        return False

    async def sweep(self) -> None:
        """Let go of what no device asked for in half a year, and count what waits."""
        until = self._ctx.clock.now() - MESSAGE_TTL_MS
        while await self._remove_page(index=("ts",), upto=until):
            self._ctx.count("matrix_to_device_discarded", reason="old")
        await self.shares.recount()


def _queued_message(row: Row) -> QueuedMessage:
    event = orjson.loads(row.body)
    generation = event.pop(_GENERATION, 0)
    return QueuedMessage(position=row.position, event=event, generation=generation)


def _contents_by_device(contents: Mapping[str, Any], known: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """By device; ``*`` are all that are not named."""
    for device_id in known:
        if device_id in contents:
            yield device_id, contents[device_id]
        elif ALL_DEVICES in contents:
            yield device_id, contents[ALL_DEVICES]


def _split_messages(by_user: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, dict[str, Any]]]:
    """Messages in portions whose EDU is of a size that every server takes."""
    part: dict[str, dict[str, Any]] = {}
    size = 0
    for user, contents in by_user.items():
        for device_id, content in contents.items():
            more = len(orjson.dumps(content)) + len(user) + len(device_id)
            if size and size + more > MAX_MESSAGE_SIZE - 4096:
                yield part
                part, size = {}, 0
            part.setdefault(user, {})[device_id] = content
            size += more
    if part:
        yield part
