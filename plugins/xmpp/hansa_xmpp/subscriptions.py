"""Requests of XMPP users for the presence of puppets, and the presence that they are sent.

A request is answered and not stored: the user's server has the subscription, and asks again at each login. A
puppet's presence is coarse: show without status, and only if the setting ``puppet_presence`` is on.

SPEC: RFC 6121 section 3 (subscriptions), section 4.3 (probes).
"""

from __future__ import annotations

from hansa import (
    Busy,
    CannotOpenRoom,
    LocalProtocolError,
    LruCache,
    Membership,
    NativeId,
    NetworkContext,
    PersonPresence,
    PresenceState,
    StoreFault,
    TokenBuckets,
)

from hansa_xmpp.proto import jid
from hansa_xmpp.proto.presence_xml import OccupantPresence, puppet_presence
from hansa_xmpp.proto.render import stanza as make_stanza
from hansa_xmpp.proto.stanza import Stanza
from hansa_xmpp.service import MucService
from hansa_xmpp.submissions import find_person

#: Requests and probes of one user and of all users of one domain: per second, and at once.
_USER_RATE, _MAX_OF_USER, _DOMAIN_RATE, _MAX_OF_DOMAIN = 0.2, 50.0, 5.0, 500.0
#: Presences of puppets that are remembered, by room and person, and users who wait for presence.
MAX_PUPPET_PRESENCES, _MAX_SUBSCRIBERS = 10_000, 10_000
#: The resource of a puppet.
_RESOURCE = "hansa"


class Subscriptions:
    """The subscriptions to the puppets of one component."""

    def __init__(self, ctx: NetworkContext, service: MucService) -> None:
        self._ctx = ctx
        self._service = service
        self._of_user = TokenBuckets(ctx.clock, _USER_RATE, _MAX_OF_USER)
        self._of_domain = TokenBuckets(ctx.clock, _DOMAIN_RATE, _MAX_OF_DOMAIN)
        #: The last presence of a person of another network in a room or chat.
        self._shown: LruCache[tuple[str, NativeId], PersonPresence] = LruCache(MAX_PUPPET_PRESENCES)
        #: Puppets and users, as ``chat_id`` names their chat, who have asked for the puppet's presence.
        self._subscribers: LruCache[str, None] = LruCache(_MAX_SUBSCRIBERS)

    async def handle_stanza(self, chat: str, asked: Stanza) -> None:
        """A presence of a user to a puppet; ``chat`` is the native id of their direct chat."""
        user, puppet = asked.sender.bare, asked.to.bare
        if asked.type not in {"subscribe", "unsubscribe", "probe"}:
            self._ctx.count("xmpp_ignored", why="presence type")
        elif self._of_user.take(user) or self._of_domain.take(jid.domain_of(user)):
            self._ctx.count("xmpp_dropped", why="presence")
        elif asked.type == "unsubscribe":
            self._subscribers.pop(chat)
            self._send(puppet, user, "unsubscribed")
        else:
            await self._answer(chat, asked)

    def note_presence(self, native: str, presence: PersonPresence) -> None:
        """Remembers what a person of another network is in a room or chat, and tells the user of the chat who
        has asked for it.
        """
        if not self._ctx.config.puppet_presence:
            return
        self._shown.put((native, presence.user), presence)
        if native in self._subscribers:
            puppet, _, user = native.partition("/")
            self._send_presence(puppet, user, presence)

    async def _answer(self, chat: str, asked: Stanza) -> None:
        user, puppet = NativeId(self._ctx.id, asked.sender.bare), asked.to.bare
        try:
            other = await find_person(self._ctx, puppet)
            if asked.type == "subscribe":
                is_let_in = other.network != self._ctx.id and await self._may_subscribe(chat, user, other)
                self._send(puppet, user.id, "subscribed" if is_let_in else "unsubscribed")
                if not is_let_in:
                    return
        except (Busy, StoreFault, LocalProtocolError) as error:
            self._ctx.log.warning("the request of %s for presence is not answered: %s", user, error)
            return
        if self._ctx.config.puppet_presence:
            self._subscribers.put(chat, None)
            self._send_presence(puppet, user.id, self._find_presence(user, other))

    async def _may_subscribe(self, chat: str, user: NativeId, other: NativeId) -> bool:
        """True if the setting allows it and the user could have a direct chat with the person."""
        if not self._ctx.config.answer_subscriptions:
            return False
        try:
            await self._ctx.require_direct_chat(chat, other, user.id)
        except CannotOpenRoom:
            return False
        return True

    def _find_presence(self, user: NativeId, other: NativeId) -> PersonPresence | None:
        """The last presence of a person in a room or chat in which the user is too."""
        for (native, person), presence in self._shown.items():
            view = self._ctx.get_view(native) if person == other else None
            if view is not None and view.membership(user) is Membership.JOIN:
                return presence
        return None

    def _send_presence(self, puppet: str, user: str, presence: PersonPresence | None) -> None:
        sender = f"{puppet}/{_RESOURCE}"
        if presence is None or presence.state is PresenceState.OFFLINE:
            self._send(sender, user, "unavailable")
        else:
            self._send(sender, user, "", puppet_presence(presence).without_texts)

    def _send(self, sender: str, user: str, type_: str, presence: OccupantPresence | None = None) -> None:
        inner = presence.xml if presence is not None else ""
        self._service.send_stanzas([make_stanza("presence", sender, [user], inner, type_=type_)])
