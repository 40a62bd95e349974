"""The children of a message that shows an event of the log.

SPEC: XEP-0045 section 7.4; what a message says about an earlier one is in ``proto/targeted.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from hansa import Content, Edit, Event, Message, NativeId, Style

from hansa_xmpp.proto import convert
from hansa_xmpp.proto.convert import MAX_TEXT, Body
from hansa_xmpp.proto.payload import is_whole, payload_xml
from hansa_xmpp.proto.targeted import correction_xml, quote_for, reply_xml

#: Returns the nick under which a room knows a user.
NickOf = Callable[[NativeId], str]


def message_xml(
    event: Event, content: Content, target: Event | None, *, room: str, network: str, nick_of: NickOf
) -> str | None:
    """The children that show ``content``, the event's own or what stands for it; None where there is nothing
    to show. ``target`` is the message that it is about. What came from a user of ``network`` with a payload
    is shown as it came.
    """
    own, replaced = event.origin.network == network, ""
    if isinstance(content, Edit):
        replaced = correction_xml(shown_id(target, network)) if target is not None else ""
        content = content.message
    payload = event.payload if own else b""
    if is_whole(payload):
        return payload_xml(payload) + replaced
    body = convert.body_from_content(content, own=own)
    if body is None:
        return None
    if not payload and isinstance(content, Message) and content.reply_to and target is not None:
        return _reply_xml(content, body, target, room, nick_of) + replaced
    return body.to_xml() + (payload_xml(payload) if payload else "") + replaced


def _reply_xml(content: Message, body: Body, target: Event, room: str, nick_of: NickOf) -> str:
    nick = nick_of(target.sender)
    quote = "" if content.style is Style.EMOTE else quote_for(target, nick)
    if len((quote + body.text).encode()) > MAX_TEXT:
        quote = ""
    said = Body(quote + body.text, body.unstyled)
    return said.to_xml() + reply_xml(target.id, f"{room}/{nick}", len(quote))


def shown_id(event: Event, network: str) -> str:
    """The id of the message that showed an event: its sender's, or the event's."""
    chosen = convert.stanza_ids_of(event.origin.id).id if event.origin.network == network else ""
    return chosen or event.id
