"""Content <-> stanza: what a groupchat message says, and how content is written in one.

SPEC: XEP-0045 section 7.4 (messages), 7.8 (mediated invites), 8.1 (subjects); XEP-0245 section 2 (emotes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from hansa import (
    SPAN_BLOCKS,
    Content,
    Custom,
    Edit,
    Encrypted,
    Formatted,
    Member,
    Message,
    Name,
    NativeFacts,
    Style,
    Topic,
    arrange_spans,
    truncate_utf8,
    words_of,
)
from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.proto.fallbacks import body_without_fallback
from hansa_xmpp.proto.files import NS_FILES, is_only_link, parse_files
from hansa_xmpp.proto.markup import NS_MARKUP, moved_spans, parse_markup
from hansa_xmpp.proto.payload import kept_children
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import (
    NS_CHAT_STATES,
    NS_CORRECT,
    NS_FALLBACK,
    NS_HINTS,
    NS_MARKERS,
    NS_MUC_USER,
    NS_REPLY,
    NS_SID,
    NS_STYLING,
    Stanza,
)
from hansa_xmpp.proto.styling import parse_styling, render_styling

#: The longest body, in UTF-8 bytes, in either direction.
MAX_TEXT = 32_768

_ME = "/me "
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
#: RFC 5646 section 2.1, as far as subtags are told from other text.
_LANGUAGE_TAG = re.compile(r"(?=.{1,35}\Z)[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*", re.ASCII)
_ENCRYPTED = (
    ("encrypted", "eu.siacs.conversations.axolotl"),
    ("encrypted", "urn:xmpp:omemo:2"),
    ("openpgp", "urn:xmpp:openpgp:0"),
    ("x", "jabber:x:encrypted"),
    ("encryption", "urn:xmpp:eme:0"),
)
#: Namespaces that say nothing on their own.
_NO_WORDS = frozenset(
    {NS_CHAT_STATES, NS_MARKERS, NS_HINTS, NS_CORRECT, NS_FALLBACK, NS_REPLY, NS_STYLING, "urn:xmpp:receipts"}
)
#: The longest type of an extension (bytes).
_MAX_TYPE = 255
_UNREADABLE = "[encrypted message, not readable here]"


def content_of(stanza: Stanza, network: str = "xmpp") -> Content | None:
    """Returns the content of a groupchat message; None for one that says nothing (chat states, markers).
    Without a body, but with an extension, it is ``Custom`` without text: only XMPP people read it.
    ``network`` is our own network's id, which names the URLs of files.

    A subject without a body sets the topic (XEP-0045 section 8.1); a body that starts with ``/me `` is an
    emote (XEP-0245); encrypted payloads come with a body that is not theirs to show.
    """
    if any(stanza.child(name, xmlns) is not None for name, xmlns in _ENCRYPTED):
        return Encrypted()
    body, subject = stanza.text_of("body"), stanza.text_of("subject")
    if not body:
        if body is None and subject is not None and stanza.child("thread") is None:
            return Topic(text=subject)
        files = parse_files(stanza, network)
        return Message(text="", attachments=files) if files else _extension_of(stanza)
    return message_of(stanza, body, network)


def _extension_of(stanza: Stanza) -> Custom | None:
    for child in kept_children(stanza, whole=True):
        xmlns = child.tag[1:].partition("}")[0]
        if xmlns not in _NO_WORDS and xmlns != stanza.namespace:
            return Custom(type=truncate_utf8(xmlns, _MAX_TYPE))
    return None


def is_more_than_text(stanza: Stanza, content: Content) -> bool:
    """True if the body cannot be written again from the content as it was."""
    message = content.message if isinstance(content, Edit) else content
    if not isinstance(message, Message) or message.attachments:
        return True
    if stanza.child("markup", NS_MARKUP) is not None:
        return True
    bodies = [child for child in stanza.element if child.tag == f"{{{stanza.namespace}}}body"]
    return len(bodies) != 1 or bool(bodies[0].attrib or len(bodies[0]))


def message_of(stanza: Stanza, body: str, network: str = "xmpp") -> Message:
    """The message with ``body``, which may be a part of the stanza's: an answer without the quote."""
    made = _message_of(stanza, body, network)
    language = _language_of(stanza)
    return replace(made, language=language) if language else made


