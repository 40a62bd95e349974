"""Rooms of direct chats with people of other networks: made when they write first, and joined for their
ghosts when another server invites one. SPEC: client-server API, "Direct Messaging".
"""

from __future__ import annotations

import asyncio
from functools import partial

from hansa import (
    Backoff,
    Busy,
    CannotOpenRoom,
    Conflict,
    FairSlots,
    LocalProtocolError,
    Member,
    Membership,
    NativeId,
    NetworkContext,
    OpenedRoom,
    Refusal,
    RefusalCode,
    SlotShares,
    StoreFault,
)

from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.create_room import InitialEvent, RoomCreator, RoomTemplate, default_power_levels
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.join_rooms import RoomJoiner

#: The state of a room of two: nobody else comes in, and who is invited reads what was said before.
_PRIVATE: tuple[InitialEvent, ...] = (
    ("m.room.join_rules", "", {"join_rule": "invite"}),
    ("m.room.history_visibility", "", {"history_visibility": "shared"}),
    ("m.room.guest_access", "", {"guest_access": "forbidden"}),
)
#: Attempts to follow an invite, and the seconds between them: the inviting server asks for our signature
#: before the invite is a part of the room.
_MAX_TRIES, _BACKOFF = 8, Backoff(first=0.5, most=8.0)
_PASSING = frozenset({RefusalCode.INVITE_ONLY, RefusalCode.BUSY, RefusalCode.UNREACHABLE, RefusalCode.RATE})
#: Invites that are followed at one time, in all and of one server. One join is left for people of this server
#: (``remote_membership.JOINS``).
INVITES = SlotShares(in_all=3, each={"server": 1}, waiting=20)


class DirectChatRooms:
    """Makes and joins the rooms of direct chats."""

    def __init__(
        self, own: LocalServer, creator: RoomCreator, joiner: RoomJoiner, local_events: LocalEvents
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._creator = creator
        self.joiner = joiner
        self._local_events = local_events
        self._places = FairSlots(INVITES)

    async def require_user(self, user: str) -> None:
        """Raises ``CannotOpenRoom`` for an id that is not a user's, or that nobody of this server has. Users
        of other servers are asked for by the invite.
        """
        ghost = self._own.ghosts.is_ghost_id(user) or user == self._own.bridge_user
        if not ids.is_valid_user_id(user) or ghost or await self._own.is_unused_id(user):
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no {user[:255]}"))

    async def open_room(self, user: str, other: NativeId) -> OpenedRoom:
        """The room of ``user``, a Matrix user, with the ghost of ``other``, which creates it and invites
        ``user``. Raises ``CannotOpenRoom``.
        """
        await self.require_user(user)
        room_id = self._find_room(user, other)
        if room_id is None:
            room_id = await self._create_room(user, other)
        return await self.joiner.linker.describe_room(self._own.rooms[room_id])

    def _find_room(self, user: str, other: NativeId) -> str | None:
        """The room of the two that was made before a stop, if any."""
        mine, inside = NativeId(self._ctx.id, user), {Membership.JOIN, Membership.INVITE}
        for link in self._ctx.list_links():
            view = self._ctx.get_view(link.native.id)
            if (
                view is not None
                and len(view.people) == 2
                and view.membership(other) is Membership.JOIN
                and view.membership(mine) in inside
                and not view.facts.encrypted
            ):
                return link.native.id
        return None

    async def _create_room(self, user: str, other: NativeId) -> str:
        ghost, version = await self._ctx.get_ghost_id(other), self._ctx.config.room_version
        invite = {"membership": "invite", "is_direct": True}
        template = RoomTemplate(
            member={"displayname": other.id[:100]},
            levels=default_power_levels(ghost, version, naming=0, operator=user),
            then=_PRIVATE,
            invited={user: {"is_direct": True}},
        )
        try:
            room = await self._creator.create(ghost, version, "", template)
        except (LocalProtocolError, Conflict) as problem:
            raise CannotOpenRoom(Refusal(code=RefusalCode.INVALID, text=str(problem))) from problem
        await self.joiner.linker.link_room(room)
        invited = Member(user=NativeId(self._ctx.id, user), membership=Membership.INVITE)
        refusal = await self._local_events.send_membership(ghost, room.room_id, invited, user, invite)
        if refusal is not None:
            gone = Member(user=other, membership=Membership.LEAVE)
            await self._local_events.send_membership(
                ghost, room.room_id, gone, ghost, {"membership": "leave"}
            )
            raise CannotOpenRoom(refusal)
        return room.room_id

    def accept_invite(self, invite: Pdu, origin: str) -> None:
        """Follows an invite of another server for a ghost: the ghost joins, and its person is reached."""
        self._spawn_accept(invite.room_id, invite.state_key or "", invite.sender, origin)

    async def resume(self) -> None:
        """Follows the invites of ghosts that a stop left unanswered."""
        for waiting in await self.joiner.pending.every():
            if waiting.membership == "invite" and self._own.ghosts.is_ghost_id(waiting.user):
                self._spawn_accept(waiting.room_id, waiting.user, waiting.sender, waiting.origin)

    def _spawn_accept(self, room_id: str, ghost: str, inviter: str, origin: str) -> None:
        work = partial(self._accept, room_id, ghost, inviter, origin)
        self._ctx.spawn(work, f"direct chat in {room_id}")

    async def _accept(self, room_id: str, ghost: str, inviter: str, origin: str) -> None:
        person = await self._ctx.home_of(ghost)
        for tried in range(1, _MAX_TRIES + 1):
            try:
                async with self._places.hold_slot(("server", origin)):
                    await self.joiner.join(room_id, [origin], ghost, {"displayname": person.id[:100]})
                    await self.joiner.pending.drop(room_id, ghost)
                await self._ctx.connect_direct_chat(room_id, person, inviter)
            except CannotOpenRoom as error:
                room = self._own.rooms.get(room_id)
                if room is not None and room.resident:  # the core took the ghost out of it, with the reason
                    self._ctx.log.info("no direct chat in %s: %s", room_id, error.refusal.text)
                    return
                if error.refusal.code in _PASSING and tried < _MAX_TRIES:
                    await asyncio.sleep(_BACKOFF.delay(tried))
                    continue
                self._ctx.log.warning("the invite of %s to %s: %s", ghost, room_id, error.refusal.text)
                await self.joiner.remote.leave_remote(
                    room_id, ghost, [origin], {"reason": error.refusal.text[:500]}
                )
                await self.joiner.pending.drop(room_id, ghost)
                return
            except (Busy, StoreFault) as fault:
                self._ctx.log.info("the invite of %s to %s: %s", ghost, room_id, fault)
                await asyncio.sleep(_BACKOFF.delay(tried))
            else:
                return
