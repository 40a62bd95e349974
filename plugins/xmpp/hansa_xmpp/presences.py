"""Presence of the occupants of hosted MUCs and of people of other networks, in both directions. Nothing of it
is stored.

SPEC: XEP-0045 section 7.7 (changing one's availability status); RFC 6121 section 4.7.2.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from hansa import NativeId, NetworkContext, PersonPresence, Presence, PresenceState, StoreFault, TokenBuckets

from hansa_xmpp.proto import convert, jid
from hansa_xmpp.proto.commands import JoinRequest, PresenceUpdate
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.presence_xml import choose_presence, person_presence, puppet_presence, without_status
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stanza import Stanza

#: The presences of one person in one room, and of all in one room: per second, and at once.
_PERSON_RATE, _MAX_OF_PERSON, _ROOM_RATE, _MAX_OF_ROOM = 0.2, 10.0, 20.0, 200.0


class OccupantPresences:
    """The presences of one component. What is over the rates is dropped and counted."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._of_person = TokenBuckets(ctx.clock, _PERSON_RATE, _MAX_OF_PERSON)
        self._of_room = TokenBuckets(ctx.clock, _ROOM_RATE, _MAX_OF_ROOM)
        #: The policies that judged the presences of each room.
        self._generations: dict[str, int] = {}

    async def take_update(self, muc: Muc, update: PresenceUpdate) -> list[OutboundStanza]:
        """Takes another presence of an occupant, if the policies let it in: what everybody is sent."""
        if self._of_person.take(f"{muc.room} {update.user}") or self._of_room.take(muc.room):
            self._ctx.count("xmpp_dropped", why="presence")
            return []
        occupant, full = muc.roster.by_user(update.user), update.stanza.sender.full
        if occupant is None or not await self._is_let_in(update.stanza, update.user):
            return []
        whole = choose_presence([*(p for f, p in occupant.presences.items() if f != full), update.presence])
        told = person_presence(update.user, whole, self._ctx.clock.now())
        if not await self._ctx.send_presence(told, muc.room):
            return []
        return muc.update_presence(update.user, update.presence, full)

    async def judge_join(self, muc: Muc, enter: JoinRequest) -> JoinRequest:
        """Tells other networks that an occupant is here, and returns the join without the texts that the
        policies do not let in.
        """
        self._forget_judged(muc)
        occupant = muc.roster.by_user(enter.user)
        others = occupant.presences.values() if occupant is not None else ()
        told = person_presence(enter.user, choose_presence([*others, enter.presence]), self._ctx.clock.now())
        if await self._is_let_in(enter.stanza, enter.user) and await self._ctx.send_presence(told, muc.room):
            return enter
        return replace(enter, presence=enter.presence.without_texts)

    async def judge_leave(self, stanza: Stanza, user: NativeId) -> Stanza:
        """Returns a presence of type unavailable, without a status that the policies do not let in."""
        if stanza.child("status") is None or await self._is_let_in(stanza, user):
            return stanza
        return without_status(stanza)

    async def tell_closed(self, muc: Muc, user: NativeId) -> None:
        """Tells other networks what an occupant is without a connection that was closed."""
        occupant, now = muc.roster.by_user(user), self._ctx.clock.now()
        told = PersonPresence(user=user, state=PresenceState.OFFLINE, since=now)
        if occupant is not None:
            told = person_presence(user, occupant.presence, now)
        with suppress(StoreFault):  # the next presence is told again
            await self._ctx.send_presence(told, muc.room)

    def take_puppet(self, muc: Muc, presence: PersonPresence) -> list[OutboundStanza]:
        """Takes the presence of a person of another network: what everybody is sent."""
        self._forget_judged(muc)
        return muc.update_presence(presence.user, puppet_presence(presence))

    def _forget_judged(self, muc: Muc) -> None:
        generation = self._ctx.policy_generation
        if self._generations.setdefault(muc.room, generation) != generation:
            self._generations[muc.room] = generation
            if self._ctx.has_policies:
                muc.forget_presence_texts()

    async def _is_let_in(self, stanza: Stanza, user: NativeId) -> bool:
        """True if the policies let in all that a presence says."""
        if not self._ctx.has_policies:
            return True
        crossing = Presence(
            network=self._ctx.id,
            user=user,
            user_server=jid.domain_of(user.id),
            texts=tuple(convert.texts_of(stanza)),
        )
        if (await self._ctx.check(crossing)).allowed:
            return True
        self._ctx.count("xmpp_dropped", why="presence")
        return False
