"""Rooms that were replaced on another server: the links of the old room follow to the new one."""

from __future__ import annotations

import asyncio
from functools import partial

from hansa import Backoff, CannotOpenRoom, Conflict, LocalProtocolError, NetworkContext

from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.state_content import replacement_room
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.join_rooms import RoomJoiner
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.upgrade.unfinished_upgrades import UnfinishedUpgrade, unfinished_of
from hansa_matrix.rooms.upgrade.upgrade_room import TOMBSTONE, RoomUpgrades

#: Seconds between attempts to join the new room.
_JOIN_BACKOFF, _MAX_TRIES = Backoff(first=0.5, most=4.0), 5


class UpgradeFollower:
    """Listens for tombstones. See ``RoomListeners.on_accepted``."""

    def __init__(self, own: LocalServer, joiner: RoomJoiner, upgrades: RoomUpgrades) -> None:
        self._ctx: NetworkContext = own.ctx
        self._rooms = own.rooms
        self._joiner = joiner
        self._upgrades = upgrades

    def on_accepted(self, pdu: Pdu) -> None:
        """Follow an event that says which room replaces its own."""
        replacement = replacement_room(pdu.content) if pdu.type == TOMBSTONE and pdu.state_key == "" else None
        if replacement is not None:
            self._ctx.spawn(partial(self._follow_tombstone, pdu, replacement), f"follow {pdu.room_id}")

    async def _follow_tombstone(self, tombstone: Pdu, replacement: str) -> None:
        old, key = self._rooms.get(tombstone.room_id), (TOMBSTONE, "")
        if old is None or not self._ctx.config.accept_invites:
            return
        if (await old.state()).get(key) != tombstone.event_id:  # another one counts
            return
        begun = UnfinishedUpgrade(old=old.room_id, new=replacement, followed=True)
        try:
            await self._ctx.store.commit([begun.begin()])
        except Conflict:
            known = await unfinished_of(self._ctx.store, old.room_id)
            if known is not None and known != begun:
                self._ctx.log.warning("%s is not followed: it is being replaced here", old.room_id)
                return
        await self._join_replacement(old, tombstone, replacement)
        new = self._rooms.get(replacement)
        if new is not None and new.resident and self._ctx.get_link(replacement) is None:
            await self._joiner.linker.link_room(new)  # it replaces nothing, and is a room like others
        await self._ctx.store.commit([begun.end()])

    async def _join_replacement(self, old: MatrixRoom, tombstone: Pdu, replacement: str) -> None:
        server = ids.domain_of(tombstone.sender)
        for tried in range(1, _MAX_TRIES + 1):
            try:
                if replacement not in self._rooms:
                    await self._joiner.enter(replacement, [server])
                await self._upgrades.follow(old, self._rooms[replacement], tombstone.sender)
                return
            except CannotOpenRoom as error:
                if tried == _MAX_TRIES or error.refusal.decision:
                    text = error.refusal.text
                    self._ctx.log.warning("%s, which replaces %s: %s", replacement, old.room_id, text)
                    return
                await asyncio.sleep(_JOIN_BACKOFF.delay(tried))
            except LocalProtocolError as error:
                self._ctx.log.warning("%s is not followed: %s", old.room_id, error)
                return