def _language_of(stanza: Stanza) -> str:
    """The language that a body itself says. That of the stanza is the default of a stream, which servers
    write on everything.
    """
    body = stanza.child("body")
    language = body.get(_LANG, "") if body is not None else ""
    return language if _LANGUAGE_TAG.fullmatch(language) else ""


def _message_of(stanza: Stanza, body: str, network: str) -> Message:
    files = parse_files(stanza, network)
    if files:
        body = "" if is_only_link(stanza, body) else body_without_fallback(stanza, body, NS_FILES).strip("\n")
    style = Style.EMOTE if body.startswith(_ME) else Style.TEXT
    text = body.removeprefix(_ME)
    spans = parse_markup(stanza)
    if spans is not None:  # its sender says the formatting apart from the text, in which marks are words
        formatted = arrange_spans(text, moved_spans(spans, stanza.text_of("body") or "", text))
        return Message(text=text, style=style, spans=formatted.spans, attachments=files)
    if stanza.child("unstyled", NS_STYLING) is None:
        formatted = parse_styling(text)
        # Who sent the message gets it back as it was, and others of the network too. An emote is one line.
        plain = style is Style.EMOTE and any(span.kind in SPAN_BLOCKS for span in formatted.spans)
        if formatted.spans and not plain and render_styling(formatted) == (text, False):
            return Message(text=formatted.text, style=style, spans=formatted.spans, attachments=files)
    return Message(text=text, style=style, attachments=files)


@dataclass(frozen=True, slots=True)
class Body:
    """The text of a message's ``body``, with its language if that is known. ``unstyled``: clients read no
    styling in it (XEP-0393 section 6).
    """

    text: str
    unstyled: bool = False
    language: str = ""

    def to_xml(self) -> str:
        """The element, and the one that says that it is not styled."""
        body = xml_element("body", "", xml_text(self.text), **{"xml:lang": self.language})
        return body + (xml_element("unstyled", NS_STYLING) if self.unstyled else "")


def body_from_content(content: Content, *, own: bool = False) -> Body | None:
    """The body that shows ``content``; None where there is nothing to show. Plain text that would be taken
    for an emote is moved away from the start by a space. ``own``: an XMPP user said it, as it stands.
    """
    match content:
        case Message(text=text, style=style, spans=spans, language=language) if text:
            styled, unstyled = render_styling(Formatted(text=text, spans=spans))
            if len(styled.encode()) > MAX_TEXT:  # a mark that is cut off would style nothing
                styled, unstyled = text, True
            unstyled = unstyled and not own
            if style is Style.EMOTE:
                return Body(truncate_utf8(_ME + styled, MAX_TEXT), unstyled, language)
            styled = " " + styled if styled.startswith(_ME) else styled
            return Body(truncate_utf8(styled, MAX_TEXT), unstyled, language)
        case Custom(text=text) if text:
            return Body(truncate_utf8(" " + text if text.startswith(_ME) else text, MAX_TEXT))
        case Encrypted():
            return Body(_UNREADABLE)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class MediatedInvite:
    """The invited user of a mediated invitation, as a bare JID, and the reason given."""

    user: str
    reason: str = ""


def parse_invite(stanza: Stanza) -> MediatedInvite | None:
    """The mediated invite in a message to a room (XEP-0045 section 7.8.2); None where none names a person."""
    x = stanza.child("x", NS_MUC_USER)
    invite = None if x is None else x.find(f"{{{NS_MUC_USER}}}invite")
    if invite is None:
        return None
    try:
        user = JID(invite.get("to", ""))
    except InvalidJID:
        return None
    if not user.local:
        return None
    return MediatedInvite(user.bare, truncate_utf8(invite.findtext(f"{{{NS_MUC_USER}}}reason") or "", 1024))


@dataclass(frozen=True, slots=True)
class StanzaIds:
    """The ids its sender gave a message: the stanza's ``id`` and XEP-0359's origin-id, empty if none."""

    id: str = ""
    origin: str = ""


