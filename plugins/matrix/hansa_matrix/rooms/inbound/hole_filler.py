"""Tries holes again: a key that is known now, or an event that a server has after all, fills the hole."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from hansa import Conflict, NetworkContext, StoreFault

from hansa_matrix.federation.client import REQUEST_FAILURES
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.event_store import Status
from hansa_matrix.rooms.inbound.fetched_events import FetchNotes
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.inbound.ordering import sort_topologically
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_registry import RoomRegistry
from hansa_matrix.rooms.state.holes import FOR_A_KEY, Hole, Why

#: Seconds between looks for holes that are due; so many are tried at each, of one room and of all.
_EVERY = 60.0
_OF_ONE_ROOM, _AT_ONCE = 10, 100


class HoleFiller:
    """Runs with the network."""

    def __init__(
        self, ctx: NetworkContext, keyring: Keyring, gaps: MissingEvents, rooms: RoomRegistry
    ) -> None:
        self._ctx = ctx
        self._keyring = keyring
        self._gaps = gaps
        self._rooms = rooms
        self._news = asyncio.Event()

    def on_keys_learned(self, server: str) -> None:
        """See ``Keyring.on_learned``: holes that the server signed are due."""
        for room in self._rooms.values():
            for hole in [h for h in room.holes.by_id.values() if server in _signing_servers(h)]:
                room.holes.by_id[hole.event_id] = replace(hole, again=0)
                self._news.set()

    async def run(self) -> None:
        """Try what is due, for as long as the network runs."""
        while True:
            try:
                async with asyncio.timeout(_EVERY):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            await self.fill_due_holes()

    async def fill_due_holes(self) -> None:
        """Tries some of the holes that are due, and continues at once with those that become due."""
        now, left = self._ctx.clock.now(), _AT_ONCE
        for room in list(self._rooms.values()):
            due = [h for h in room.holes.by_id.values() if h.again <= now]
            # Those that others follow first, as these stand on them; last what was rejected for want of any.
            due.sort(key=lambda h: (h.why is Why.FILLED, h.since, h.group))
            for hole in due[: min(left, _OF_ONE_ROOM)]:
                left -= 1
                try:
                    await self._try_hole(room, hole)
                except StoreFault:  # nobody was asked
                    raise
                except Exception:  # a bug with one must not end the others
                    self._ctx.log.exception("%s could not be tried again", hole.event_id)
                    await self._in_vain(room, hole, ())
            if any(hole.again <= now for hole in room.holes.by_id.values()):
                self._news.set()
            await self._gaps.unverified.settle(room)
        self._ctx.set_gauge("matrix_holes_open", sum(len(room.holes) for room in self._rooms.values()))

    async def _try_hole(self, room: MatrixRoom, hole: Hole) -> None:
        if hole.why is Why.FILLED:
            await self._judge_again(room, hole)
            return
        if hole.why in FOR_A_KEY and not await self._has_trusted_keys(hole):
            await self._in_vain(room, hole, ())
            return
        notes = FetchNotes(hole.origin)
        for server in self._gaps.candidate_servers(room, hole.origin):
            notes.asked.append(server)
            try:
                errand = self._gaps.errands.acquire_beside(server)
                pdu = await self._gaps.fetched.fetch_event(room, hole.event_id, errand, notes)
            except REQUEST_FAILURES:
                continue
            if pdu is not None and await self._submit_event(room, pdu, server):
                await self._forget_placed(room, hole.event_id)
                self._ctx.count("matrix_holes_filled")
                self._ctx.log.info("%s in %s is filled", hole.event_id, room.room_id)
                return
        await self._in_vain(room, hole, notes.asked, notes.why.get(hole.event_id))

    async def _forget_placed(self, room: MatrixRoom, event_id: str) -> None:
        """Forget a hole whose event had its place before it was passed over: no turn fills that."""
        hole = room.holes.by_id.get(event_id)
        if hole is None or hole.why is Why.FILLED:
            return
        if hole.rejects:
            room.holes.by_id[event_id] = replace(hole, why=Why.FILLED, again=0)
            return
        await self._ctx.store.commit([hole.delete()])
        room.holes.by_id.pop(event_id, None)

    async def _has_trusted_keys(self, hole: Hole) -> bool:
        """True if every required server has signed by a key that is known and trusted now."""
        await self._keyring.ensure_keys(hole.keys, 0)
        known = {server for server, key_id in hole.keys if self._keyring.get(server, key_id) is not None}
        return known == _signing_servers(hole)

    async def _submit_event(self, room: MatrixRoom, pdu: Pdu, server: str) -> bool:
        """Judge an event that had been passed over."""
        if not await self._gaps.fetch(room, pdu, server):
            return False
        submitter = self._gaps.submitter
        await submitter.submit([await submitter.build_submission(pdu, server)])
        found = (await room.events.load([pdu.event_id], room.version)).get(pdu.event_id)
        return found is not None and found.after > 0

    async def _judge_again(self, room: MatrixRoom, hole: Hole) -> None:
        """Checks the events again that were rejected because of a missing event that is here now."""
        found = await room.events.load(hole.rejects, room.version)
        submitter = self._gaps.submitter
        for pdu in sort_topologically(one.pdu for one in found.values()):
            one = found[pdu.event_id]
            if one.status is not Status.REJECTED:
                continue
            inbound = await submitter.build_submission(one.pdu, hole.origin)
            await submitter.submit([replace(inbound, native=replace(inbound.native, again=True))])
        await self._ctx.store.commit([hole.delete()])
        room.holes.by_id.pop(hole.event_id, None)

    async def _in_vain(
        self, room: MatrixRoom, hole: Hole, asked: Collection[str], why: Why | None = None
    ) -> None:
        if room.holes.by_id.get(hole.event_id) is not hole:
            return  # it changed meanwhile
        tried = hole.tried(self._ctx.clock.now(), asked, why)
        if hole.group or hole.rejects:
            with suppress(Conflict):  # a turn of the room comes between, and may have changed the hole
                await self._ctx.store.commit([*room.unchanged_writes(), tried.row()])
        if room.holes.by_id.get(hole.event_id) is hole:
            room.holes.by_id[hole.event_id] = tried


def _signing_servers(hole: Hole) -> set[str]:
    return {server for server, _ in hole.keys}
