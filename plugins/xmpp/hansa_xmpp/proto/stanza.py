"""A stanza that arrived, its addresses checked. SPEC: RFC 6120 section 8.1; RFC 6122 section 2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from hansa import RemoteProtocolError
from slixmpp.jid import JID, InvalidJID

NS_MUC = "http://jabber.org/protocol/muc"
NS_MUC_USER = "http://jabber.org/protocol/muc#user"
NS_MUC_ADMIN = "http://jabber.org/protocol/muc#admin"
NS_MUC_OWNER = "http://jabber.org/protocol/muc#owner"
NS_MUC_REQUEST = "http://jabber.org/protocol/muc#request"
NS_REGISTER = "jabber:iq:register"
NS_VCARD = "vcard-temp"
NS_CONFERENCE = "jabber:x:conference"
NS_DISCO_INFO = "http://jabber.org/protocol/disco#info"
NS_DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
NS_SID = "urn:xmpp:sid:0"
NS_STYLING = "urn:xmpp:styling:0"
NS_OCCUPANT_ID = "urn:xmpp:occupant-id:0"
NS_PING = "urn:xmpp:ping"
NS_DELAY = "urn:xmpp:delay"
NS_NICK = "http://jabber.org/protocol/nick"
NS_DATA_FORM = "jabber:x:data"
NS_CORRECT = "urn:xmpp:message-correct:0"
NS_REACTIONS = "urn:xmpp:reactions:0"
NS_REPLY = "urn:xmpp:reply:0"
NS_FALLBACK = "urn:xmpp:fallback:0"
NS_RETRACT = "urn:xmpp:message-retract:1"
NS_MODERATE = "urn:xmpp:message-moderate:1"
#: XEP-0425 version 0.2.1, which clients of that time use, with its XEP-0424 and XEP-0422.
NS_MODERATE_0 = "urn:xmpp:message-moderate:0"
NS_RETRACT_0 = "urn:xmpp:message-retract:0"
NS_FASTEN = "urn:xmpp:fasten:0"
NS_CHAT_STATES = "http://jabber.org/protocol/chatstates"
NS_MARKERS = "urn:xmpp:chat-markers:0"
NS_MAM = "urn:xmpp:mam:2"
NS_RSM = "http://jabber.org/protocol/rsm"
NS_FORWARD = "urn:xmpp:forward:0"
NS_HINTS = "urn:xmpp:hints"
NS_STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"

#: An id is kept with the event so that its sender gets it back (bytes).
MAX_ID = 256

KINDS = frozenset({"message", "presence", "iq"})


def local_name(tag: str) -> str:
    """An element's name without its namespace."""
    return tag.rpartition("}")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza:
    """``kind`` is ``message``, ``presence`` or ``iq``. ``sender`` and ``to`` are what the host server says,
    which has authenticated the one and routed by the other. ``element`` is read, never changed.
    """

    kind: str
    type: str
    id: str
    sender: JID
    to: JID
    element: Element

    @property
    def namespace(self) -> str:
        """The stream's own namespace, which bodies and errors share."""
        return self.element.tag.partition("}")[0].removeprefix("{")

    def child(self, name: str, xmlns: str = "") -> Element | None:
        """The first child of that name; of the stream's own namespace unless one is given."""
        return self.element.find(f"{{{xmlns or self.namespace}}}{name}")

    def text_of(self, name: str) -> str | None:
        """The text of the first child of that name in the stream's namespace; None if there is none."""
        found = self.child(name)
        return None if found is None else (found.text or "")

    @property
    def condition(self) -> str:
        """The condition of an error stanza (RFC 6120 section 8.3.3), empty if it has none."""
        error = self.child("error")
        prefix = f"{{{NS_STANZAS}}}"
        names = [local_name(c.tag) for c in (error if error is not None else ()) if c.tag.startswith(prefix)]
        return next((name for name in names if name != "text"), "")


def truncate_id(stanza: Stanza) -> Stanza:
    """The stanza without its id if that is over ``MAX_ID`` bytes, so that an answer does not repeat it."""
    return stanza if len(stanza.id.encode()) <= MAX_ID else replace(stanza, id="")


def parse_stanza(element: Element, domain: str) -> Stanza:
    """Checks the addresses of a stanza that came over the link of ``domain``. Raises RemoteProtocolError for
    one that cannot even be answered: a missing or invalid ``from``, one that claims to be of this component,
    a ``to`` that is not; and with the code ``jid-malformed`` for one whose sender must be told that its
    ``to`` is not a JID.
    """
    sender = _parse_jid(element, "from", "improper-addressing")
    if sender.domain == domain:
        raise RemoteProtocolError(f"spoofed from {str(sender)[:100]!r}", code="invalid-from")
    to = _parse_jid(element, "to", "jid-malformed")
    if to.domain != domain:
        raise RemoteProtocolError(f"to {str(to)[:100]!r} is not ours", code="host-unknown")
    return Stanza(
        kind=local_name(element.tag),
        type=element.get("type", ""),
        id=element.get("id", ""),
        sender=sender,
        to=to,
        element=element,
    )


def _parse_jid(element: Element, name: str, malformed: str) -> JID:
    value = element.get(name, "")
    try:
        jid = JID(value)
    except InvalidJID:
        raise RemoteProtocolError(f"bad {name} {value[:100]!r}", code=malformed) from None
    if not jid.domain:
        raise RemoteProtocolError(f"no {name}", code="improper-addressing")
    return jid
