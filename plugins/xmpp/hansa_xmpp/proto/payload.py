"""The children of a message that only XMPP people read, kept as XML beside its content.

A payload begins with a byte that says whether the ``body`` is in it, or is written again from the content.
SPEC: XEP-0045 section 7.4 (a room reflects what it does not know); XEP-0359 section 5, XEP-0421 section 5 and
XEP-0203 section 4 (what only the room may say).
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from hansa_xmpp.proto.render import xml_attribute, xml_text
from hansa_xmpp.proto.stanza import (
    NS_CORRECT,
    NS_DELAY,
    NS_MODERATE,
    NS_MUC,
    NS_OCCUPANT_ID,
    NS_REACTIONS,
    NS_RETRACT,
    NS_SID,
    Stanza,
    local_name,
)

#: The largest payload (bytes).
MAX_PAYLOAD = 65_536

_WHOLE, _BESIDE = "=", "+"
#: Namespaces of elements that the room says, or that are written again from the content.
_OURS = frozenset(
    {
        NS_SID,
        NS_OCCUPANT_ID,
        NS_DELAY,
        NS_REACTIONS,
        NS_RETRACT,
        NS_MODERATE,
        "jabber:x:delay",
        "http://jabber.org/protocol/address",
    }
)
_XML_NAMESPACE = "http://www.w3.org/XML/1998/namespace"


def payload_of(stanza: Stanza, *, whole: bool, edits: bool = False) -> bytes:
    """The payload of a message, empty if there is nothing to keep. ``whole``: its body is kept too, and the
    id that an encrypted message corrects. ``edits``: the content says which message is corrected.
    """
    kept = children_xml(kept_children(stanza, whole=whole, edits=edits), stanza.namespace)
    return f"{_WHOLE if whole else _BESIDE}{kept}".encode() if kept else b""


def kept_children(stanza: Stanza, *, whole: bool, edits: bool = False) -> Iterable[Element]:
    """The children that a payload holds."""
    for child in stanza.element:
        xmlns, name = _namespace(child.tag), local_name(child.tag)
        if xmlns in _OURS or xmlns == NS_MUC or xmlns.startswith(f"{NS_MUC}#"):
            continue
        if xmlns == NS_CORRECT and (edits or not whole):
            continue
        if xmlns == stanza.namespace and (name in {"error", "subject"} or (name == "body" and not whole)):
            continue
        yield child


def children_xml(children: Iterable[Element], around: str) -> str:
    """Elements as XML within one of the namespace ``around``."""
    return "".join(_to_xml(child, around) for child in children)


def is_whole(payload: bytes) -> bool:
    """True if the body is in the payload."""
    return payload[:1] == _WHOLE.encode()


def payload_xml(payload: bytes) -> str:
    """The children in a payload."""
    return payload[1:].decode()


def _to_xml(element: Element, around: str) -> str:
    """An element within one of the namespace ``around``. A stanza is at most 24 deep."""
    xmlns, name = _namespace(element.tag), local_name(element.tag)
    parts = [name] if xmlns == around else [name, f"xmlns='{xml_attribute(xmlns)}'"]
    for number, (key, value) in enumerate(element.attrib.items()):
        space = _namespace(key)
        if not space:
            parts.append(f"{key}='{xml_attribute(value)}'")
        elif space == _XML_NAMESPACE:
            parts.append(f"xml:{local_name(key)}='{xml_attribute(value)}'")
        else:
            parts.append(f"xmlns:a{number}='{xml_attribute(space)}'")
            parts.append(f"a{number}:{local_name(key)}='{xml_attribute(value)}'")
    inner = xml_text(element.text or "")
    inner += "".join(_to_xml(child, xmlns) + xml_text(child.tail or "") for child in element)
    start = " ".join(parts)
    return f"<{start}>{inner}</{name}>" if inner else f"<{start}/>"


def _namespace(tag: str) -> str:
    return tag[1:].partition("}")[0] if tag.startswith("{") else ""