def parse_ids(stanza: Stanza) -> StanzaIds:
    """The ids of a message that arrived."""
    origin = stanza.child("origin-id", NS_SID)
    return StanzaIds(stanza.id, "" if origin is None else origin.get("id", ""))


def submission_id(nonce: str, ids: StanzaIds) -> str:
    """The id under which an event is submitted. ``nonce`` makes it unique: clients use an id again and again;
    the ids ride along, because the reflection must carry them, also after a restart.
    """
    return f"{nonce} {quote(ids.id, safe='')} {quote(ids.origin, safe='')}"


def stanza_ids_of(origin: str) -> StanzaIds:
    """The ids within an id made by ``submission_id``."""
    parts = origin.split(" ")
    return StanzaIds(unquote(parts[1]), unquote(parts[2])) if len(parts) == 3 else StanzaIds()


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """``Submission.native`` of what came in a stanza: every string of it that a person may read."""

    texts: tuple[str, ...] = ()


#: Attributes that hold ids, addresses and names of the protocol.
_NO_TEXTS = frozenset(
    {"id", "from", "to", "type", "by", "stamp", "node", "var", "sid", "rid", "kid", "iv", "ver", "hash"}
    | {_LANG}
)
#: The values of ``show`` in a presence: RFC 6121 section 4.7.2.1.
_SHOWS = frozenset({"away", "chat", "dnd", "xa"})
#: Elements whose text is an id, a number or ciphertext, by namespace and name.
_SEALED = frozenset(
    {f"{{{xmlns}}}{name}" for name, xmlns in _ENCRYPTED}
    | {"{urn:xmpp:sid:0}origin-id", "{urn:xmpp:sid:0}stanza-id", "{urn:xmpp:eme:0}encryption"}
)


def texts_of(stanza: Stanza) -> tuple[str, ...]:
    """Returns every string of a stanza that is not known to be an identifier: the text of every element, also
    where an element within it divides a word, and every attribute. Unknown payloads count too. Encrypted
    parts are not read, the parts beside them are. The resource of the room JID is shown to every occupant.
    """
    found: dict[str, None] = {}
    if stanza.kind == "presence":
        found[stanza.sender.resource] = None
    waiting = list(stanza.element)
    while waiting:
        child = waiting.pop()
        shows = child.tag == f"{{{stanza.namespace}}}show" and child.text in _SHOWS
        if child.tag in _SEALED or shows:
            continue
        found["".join(child.itertext())] = None
        for inner in child.iter():
            found |= dict.fromkeys((inner.text or "", inner.tail or ""))
            found |= {value: None for name, value in inner.attrib.items() if name not in _NO_TEXTS}
    return tuple(text for text in found if text.strip())


def policy_facts(content: Content, server: str, heard: ParsedMessage | None = None) -> NativeFacts:
    """Returns the facts of a local event for policies. ``size`` is that of the text."""
    match content:
        case Message():
            kind, texts = "message", list(words_of(content))
        case Topic(text=text):
            kind, texts = "subject", [text]
        case Name(text=text):
            kind, texts = "roomname", [text]
        case Member(name=name, reason=reason):
            kind, texts = "presence", [t for t in (name, reason) if t]
        case Custom(text=text):
            kind, texts = "custom", [text]
        case Encrypted():
            kind, texts = "encrypted", []
        case _:
            kind, texts = content.kind.value, list(words_of(content))
    if heard is not None:
        texts += heard.texts
    return NativeFacts(
        type=kind,
        size=sum(len(t.encode(errors="surrogatepass")) for t in texts),
        encrypted=isinstance(content, Encrypted),
        sender_server=server,
        texts=tuple(texts),
    )


def format_timestamp(ms: int) -> str:
    """A time of XEP-0082, with milliseconds, from ms since 1970."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def parse_timestamp(text: str) -> int | None:
    """The ms since 1970 of a time of XEP-0082 (the old form of XEP-0091 included); None if it is none."""
    try:
        moment = datetime.fromisoformat(text[:40])
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, round(moment.timestamp() * 1000))
