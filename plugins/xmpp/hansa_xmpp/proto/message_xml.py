"""The children of a message that shows an event of the log.

SPEC: XEP-0045 section 7.4; what a message says about an earlier one is in ``proto/targeted.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from hansa import (
    Attachment,
    Content,
    Edit,
    Event,
    Message,
    NativeId,
    SpanKind,
    Style,
    Surroundings,
    fallback_text,
)

from hansa_xmpp.proto import convert, jid
from hansa_xmpp.proto.convert import MAX_TEXT, Body
from hansa_xmpp.proto.fallbacks import fallback_xml
from hansa_xmpp.proto.files import NS_FILES, file_xml, oob_xml
from hansa_xmpp.proto.mentions import references_xml
from hansa_xmpp.proto.payload import is_whole, payload_xml
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.targeted import correction_xml, quote_for, reply_xml

#: Returns a URL at which a file can be read, empty if there is none.
LinkOf = Callable[[Attachment], str]
#: Returns the nick under which a room knows a user.
NickOf = Callable[[NativeId], str]


def message_xml(
    event: Event,
    content: Content,
    target: Event | None,
    *,
    room: str,
    network: str,
    nick_of: NickOf,
    link_of: LinkOf,
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
    if payload:
        inner = content_xml(content, own=own, link_of=link_of)
        return None if inner is None else inner + payload_xml(payload) + replaced
    quote = ""
    if isinstance(content, Message) and content.reply_to and target is not None:
        nick = nick_of(target.sender)
        quote = _quote_before(content, quote_for(target, nick))
        inner = answer_xml(content, link_of, quote, target.id, f"{room}/{nick}")
    else:
        inner = content_xml(content, own=own, link_of=link_of)
    if inner is None:
        return None
    if not own and isinstance(content, Message):
        inner += _relations_xml(content, len(quote), room, network)
    return inner + replaced


def _relations_xml(message: Message, before: int, room: str, network: str) -> str:
    """The mentions of a message, and its thread. Its body follows ``before`` characters."""
    inner = xml_element("thread", "", xml_text(message.thread)) if message.thread else ""
    if not message.mentions and not any(span.kind is SpanKind.MENTION for span in message.spans):
        return inner
    address_of = partial(jid.address_of, network=network, gateway=jid.domain_of(room))
    body = convert.body_from_content(message)
    return inner + references_xml(message, "" if body is None else body.text, before, address_of)


def content_xml(content: Content, *, own: bool = False, link_of: LinkOf, quote: str = "") -> str | None:
    """The body of a message, after ``quote``, with the files that it brings; None where there is nothing to
    show. ``own``: an XMPP user said it, as it stands.
    """
    body = convert.body_from_content(content, own=own)
    files = content.attachments if isinstance(content, Message) else ()
    if files:
        return _files_xml(files, quote, body, link_of)
    return None if body is None else replace(body, text=quote + body.text).to_xml()


def answer_xml(content: Message, link_of: LinkOf, quote: str, target: str, author: str) -> str | None:
    """A message that answers the one with the id ``target``, of the address ``author``."""
    inner = content_xml(content, link_of=link_of, quote=quote)
    return None if inner is None else inner + reply_xml(target, author, len(quote))


def _quote_before(content: Message, quote: str) -> str:
    """The quote with which an answer begins: none where it does not fit."""
    long = len((quote + content.text).encode()) > MAX_TEXT // 2
    return "" if content.style is Style.EMOTE or long else quote


def _files_xml(files: tuple[Attachment, ...], quote: str, body: Body | None, link_of: LinkOf) -> str:
    urls = [link_of(file) for file in files]
    shared = "".join(file_xml(file, url) for file, url in zip(files, urls, strict=True) if url)
    if body is None and not quote and len(files) == 1 and urls[0]:
        return Body(urls[0]).to_xml() + oob_xml(urls[0]) + shared + fallback_xml(NS_FILES)
    lines = fallback_text(Message(text="", attachments=files), Surroundings(link_of=link_of))
    before = quote if body is None else f"{quote}{body.text}\n"
    text = Body(before + lines, body is not None and body.unstyled).to_xml()
    at = (len(before), len(before) + len(lines))
    return text + shared + (fallback_xml(NS_FILES, at) if all(urls) else "")


def shown_id(event: Event, network: str) -> str:
    """The id of the message that showed an event: its sender's, or the event's."""
    chosen = convert.stanza_ids_of(event.origin.id).id if event.origin.network == network else ""
    return chosen or event.id
