"""Notices of the bridge to one person: in a chat of the two, so that nobody else reads them.

For a person of this server the chat is made once. A person of another server is told there only if the chat
exists, because this server invites no strangers. Without it the notice is in the room that it is about, and
mentions the person. SPEC: client-server API, "Direct Messaging".
"""

from __future__ import annotations

import asyncio

from hansa import Conflict, LocalProtocolError, Member, Membership, NativeId, NetworkContext

from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.proto import ids
from hansa_matrix.rooms.create_room import InitialEvent, RoomCreator, RoomTemplate
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.room_linker import RoomLinker

#: The state of such a chat: nobody else comes in, and who enters later reads what was said before.
_PRIVATE: tuple[InitialEvent, ...] = (
    ("m.room.join_rules", "", {"join_rule": "invite"}),
    ("m.room.history_visibility", "", {"history_visibility": "shared"}),
    ("m.room.guest_access", "", {"guest_access": "forbidden"}),
)
_INVITED = {"membership": "invite", "is_direct": True}
#: Seconds for a chat to be made; then the notice is in the room.
_CREATE_TIMEOUT_S = 10.0
_INSIDE = frozenset({Membership.JOIN, Membership.INVITE})


class NoticeRooms:
    """Tells people something, each alone where that can be."""

    def __init__(
        self, own: LocalServer, creator: RoomCreator, linker: RoomLinker, local_events: LocalEvents
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._creator = creator
        self._linker = linker
        self._local_events = local_events
        #: One chat is made for each person, however many notices there are.
        self._making = KeyLocks()

    async def tell(self, room_id: str, user: str, text: str) -> None:
        """Tells a user something about a room. Raises LocalProtocolError where the bridge user may not write
        there either.
        """
        view = self._ctx.get_view(room_id)
        facts = view.facts if view is not None else None
        place = (facts.name if facts is not None else "") or room_id
        chat = await self._chat_with(user)
        if chat is not None:
            await self._local_events.send_notice(chat, f"{place}: {text}")
            return
        name = view.name_of(NativeId(self._ctx.id, user)) if view is not None else user
        await self._local_events.send_notice(room_id, f"{name}: {text}", [user])

    async def _chat_with(self, user: str) -> str | None:
        """The chat of the bridge user with a user, made if it may be; None if there is none."""
        async with self._making.hold_key(user):
            found, left = self._find_chat(user)
            local = ids.domain_of(user) == self._own.server
            if found is not None or left or not local:
                return found
            try:
                async with asyncio.timeout(_CREATE_TIMEOUT_S):
                    return await self._create_chat(user)
            except (LocalProtocolError, Conflict, TimeoutError) as problem:
                self._ctx.log.info("there is no chat of the bridge with %s: %s", user, problem)
                return None

    def _find_chat(self, user: str) -> tuple[str | None, bool]:
        """The chat of the two, and whether the user has left one: who has wants no other."""
        mine, left = NativeId(self._ctx.id, user), False
        bridge = NativeId(self._ctx.id, self._own.bridge_user)
        for link in self._ctx.list_links():
            view = self._ctx.get_view(link.native.id)
            if view is None or not view.people.keys() <= {mine, bridge} or view.facts.encrypted:
                continue
            if view.facts.join_rule != "invite" or view.membership(bridge) is not Membership.JOIN:
                continue
            if view.membership(mine) in _INSIDE:
                return link.native.id, False
            left = left or view.membership(mine) is not None
        return None, left

    async def _create_chat(self, user: str) -> str:
        bridge, version = self._own.bridge_user, self._ctx.config.room_version
        template = RoomTemplate(
            member={"displayname": self._ctx.config.bridge_name},
            then=_PRIVATE,
            invited={user: {"is_direct": True}},
        )
        room = await self._creator.create(bridge, version, "", template)
        await self._linker.link_room(room)
        invited = Member(user=NativeId(self._ctx.id, user), membership=Membership.INVITE)
        refusal = await self._local_events.send_membership(bridge, room.room_id, invited, user, _INVITED)
        if refusal is not None:
            raise LocalProtocolError(refusal.text)
        return room.room_id
