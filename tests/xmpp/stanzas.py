"""Stanzas in short, for tests: written as XML, read back as a line a person can compare."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stanza import NS_STANZAS, Stanza, local_name, parse_stanza

NS = "jabber:component:accept"
GW = "gw.example"
ROOM = f"lobby@{GW}"
X = "<x xmlns='http://jabber.org/protocol/muc'/>"
CLIENT = "{http://jabber.org/protocol/muc#user}"


def arrived(text: str) -> Stanza:
    """A stanza as it comes over the link."""
    return parse_stanza(element(text), GW)


def element(text: str) -> ET.Element:
    kind = text.split(None, 1)[0].removeprefix("<").rstrip("/>")
    return ET.fromstring(text.replace(f"<{kind}", f"<{kind} xmlns='{NS}'", 1))


def join(full: str, nick: str, inner: str = X, id_: str = "j") -> str:
    return f"<presence from='{full}' to='{ROOM}/{nick}' id='{id_}'>{inner}</presence>"


def groupchat(full: str, inner: str, id_: str = "m") -> str:
    return f"<message from='{full}' to='{ROOM}' id='{id_}' type='groupchat'>{inner}</message>"


def iq(full: str, to: str, inner: str, type_: str = "get", id_: str = "q") -> str:
    return f"<iq from='{full}' to='{to}' id='{id_}' type='{type_}'>{inner}</iq>"


PING = "<ping xmlns='urn:xmpp:ping'/>"


def elements(stanzas: Iterable[OutboundStanza]) -> list[ET.Element]:
    return [element(text) for stanza in stanzas for text in stanza.texts()]


def lines(stanzas: Iterable[OutboundStanza]) -> list[str]:
    return [line(e) for e in elements(stanzas)]


def line(e: ET.Element) -> str:
    """``TO < FROM KIND[ TYPE]: what it says``, the room's own address shortened to nothing."""
    sender = e.get("from", "").removeprefix(ROOM).removeprefix("/")
    words = [f"{e.get('to', '').split('@')[0]}/{e.get('to', '').partition('/')[2]} < {sender or '*'}"]
    words.append(local_name(e.tag) + (f" {e.get('type')}" if e.get("type") else "") + ":")
    error = e.find(f"{{{NS}}}error")
    if error is not None:
        names = [
            local_name(c.tag)
            for c in error
            if c.tag.startswith(f"{{{NS_STANZAS}}}") and not c.tag.endswith("}text")
        ]
        words.append(f"{error.get('type')} {names[0]}")
    for name in ("subject", "body"):
        found = e.find(f"{{{NS}}}{name}")
        if found is not None:
            words.append(f"{name}={found.text or ''}")
    if e.find("{urn:xmpp:delay}delay") is not None:
        words.append("delayed")
    item = e.find(f"{CLIENT}x/{CLIENT}item")
    if item is not None and item.get("nick"):
        words.append(f"-> {item.get('nick')}")
    codes = sorted(s.get("code", "") for s in e.iterfind(f"{CLIENT}x/{CLIENT}status"))
    if codes:
        words.append("[" + " ".join(codes) + "]")
    return " ".join(words)
