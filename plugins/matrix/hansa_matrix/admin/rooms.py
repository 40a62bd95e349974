"""The admin commands about whole rooms: check that a room is complete, leave, block and remove it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from hansa import (
    AdminCommand,
    Conflict,
    Delete,
    LocalProtocolError,
    Member,
    Membership,
    NetworkContext,
    StoreError,
    pages,
)

from hansa_matrix.federation.client import REQUEST_FAILURES
from hansa_matrix.rooms.directory.aliases import aliases_of, remove_alias_writes
from hansa_matrix.rooms.event_store import Status, StoredEvent
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom

_PAGE_SIZE = 500
_MAX_NAMED = 20


class RoomCommands:
    """``hansa matrix rooms check|leave|block|unblock|purge``."""

    def __init__(
        self,
        own: LocalServer,
        administration: LocalEvents,
        gaps: MissingEvents,
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._server = own.server
        self._rooms = own.rooms
        self._administration = administration
        self._gaps = gaps

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            "rooms check": self.check,
            "rooms leave": self.leave,
            "rooms block": self.block,
            "rooms unblock": self.unblock,
            "rooms purge": self.purge,
        }

    def _require_room(self, room_id: str) -> MatrixRoom:
        room = self._rooms.get(room_id)
        if room is None:
            raise LocalProtocolError(f"there is no room {room_id}: `hansa matrix rooms ls` lists rooms")
        return room

    async def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Checks that every event that the room's events refer to is stored; with ``repair`` other servers
        are asked for the missing ones.
        """
        room = self._require_room(str(arguments["room"]))
        found = await self._audit_room(room)
        if arguments.get("repair") and found["missing_auth"]:
            found["repaired"] = await self._fetch_missing_auth(room)
            found |= await self._audit_room(room)
        for name in ("missing_prev", "missing_auth", "missing_state"):
            found[name] = found[name][:_MAX_NAMED]
        return found

    async def _audit_room(self, room: MatrixRoom) -> dict[str, Any]:
        statuses: Counter[str] = Counter()
        rejected: dict[str, str] = {}
        present: set[str] = set()
        prev: set[str] = set()
        auth: set[str] = set()
        work = f"checking {room.room_id}"
        async for stored in self._pages_by_depth(room):
            for event_id, one in stored.items():
                present.add(event_id)
                statuses[one.status.value] += 1
                auth.update(one.pdu.auth_events)
                if one.after and one.depth > room.head.join_depth:
                    prev.update(one.pdu.prev_events)
                if one.status is Status.REJECTED:
                    rejected[event_id] = one.reason
            self._ctx.report_progress(work, len(present))
        self._ctx.report_progress(work, 1, 1)
        state = await room.state()
        holes = {hole.event_id: hole.told() for hole in room.holes.listed()}
        return {
            "room": room.room_id,
            "events": len(present),
            "statuses": dict(statuses),
            "extremities": len(room.head.extremities),
            "missing_prev": sorted(prev - present - set(room.head.behind) - holes.keys()),
            "missing_auth": sorted(auth - present - holes.keys()),
            "missing_state": sorted(set(state.values()) - present),
            "rejected": rejected,
            "holes": list(holes.values()),
        }

    async def _pages_by_depth(self, room: MatrixRoom) -> AsyncIterator[dict[str, StoredEvent]]:
        """Everything that is stored of a room, by depth as we count it."""
        found = pages(
            self._ctx.store, "pdu", index=("room_id", "depth"), equal=(room.room_id,), size=_PAGE_SIZE
        )
        async for rows in found:
            yield await room.events.load([str(row.key[0]) for row in rows], room.version)

    async def _fetch_missing_auth(self, room: MatrixRoom) -> int:
        """Ask the servers of the room for auth events that are missing; how many came."""
        before = set((await self._audit_room(room))["missing_auth"])
        view = self._ctx.get_view(room.room_id)
        servers = {s for n, s in view.joined_servers if n == self._ctx.id} if view is not None else set()
        lacking = [
            one.pdu
            async for stored in self._pages_by_depth(room)
            for one in stored.values()
            if not before.isdisjoint(one.pdu.auth_events)
        ]
        for pdu in lacking:
            for server in sorted(servers - {self._server})[:3]:
                try:
                    async with self._gaps.errands.acquire(server) as errand:
                        await self._gaps.fetched.fetch_auth_events(room, pdu, errand)
                    break
                except REQUEST_FAILURES as error:
                    self._ctx.log.info("repair of %s by %s: %s", room.room_id, server, error)
        return len(before) - len((await self._audit_room(room))["missing_auth"])

    async def leave(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Makes all local users leave."""
        room = self._administration.require_room(str(arguments["room"]))
        left = 0
        for user in [user async for user in room.joined_users_of(self._server)]:
            person = Member(user=await self._ctx.home_of(user), membership=Membership.LEAVE)
            body = {"membership": "leave"}
            refusal = await self._administration.send_membership(user, room.room_id, person, user, body)
            left += refusal is None
        return {"room": room.room_id, "left": left}

    async def block(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Take nothing more of a room, from nobody."""
        room_id = str(arguments["room"])
        await self._rooms.block(room_id)
        return {"blocked": room_id}

    async def unblock(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Take part again."""
        room_id = str(arguments["room"])
        await self._rooms.unblock(room_id)
        return {"unblocked": room_id}

    async def purge(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Removes a room without local users, in steps between which others write. Its own row goes last: the
        same command finishes an interrupted removal, also after a crash.
        """
        room = self._require_room(str(arguments["room"]))
        if room.resident:
            text = f"{room.room_id} still has local members: `hansa matrix rooms leave` first"
            raise LocalProtocolError(text)
        self._rooms.remove(room.room_id)
        try:
            return await self._remove_room_rows(room)
        except StoreError:
            self._rooms.restore_room(room)
            raise

    async def _remove_room_rows(self, room: MatrixRoom) -> dict[str, Any]:
        if self._ctx.get_link(room.room_id) is not None:
            await self._ctx.close_link(room.room_id)
        removed, work = 0, f"purging {room.room_id}"
        for collection, index in (
            ("pdu", ("room_id", "depth")),
            ("state_group", ()),
            ("staged", ()),
            ("receipt", ()),
            ("redaction", ()),
            ("hole", ()),
        ):
            while rows := await self._ctx.store.scan(
                collection, index=index, equal=(room.room_id,), limit=_PAGE_SIZE
            ):
                await self._ctx.store.commit([Delete(collection, row.key) for row in rows])
                removed += len(rows)
                self._ctx.report_progress(work, removed)
        await self._rooms.listeners.notify_purged(room.room_id)
        for alias in await aliases_of(self._ctx.store, room.room_id):
            with suppress(Conflict):  # it was given to another room just now
                await self._ctx.store.commit(remove_alias_writes(alias))
        await self._ctx.store.commit([room.remove(), Delete("published", (room.room_id,))])
        self._ctx.report_progress(work, 1, 1)
        return {"room": room.room_id, "removed": removed}
