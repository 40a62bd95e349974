"""The occupants that people of other networks have in rooms elsewhere.

A person gets one when they first speak. The listener speaks for those who have none: where there are
``muc_puppets`` already, where the room does not let theirs in, and where it removed theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hansa import DeliveryRejected, LruCache, NativeId, NetworkContext, RoomView

from hansa_xmpp.foreign_session import NO_HISTORY, EntryRefused, ForeignSession, Occupancy, enter_room
from hansa_xmpp.foreign_store import ForeignStore, StoredPuppet
from hansa_xmpp.proto import render
from hansa_xmpp.proto.nick import nick_for
from hansa_xmpp.proto.render import OutboundStanza

#: The resource of every address in a room elsewhere.
RESOURCE = "hansa"
#: Nicks that are tried, and seconds until a person who was not let in is tried again.
_MAX_NICKS, _REFUSED_S = 4, 300.0
_MAX_REFUSED = 1000


class ForeignPuppets:
    """The puppets of one component."""

    def __init__(
        self,
        ctx: NetworkContext,
        store: ForeignStore,
        say: Callable[[Iterable[OutboundStanza]], None],
    ) -> None:
        self._ctx = ctx
        self._store = store
        self._say = say
        #: People who were removed and have not asked to come back, by room.
        self.removed: set[tuple[str, NativeId]] = set()
        #: Those of them that the room banned: nobody speaks for them.
        self.banned: set[tuple[str, NativeId]] = set()
        self._refused: LruCache[tuple[str, NativeId], float] = LruCache(_MAX_REFUSED)

    async def load(self, session: ForeignSession) -> None:
        """Reads the puppets that a room may have."""
        for kept in await self._store.puppets(session.room):
            if kept.removed:
                self.removed.add((session.room, kept.person))
            if kept.banned:
                self.banned.add((session.room, kept.person))
            if kept.nick:
                session.state.own.former_nicks.add(kept.nick)
            if kept.occupant:
                session.state.own.occupant_ids.add(kept.occupant)

    async def speaker(self, session: ForeignSession, person: NativeId) -> Occupancy:
        """The occupant that speaks for a person: their own, or the listener. Raises ``DeliveryRejected`` for
        a person that the room banned.
        """
        if (session.room, person) in self.banned:
            raise DeliveryRejected(f"{session.room} has banned this person")
        occupancy = session.puppets.get(person)
        if occupancy is not None and occupancy.inside:
            return occupancy
        key = (session.room, person)
        inside = sum(one.inside for one in session.puppets.values())
        recent = self._ctx.clock.monotonic() - (self._refused.get(key) or -_REFUSED_S) < _REFUSED_S
        if key in self.removed or recent or inside >= self._ctx.config.muc_puppets:
            return session.listener
        try:
            return await self._enter(session, person)
        except EntryRefused as refused:
            self._refused.put(key, self._ctx.clock.monotonic())
            if refused.condition == "forbidden":  # XEP-0045 section 7.2.7
                await self.on_removed(session, person, banned=True)
                raise DeliveryRejected(f"{session.room} has banned this person: {refused}") from None
            session.drop_occupancy(person)
            self._ctx.count("xmpp_foreign_puppets_refused", why=refused.condition)
            self._ctx.log.info("%s is not let into %s: %s", person, session.room, refused)
            return session.listener

    async def _enter(self, session: ForeignSession, person: NativeId) -> Occupancy:
        occupancy = session.puppets.get(person)
        if occupancy is None:
            bare = await self._ctx.get_ghost_id(person)
            occupancy = Occupancy(f"{bare}/{RESOURCE}", person)
            session.add_occupancy(occupancy)
        taken = {nick for nick, one in session.state.occupants.items() if not one.ours}
        taken |= {one.nick for one in session.addresses.values() if one is not occupancy and one.inside}
        name = name_of(self._ctx.get_view(session.room), person)
        for number in range(_MAX_NICKS):
            nick = nick_for(person, name, taken.__contains__)
            session.state.own.nicks.add(nick)
            try:
                presence = await enter_room(session.room, occupancy, nick, self._say, NO_HISTORY)
            except EntryRefused as refused:
                session.state.disown(nick)
                if refused.condition != "conflict" or number + 1 == _MAX_NICKS:
                    raise
                taken.add(nick)
            else:
                session.state.own.nicks.add(presence.nick)
                named = presence.occupant_id if session.state.traits.occupant_ids else ""
                if named:
                    session.state.own.occupant_ids.add(named)
                stored = StoredPuppet(person=person, nick=presence.nick, occupant=named)
                await self._store.put_puppet(session.room, stored)
                return occupancy
        raise EntryRefused("conflict", "all nicks are in use")

    def leave(self, session: ForeignSession, person: NativeId, reason: str = "") -> None:
        """A person is not in the room any more."""
        occupancy = session.puppets.get(person)
        if occupancy is None or not occupancy.inside:
            return
        occupancy.inside = False
        status = render.xml_element("status", "", render.xml_text(reason)) if reason else ""
        to = [f"{session.room}/{occupancy.nick}"]
        self._say([render.stanza("presence", occupancy.address, to, status, type_="unavailable")])

    def leave_all(self, session: ForeignSession) -> None:
        """The room is not linked any more."""
        for person in list(session.puppets):
            self.leave(session, person, "the room is no longer linked")
        listener = session.listener
        to = [f"{session.room}/{listener.nick}"]
        self._say([render.stanza("presence", listener.address, to, type_="unavailable")])

    async def on_removed(self, session: ForeignSession, person: NativeId, *, banned: bool = False) -> None:
        """The room removed the puppet of a person: the listener speaks for them until they ask, or nobody if
        they are banned.
        """
        if banned:
            self.banned.add((session.room, person))
        self.removed.add((session.room, person))
        occupancy = session.puppets[person]
        stored = StoredPuppet(person=person, nick=occupancy.nick, removed=True, banned=banned)
        await self._store.put_puppet(session.room, stored)

    async def ask_back(self, room: str, person: NativeId) -> bool:
        """A person wants their own occupant again; False if nothing kept them from it."""
        self._refused.pop((room, person))
        if (room, person) not in self.removed:
            return False
        self.removed.discard((room, person))
        self.banned.discard((room, person))
        await self._store.put_puppet(room, StoredPuppet(person=person, nick=""))
        return True


def name_of(view: RoomView | None, person: NativeId) -> str:
    """What a person of another network is called in a room."""
    found = view.person(person) if view is not None else None
    return (found.name or "") if found is not None else ""
