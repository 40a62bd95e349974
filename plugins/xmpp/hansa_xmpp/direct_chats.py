"""One-to-one messages between an XMPP user and the puppet of a person of another network.

A direct chat is the link ``PUPPET/USER``, two bare JIDs: the puppet's, an address of this component, and the
user's. SPEC: RFC 6121 section 5.2.2 (messages of type ``chat``), section 8.3 of RFC 6120 (errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hansa import (
    Busy,
    CannotOpenRoom,
    Content,
    Delivery,
    Encrypted,
    Event,
    LocalProtocolError,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    NetworkContext,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    Retraction,
    RetryLater,
    StoreFault,
    Style,
    Submission,
    TokenBuckets,
    Topic,
)

from hansa_xmpp.proto import convert, errors, jid, render
from hansa_xmpp.proto.commands import GroupchatMessage
from hansa_xmpp.proto.errors import StanzaRefusal
from hansa_xmpp.proto.message_xml import message_xml, shown_id
from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import MAX_ID, NS_SID, Stanza
from hansa_xmpp.proto.targeted import (
    Correction,
    ReactionSet,
    Reply,
    RetractionRequest,
    parse_targeted,
    reactions_xml,
    retraction_xml,
)
from hansa_xmpp.service import MucService, get_delivered_part
from hansa_xmpp.submissions import find_person, make_submission, with_policy_texts
from hansa_xmpp.targets import TargetRefused
from hansa_xmpp.transport import NotConnected, Transport

#: New chats of one user and of all users of one domain: per second, and at once.
_USER_RATE, _MAX_OF_USER, _DOMAIN_RATE, _MAX_OF_DOMAIN = 1 / 30, 10.0, 1.0, 100.0
#: Chats of one user, and of all users of one domain, to which the other person is invited and has not come.
MAX_UNANSWERED, MAX_UNANSWERED_OF_DOMAIN = 20, 1000
#: Notices in one chat that a message was not delivered.
_NOTICE_RATE, _MAX_NOTICES = 1 / 60, 3.0
#: Who is in a chat.
_IN = frozenset({Membership.JOIN, Membership.INVITE})


def chat_id(puppet: str, user: str) -> str:
    """The native id of the direct chat of two bare JIDs."""
    return f"{puppet}/{user}"


def is_chat_id(native: str) -> bool:
    """True for the id of a direct chat; rooms are bare JIDs."""
    return "/" in native


def is_puppet(local: str) -> bool:
    """True for the local part of a puppet's address: see ``proto/jid.py``. Rooms have no such names."""
    return "%" in local or local.startswith("^-")


