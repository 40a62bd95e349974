"""Typing and receipts, to and from other servers. SPEC: server-server API, "EDUs"."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from hansa import (
    CompareAndSwap,
    Delete,
    EphemeralEvent,
    EphemeralIn,
    EphemeralOut,
    Link,
    Membership,
    NativeId,
    NetworkContext,
    Receipt,
    RoomView,
    Row,
    Typing,
    Write,
    again_on_conflict,
    scan_all,
)

from hansa_matrix.bounds.fair_shares import FairShares
from hansa_matrix.bounds.generations import Generations
from hansa_matrix.crossings import is_allowed, require_allowed, texts_of_values
from hansa_matrix.local.client_stream import RECEIPTS
from hansa_matrix.local.latest_rows import LatestRows
from hansa_matrix.proto import ids
from hansa_matrix.proto.edus import (
    RECEIPT,
    TYPING,
    ReceiptEdu,
    TypingEdu,
    parse_receipts,
    parse_typing,
    receipt_edu,
    typing_edu,
)
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.texts import FORMS

#: Seconds after which a typing notification ends.
TYPES_FOR = 60.0
#: People who type, in all; the one who began first of the server that has most of them gives way.
MAX_TYPING = 5000
#: Threads of one room in which a person's last receipt is kept.
MAX_THREADS = 100
#: The values for no thread.
_NO_THREAD = frozenset({"", "main"})
#: The prefix of the threads of private receipts in the store.
PRIVATE = "private "
#: ``(user, thread) -> (event id, time)``.
Receipts = Mapping[tuple[str, str], tuple[str, int]]
#: Answers to what the receipts of a room, or of a person in one, are; longer ones are read each time.
_RECEIPTS, _MAX_REMEMBERED = 10_000, 50


class TypingAndReceipts:
    """Both ways. Nothing here is kept but the last receipt of each person in each thread."""

    def __init__(self, own: LocalServer) -> None:
        self._ctx: NetworkContext = own.ctx
        self._server = own.server
        self._sender = own.sender
        self._rooms = own.rooms
        self._typing: FairShares[tuple[str, str], float] = FairShares(
            MAX_TYPING, lambda name: ids.domain_of(name[1])
        )
        self._news = asyncio.Event()
        self._receipts: Generations[tuple[str, str], Receipts] = Generations(_RECEIPTS)
        self._latest = LatestRows()
        self._notifier = own.notifier

    async def take_typing(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """See ``edus.EduHandler``."""
        ignored = 0
        for content in contents:
            typing = parse_typing(content, origin)
            if typing is None or not await self._can_send(typing.room_id, typing.user, origin):
                ignored += 1
            elif await self._lets_in(typing.room_id, typing.user, "typing"):
                await self._set_typing(typing)
        return ignored

    async def take_receipts(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """See ``edus.EduHandler``. A receipt that is older than the stored one does not count."""
        ignored = 0
        for receipt in (one for content in contents for one in parse_receipts(content, origin)):
            if receipt is None or not await self._can_send(receipt.room_id, receipt.user, origin):
                ignored += 1
            elif await self._lets_in(receipt.room_id, receipt.user, "receipt", _texts_of_receipt(receipt)):
                await self._accept_receipt(receipt)
        return ignored

    async def _can_send(self, room_id: str, user: str, origin: str) -> bool:
        """The user is in the room, and the room's server ACL lets their server speak."""
        room, view = self._rooms.get(room_id), self._ctx.get_view(room_id)
        if room is None or not room.resident or view is None or not await room.allows(origin):
            return False
        person = view.person(NativeId(self._ctx.id, user))
        return person is not None and person.membership is Membership.JOIN

    def _inbound_crossing(
        self, room_id: str, user: str, kind: str, texts: tuple[str, ...] = ()
    ) -> EphemeralIn | None:
        """Returns the question to the policies about a user's typing or receipt."""
        link, view = self._ctx.get_link(room_id), self._ctx.get_view(room_id)
        if link is None or view is None:
            return None
        sender, server = NativeId(self._ctx.id, user), ids.domain_of(user)
        return EphemeralIn(link=link, sender=sender, sender_server=server, kind=kind, view=view, texts=texts)

    async def _lets_in(self, room_id: str, user: str, kind: str, texts: tuple[str, ...] = ()) -> bool:
        """True if the policies let the users of a room see that a user types or has read."""
        crossing = self._inbound_crossing(room_id, user, kind, texts)
        return crossing is not None and await is_allowed(self._ctx, crossing)

    async def _send_to_servers(
        self, room_id: str, user: str, kind: str, name: tuple[str, ...], edu: Any
    ) -> None:
        """Tell the servers of a room, if the policies let them know."""
        link, view = self._ctx.get_link(room_id), self._ctx.get_view(room_id)
        if link is None or view is None:
            return
        out = EphemeralOut(link=link, sender=NativeId(self._ctx.id, user), kind=kind, view=view)
        if await is_allowed(self._ctx, out):
            self._sender.send_ephemeral(self._remote_servers(room_id), name, edu)

    def typing_in(self, room_id: str) -> list[str]:
        """Returns the users who type in a room and have not left it."""
        view = self._ctx.get_view(room_id)
        if view is None:
            return []
        return [user for room, user in self._typing if room == room_id and self._is_joined(view, user)]

    def _is_joined(self, view: RoomView, user: str) -> bool:
        """True if a user is in a room. A ghost that the core knows only by another name counts as in the
        room.
        """
        person = view.person(NativeId(self._ctx.id, user))
        return person is None or person.membership is Membership.JOIN

    async def type(self, user: str, room: MatrixRoom, *, typing: bool, seconds: float) -> None:
        """A local user begins or ends to type. Raises the error answer if a policy denies it."""
        if (
            self._ctx.has_policies
            and (crossing := self._inbound_crossing(room.room_id, user, "typing")) is not None
        ):
            await require_allowed(self._ctx, crossing)
        edu = TypingEdu(room_id=room.room_id, user=user, typing=typing)
        await self._send_to_servers(
            room.room_id, user, "typing", (TYPING, room.room_id, user), typing_edu(edu)
        )
        await self._set_typing(edu, seconds)

    async def read(self, receipt: ReceiptEdu, *, private: bool) -> None:
        """A local user has read up to an event. A private receipt is between the user and this server, and
        crosses nothing. Raises the error answer if a policy denies it.
        """
        if private:
            await self._store_receipt(replace(receipt, thread=PRIVATE + receipt.thread))
            return
        if self._ctx.has_policies:
            crossing = self._inbound_crossing(
                receipt.room_id, receipt.user, "receipt", _texts_of_receipt(receipt)
            )
            if crossing is not None:
                await require_allowed(self._ctx, crossing)
        edu, name = receipt_edu(receipt), (RECEIPT, receipt.room_id, receipt.user, receipt.thread)
        await self._send_to_servers(receipt.room_id, receipt.user, "receipt", name, edu)
        await self._accept_receipt(receipt)

    def _remote_servers(self, room_id: str) -> set[str]:
        view = self._ctx.get_view(room_id)
        return {s for n, s in view.joined_servers if n == self._ctx.id} - {self._server} if view else set()

    async def _set_typing(self, typing: TypingEdu, seconds: float | None = None) -> None:
        name = (typing.room_id, typing.user)
        known = self._typing.pop(name)
        if typing.typing:
            until = self._ctx.clock.monotonic() + min(seconds or TYPES_FOR, TYPES_FOR)
            gone = self._typing.put(name, until)
            self._news.set()
            if gone is not None:
                await self._signal_typing(*gone, on=False)
        if typing.typing is not (known is not None):
            await self._signal_typing(*name, on=typing.typing)

    async def _signal_typing(self, room_id: str, user: str, *, on: bool) -> None:
        self._notifier.typing_changed(room_id)
        if (await self._ctx.home_of(user)).network != self._ctx.id:
            return
        await self._ctx.send_ephemeral(room_id, Typing(user=NativeId(self._ctx.id, user), typing=on))

    async def expire(self) -> None:
        """Runs with the network: ends the typing of users who sent nothing for a minute."""
        while True:
            now = self._ctx.clock.monotonic()
            for name in [name for name, until in self._typing.items() if until <= now]:
                self._typing.pop(name)
                await self._signal_typing(*name, on=False)
            self._news.clear()
            wait = min(until for _, until in self._typing.items()) - now if len(self._typing) else None
            try:
                async with asyncio.timeout(wait):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _accept_receipt(self, receipt: ReceiptEdu) -> None:
        if not await self._store_receipt(receipt):
            self._ctx.count("matrix_receipts_ignored")
            return
        event = await self._ctx.event_by(receipt.event_id)
        if event is not None:
            user = NativeId(self._ctx.id, receipt.user)
            at = min(receipt.ts, self._ctx.clock.now())
            signal = Receipt(user=user, event=event, ts=at, thread=receipt.thread)
            await self._ctx.send_ephemeral(receipt.room_id, signal)

    async def _store_receipt(self, receipt: ReceiptEdu) -> bool:
        """Stores a receipt; True if it is new. Of a user with receipts in very many threads the oldest is
        removed. A receipt with a time in the future counts as one of now, so that it does not keep later ones
        out.
        """
        return await again_on_conflict(partial(self._try_store_receipt, receipt))

    async def _try_store_receipt(self, receipt: ReceiptEdu) -> bool:
        """See ``_store_receipt``. Raises ``Conflict`` where another receipt came since the last one was
        read.
        """
        key, at = (receipt.room_id, receipt.user, receipt.thread), min(receipt.ts, self._ctx.clock.now())
        known = await self._ctx.store.get("receipt", key)
        before = known.body if known is not None else None
        writes: list[Write] = [CompareAndSwap("receipt", key, before, orjson.dumps([receipt.event_id, at]))]
        if known is not None:
            event_id, ts = orjson.loads(known.body)
            if ts > at or event_id == receipt.event_id:
                return False
        else:
            rows = await self._ctx.store.scan("receipt", equal=key[:2], limit=MAX_THREADS)
            if len(rows) >= MAX_THREADS:
                oldest = min(rows, key=lambda row: int(orjson.loads(row.body)[1]))
                writes.append(Delete("receipt", oldest.key))
        room = self._rooms.get(receipt.room_id)
        private = receipt.thread.startswith(PRIVATE)
        news = (
            (receipt.user, f"read {receipt.room_id}")
            if private
            else (RECEIPTS + receipt.room_id, receipt.user)
        )
        if private or (room is not None and room.attended):
            writes += self._latest.announce_writes(*news)
        for position in await self._ctx.store.commit(writes, durability="lazy"):
            self._latest.on_row_committed(*news, position)
        for whose in ("", receipt.user):
            self._receipts.revoke_owner(f"{receipt.room_id} {whose}")
        if private:
            self._notifier.wake_user(receipt.user)
        else:
            self._notifier.wake_room(receipt.room_id)
        return True

    async def get_receipts(self, room_id: str, user: str = "") -> Receipts:
        """The last receipts in a room, or one person's there: ``(user, thread) -> (event id, time)``. Where
        there are policies, one that names no event by its id is left out: it may hold words.
        """
        found = await self._receipts_of(room_id, user)
        if not self._ctx.has_policies:
            return found
        return {
            key: one
            for key, one in found.items()
            if _has_only_event_ids(one[0], key[1].removeprefix(PRIVATE))
        }

    async def _receipts_of(self, room_id: str, user: str) -> Receipts:
        known, began = self._receipts.get((room_id, user)), self._receipts.began()
        if known is not None:
            return known
        equal = (room_id, user) if user else (room_id,)
        rows = scan_all(self._ctx.store, "receipt", equal=equal)
        found = {(str(row.key[1]), str(row.key[2])): _receipt_from_row(row) async for row in rows}
        if len(found) <= _MAX_REMEMBERED:
            self._receipts.put((room_id, user), f"{room_id} {user}", found, began)
        return found

    async def send(self, link: Link, signal: EphemeralEvent) -> None:
        """See ``hansa.CarriesEphemeral.show_ephemeral``: tell the servers of the room."""
        room, view = self._rooms.get(link.native.id), self._ctx.get_view(link.native.id)
        if room is None or not room.resident or view is None:
            return
        user = await self._ctx.get_ghost_id(signal.user)
        servers = self._remote_servers(room.room_id)
        if ids.domain_of(user) != self._server:
            return
        if isinstance(signal, Typing):
            typing = TypingEdu(room_id=room.room_id, user=user, typing=signal.typing)
            await self._set_typing(typing)
            self._sender.send_ephemeral(servers, (TYPING, room.room_id, user), typing_edu(typing))
            return
        event_id = await self._ctx.native_id(signal.event)
        if event_id is not None:
            receipt = ReceiptEdu(
                room_id=room.room_id, user=user, event_id=event_id, ts=signal.ts, thread=signal.thread
            )
            await self._store_receipt(receipt)
            self._sender.send_ephemeral(
                servers, (RECEIPT, room.room_id, user, signal.thread), receipt_edu(receipt)
            )


def _texts_of_receipt(receipt: ReceiptEdu) -> tuple[str, ...]:
    """Returns the texts of a receipt, which are the values that are not event ids: the users of the room see
    them unchanged.
    """
    if _has_only_event_ids(receipt.event_id, receipt.thread):
        return ()
    return texts_of_values(
        event_id=[receipt.event_id, *([] if receipt.thread in _NO_THREAD else [receipt.thread])]
    )


def _has_only_event_ids(event_id: str, thread: str) -> bool:
    """True if a receipt holds event ids only."""
    known = FORMS["event_id"].fullmatch
    return known(event_id) is not None and (thread in _NO_THREAD or known(thread) is not None)


def _receipt_from_row(row: Row) -> tuple[str, int]:
    event_id, ts = orjson.loads(row.body)
    return str(event_id), int(ts)
