"""One-to-one messages between an XMPP user and the puppet of a person of another network.

A direct chat is the link ``PUPPET/USER``, two bare JIDs: the puppet's, an address of this component, and the
user's. SPEC: RFC 6121 section 5.2.2 (messages of type ``chat``), section 8.3 of RFC 6120 (errors).
"""

from __future__ import annotations

from dataclasses import replace

from hansa import (
    Busy,
    CannotOpenRoom,
    Delivery,
    Encrypted,
    LocalProtocolError,
    Membership,
    Message,
    NativeId,
    NetworkContext,
    Refusal,
    RefusalCode,
    RetryLater,
    StoreFault,
    Style,
    Submission,
    TokenBuckets,
    refusal_by,
)

from hansa_xmpp.proto import convert, errors, jid, render
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import MAX_ID, NS_SID, Stanza
from hansa_xmpp.service import MucService
from hansa_xmpp.transport import NotConnected, Transport

#: New chats of one user and of all users of one domain: per second, and at once.
_USER_RATE, _MAX_OF_USER, _DOMAIN_RATE, _MAX_OF_DOMAIN = 1 / 30, 10.0, 1.0, 100.0
#: Notices in one chat that a message was not delivered.
_NOTICE_RATE, _MAX_NOTICES = 1 / 60, 3.0
_FAULT = (errors.RESOURCE_CONSTRAINT, "the storage of this server fails")


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
        refused = await self._refused(stanza)
        if refused is not None:
            if len(stanza.id.encode()) > MAX_ID:
                stanza = replace(stanza, id="")
            self._ctx.count("xmpp_refused", why=refused[0].name)
            self._service.send_stanzas(errors.error_reply(stanza, *refused))

    async def _refused(self, stanza: Stanza) -> tuple[Condition, str] | None:
        """Submits a message; why it is refused."""
        if stanza.type not in {"chat", "normal", ""}:
            return errors.BAD_REQUEST, "this is the address of a person, not of a room"
        ids = convert.parse_ids(stanza)
        if len(stanza.id.encode()) > MAX_ID or len(ids.origin.encode()) > MAX_ID:
            return errors.BAD_REQUEST, f"the id has over {MAX_ID} bytes"
        if len((stanza.text_of("body") or "").encode()) > convert.MAX_TEXT:
            return errors.POLICY_VIOLATION, f"the body has over {convert.MAX_TEXT} bytes"
        content = convert.content_of(stanza)
        if isinstance(content, Encrypted):
            return errors.NOT_ACCEPTABLE, "chats with other networks are not encrypted: turn encryption off"
        if not isinstance(content, Message):
            self._ctx.count("xmpp_ignored", why="no words")
            return None
        user, chat = NativeId(self._ctx.id, stanza.sender.bare), chat_id(stanza.to.bare, stanza.sender.bare)
        try:
            await self._open(chat, user, stanza.to.bare)
            refusal = await self._submit(chat, user, content, ids, stanza)
        except CannotOpenRoom as error:
            refusal = error.refusal
        except Busy as busy:
            return errors.RESOURCE_CONSTRAINT, busy.reason
        except StoreFault:
            return _FAULT
        except LocalProtocolError:
            self._ctx.log.exception("not submitted")
            return errors.INTERNAL, ""
        return None if refusal is None else (errors.BY_REFUSAL[refusal.code], refusal.text)

    async def _open(self, chat: str, user: NativeId, puppet: str) -> None:
        """Opens the chat if there is none. Raises ``CannotOpenRoom``."""
        other = jid.person(puppet, self._ctx.config.component) or await self._ctx.home_of(puppet)
        if other.network == self._ctx.id:
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text="nobody has this address"))
        if self._ctx.get_link(chat) is None:
            domain = jid.domain_of(user.id)
            if self._of_user.take(user.id) or self._of_domain.take(domain):
                text = "too many new chats; try again later"
                raise CannotOpenRoom(Refusal(code=RefusalCode.RATE, text=text, retry_after=30.0))
        await self._ctx.open_direct_chat(chat, user.id, other)

    async def _submit(
        self, chat: str, user: NativeId, content: Message, ids: convert.StanzaIds, stanza: Stanza
    ) -> Refusal | None:
        submission = Submission(
            origin=NativeId(self._ctx.id, convert.submission_id(self._ctx.random.bytes(12).hex(), ids)),
            room=NativeId(self._ctx.id, chat),
            sender=user,
            content=content,
            ts=self._ctx.clock.now(),
            chosen_ids=tuple(dict.fromkeys(filter(None, (ids.origin, ids.id)))),
        )
        if self._ctx.has_policies:
            submission = replace(submission, native=convert.ParsedMessage(convert.texts_of(stanza)))
        (outcome,) = await self._ctx.submit([submission])
        if outcome.refusal is None and not outcome.verdict.allowed:
            return refusal_by(outcome.verdict)
        return outcome.refusal

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
            await self._submit(chat, user, content, convert.StanzaIds(), stanza)
        except (Busy, StoreFault, LocalProtocolError) as error:
            self._ctx.log.warning("%s: %s", text, error)

    async def deliver(self, delivery: Delivery) -> str:
        """One event of a chat's log to its user; the id of the message that was sent, empty where nothing
        was. Raises ``RetryLater``.
        """
        native, event = delivery.link.native.id, delivery.event
        puppet, _, user = native.partition("/")
        view = self._ctx.get_view(native)
        inside = view is not None and view.membership(NativeId(self._ctx.id, user)) in {
            Membership.JOIN,
            Membership.INVITE,
        }
        if not inside:
            self._ctx.count("xmpp_dropped", why="not in the chat")
            return ""
        content = delivery.content
        if isinstance(content, Message) and jid.puppet(event.sender, self._ctx.config.component) != puppet:
            content = replace(content, text=f"<{event.sender.id}> {content.text}", spans=())
        body = convert.body_from_content(content)
        if body is None:
            return ""
        inner = body.to_xml() + xml_element("origin-id", NS_SID, id=event.id)
        message = render.stanza("message", puppet, [user], inner, type_="chat", id_=event.id)
        if not self._service.up:
            raise RetryLater("the component is not connected")
        try:
            self._transport.send([message])
        except NotConnected as error:
            raise RetryLater(str(error)) from None
        await self._transport.wait_drained()
        return event.id