class DirectChats:
    """The direct chats of one component."""

    def __init__(self, ctx: NetworkContext, transport: Transport, service: MucService) -> None:
        self._ctx = ctx
        self._transport = transport
        self._service = service
        self._of_user = TokenBuckets(ctx.clock, _USER_RATE, _MAX_OF_USER)
        self._of_domain = TokenBuckets(ctx.clock, _DOMAIN_RATE, _MAX_OF_DOMAIN)
        self._notices = TokenBuckets(ctx.clock, _NOTICE_RATE, _MAX_NOTICES)

    async def handle_stanza(self, stanza: Stanza) -> None:
        """A message of a user to a puppet. What is refused is answered with an error."""
        if stanza.type == "error":
            await self._report_undelivered(stanza)
            return
        refused = await self.submit_message(stanza)
        if refused is not None:
            self._service.refuse_stanza(stanza, *refused)

    async def submit_message(self, stanza: Stanza) -> StanzaRefusal | None:
        """Submits a message of a user to a puppet; returns why it is refused."""
        if stanza.type not in {"chat", "normal", ""}:
            return errors.BAD_REQUEST, "this is the address of a person, not of a room"
        ids = convert.parse_ids(stanza)
        if len(stanza.id.encode()) > MAX_ID or len(ids.origin.encode()) > MAX_ID:
            return errors.BAD_REQUEST, f"the id has over {MAX_ID} bytes"
        if len((stanza.text_of("body") or "").encode()) > convert.MAX_TEXT:
            return errors.POLICY_VIOLATION, f"the body has over {convert.MAX_TEXT} bytes"
        try:
            about = parse_targeted(stanza)
        except RemoteProtocolError as error:
            return errors.NOT_ACCEPTABLE, error.reason
        content = None
        if not isinstance(about, ReactionSet | RetractionRequest):
            content = convert.content_of(stanza, self._ctx.id)
        if isinstance(content, Encrypted):
            return errors.NOT_ACCEPTABLE, "chats with other networks are not encrypted: turn encryption off"
        if about is None and not isinstance(content, Message):
            self._ctx.count("xmpp_ignored", why="no words")
            return None
        user, chat = NativeId(self._ctx.id, stanza.sender.bare), chat_id(stanza.to.bare, stanza.sender.bare)
        answer = convert.message_of(stanza, about.body, self._ctx.id) if isinstance(about, Reply) else None
        try:
            await self._open(chat, user, stanza.to.bare)
            if about is not None and not isinstance(about, Correction):
                about = replace(about, id=await self._event_id(chat, user, about.id))
            said = GroupchatMessage(stanza, user, content, ids, about, answer)
            resolved = await self._service.targets.resolve_message(chat, said)
            refusal = await self._submit(said, chat, resolved.contents)
        except TargetRefused as refused:
            return refused.condition, refused.text
        except CannotOpenRoom as error:
            refusal = error.refusal
        except Busy as busy:
            return errors.RESOURCE_CONSTRAINT, busy.reason
        except StoreFault:
            return errors.STORE_FAULT
        except LocalProtocolError:
            self._ctx.log.exception("not submitted")
            return errors.INTERNAL, ""
        return None if refusal is None else (errors.BY_REFUSAL[refusal.code], refusal.text)

    async def _event_id(self, chat: str, user: NativeId, message_id: str) -> str:
        """The core's id of a message of a chat: what was sent to the user has it, and what the user sent has
        the id that their client gave it.
        """
        if await self._ctx.event_with_id(chat, message_id.partition(".")[0]) is not None:
            return message_id
        event = await self._ctx.event_by_chosen_id(chat, user, message_id)
        return message_id if event is None else event.id

    async def _open(self, chat: str, user: NativeId, puppet: str) -> None:
        """Opens the chat if there is none. Raises ``CannotOpenRoom``."""
        other = await find_person(self._ctx, puppet)
        if other.network == self._ctx.id:
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text="nobody has this address"))
        if not self._is_open(chat, user, other):
            self._require_few_new(user)
        await self._ctx.open_direct_chat(chat, user.id, other)

    def _is_open(self, chat: str, user: NativeId, other: NativeId) -> bool:
        """True if a message makes no room and invites nobody: both are in the chat, or invited."""
        view = self._ctx.get_view(chat)
        return view is not None and all(view.membership(one) in _IN for one in (user, other))

    def _require_few_new(self, user: NativeId) -> None:
        """Raises ``CannotOpenRoom`` where a user, or their domain, invites too many."""
        domain = jid.domain_of(user.id)
        if self._of_user.take(user.id) or self._of_domain.take(domain):
            text = "too many new chats; try again later"
            raise CannotOpenRoom(Refusal(code=RefusalCode.RATE, text=text, retry_after=30.0))
        mine = of_domain = 0
        for link in self._ctx.list_links():
            _, is_chat, who = link.native.id.partition("/")
            if is_chat and jid.domain_of(who) == domain and self._is_unanswered(link.native.id):
                of_domain += 1
                mine += who == user.id
        if mine >= MAX_UNANSWERED or of_domain >= MAX_UNANSWERED_OF_DOMAIN:
            text = "too many chats that nobody has answered; wait until someone does"
            raise CannotOpenRoom(Refusal(code=RefusalCode.RATE, text=text, retry_after=3600.0))

    def _is_unanswered(self, chat: str) -> bool:
        view = self._ctx.get_view(chat)
        people = () if view is None else view.people.values()
        others = {one.membership for one in people if one.user.network != self._ctx.id}
        return Membership.INVITE in others and Membership.JOIN not in others

    async def _submit(self, said: GroupchatMessage, chat: str, contents: Sequence[Content]) -> Refusal | None:
        """Submits what a message means; the first refusal. The message's ids go with the last content."""
        items = list[Submission]()
        for content in contents:
            ids = said.ids if content is contents[-1] else convert.StanzaIds()
            named = tuple(dict.fromkeys(filter(None, (ids.origin, ids.id))))
            inbound = make_submission(self._ctx, chat, said.user, content, ids)
            items.append(with_policy_texts(self._ctx, replace(inbound, chosen_ids=named), said.stanza))
        return next(filter(None, (outcome.refused for outcome in await self._ctx.submit(items))), None)

    async def _report_undelivered(self, stanza: Stanza) -> None:
        """The user's server could not deliver a message: says so in the chat."""
        chat = chat_id(stanza.to.bare, stanza.sender.bare)
        if self._ctx.get_link(chat) is None or self._notices.take(chat):
            self._ctx.count("xmpp_ignored", why="error")
            return
        self._ctx.count("xmpp_undelivered", why=stanza.condition[:40])
        text = f"{stanza.sender.bare} did not get a message: {stanza.condition or 'undefined-condition'}"
        content = Message(text=text, style=Style.NOTICE)
        user = NativeId(self._ctx.id, stanza.sender.bare)
        try:
            await self._submit(GroupchatMessage(stanza, user, content), chat, [content])
        except (Busy, StoreFault, LocalProtocolError) as error:
            self._ctx.log.warning("%s: %s", text, error)

    async def deliver(self, delivery: Delivery) -> str:
        """One event of a chat's log to its user; the id of the message that was sent, empty where nothing
        was. Raises ``RetryLater``.
        """
        native = delivery.link.native.id
        puppet, _, user = native.partition("/")
        view = self._ctx.get_view(native)
        inside = view is not None and view.membership(NativeId(self._ctx.id, user)) in _IN
        if not inside:
            self._ctx.count("xmpp_dropped", why="not in the chat")
            return ""
        content, target = await self._service.targets.shown_content(delivery)
        event = get_delivered_part(delivery)
        inner = None if content is None else self._message_xml(event, content, target, native)
        if inner is None:
            return ""
        inner += xml_element("origin-id", NS_SID, id=event.id)
        message = render.stanza("message", puppet, [user], inner, type_="chat", id_=event.id)
        if not self._service.up:
            raise RetryLater("the component is not connected")
        try:
            self._transport.send([message])
        except NotConnected as error:
            raise RetryLater(str(error)) from None
        await self._transport.wait_drained()
        return delivery.event.id

    def _message_xml(
        self, event: Event, content: Content | ReactionSet, target: Event | None, native: str
    ) -> str | None:
        """The children of a message that shows an event to the chat's user; None where nothing shows it. A
        message of a chat is named by the id that its sender gave it.
        """
        puppet = native.partition("/")[0]
        name = "" if target is None else shown_id(target, self._ctx.id)
        if isinstance(content, ReactionSet):
            return reactions_xml(replace(content, id=name))
        if isinstance(content, Retraction):
            return retraction_xml(name, content.reason)
        if isinstance(content, Member | Name | Topic):
            return None
        if isinstance(content, Message) and self._puppet_of(event.sender) != puppet:
            content = replace(content, text=f"<{event.sender.id}> {content.text}", spans=())
        if target is not None and isinstance(content, Message):
            target = replace(target, id=name)
        return message_xml(
            event,
            content,
            target,
            room=puppet,
            network=self._ctx.id,
            nick_of=lambda user: user.id,
            link_of=lambda file: self._ctx.media.link(file, native, event.id.partition(".")[0]),
        )

    def _puppet_of(self, user: NativeId) -> str:
        return jid.address_of(user, self._ctx.id, self._ctx.config.component)
