"""Chat states and displayed markers as elements. SPEC: XEP-0085 section 5; XEP-0333 section 4."""

from __future__ import annotations

from hansa import EphemeralEvent, Typing

from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import MAX_ID, NS_CHAT_STATES, NS_HINTS, NS_MARKERS, Stanza, local_name

_STATES = frozenset({"active", "composing", "paused", "inactive", "gone"})


def parse_chat_state(stanza: Stanza) -> str:
    """The chat state in a message, empty if there is none."""
    for child in stanza.element:
        name = local_name(child.tag)
        if name in _STATES and child.tag == f"{{{NS_CHAT_STATES}}}{name}":
            return name
    return ""


def parse_displayed(stanza: Stanza) -> str:
    """The id of the message up to which the sender has read, empty if a message does not say it."""
    marker = stanza.child("displayed", NS_MARKERS)
    marked = "" if marker is None else marker.get("id", "")
    return marked if len(marked.encode()) <= MAX_ID else ""


def chat_state(state: str) -> str:
    """A chat state, which no archive keeps."""
    return xml_element(state, NS_CHAT_STATES) + xml_element("no-store", NS_HINTS)


def displayed(marked: str) -> str:
    """Says that an occupant has read up to the message with the id ``marked``."""
    return xml_element("displayed", NS_MARKERS, id=marked) + xml_element("no-store", NS_HINTS)


def signal(event: EphemeralEvent, marked: str) -> str:
    """What a person of another network does; ``marked`` is the id of the message that was read."""
    if isinstance(event, Typing):
        return chat_state("composing" if event.typing else "paused")
    return displayed(marked)
