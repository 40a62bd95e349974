"""What an occupant's presence says besides that they are there: show, status, and what clients add to it.

SPEC: RFC 6121 section 4.7.2 (show, status, priority); XEP-0045 section 7.7 (a room passes it on); XEP-0115
(capabilities) and XEP-0153 (the hash of an avatar), which are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from hansa import NativeId, PersonPresence, PresenceState

from hansa_xmpp.proto.payload import children_xml, kept_children
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import NS_NICK, Stanza

#: The largest XML that clients may add to a presence (bytes), and the longest status (characters).
MAX_EXTENSIONS, MAX_STATUS = 4096, 1000

#: The values of ``show``, from those who are there most to those who are there least; none is ``""``.
_SHOWS = ("chat", "", "dnd", "away", "xa")
_STATES = {
    "chat": PresenceState.HERE,
    "": PresenceState.HERE,
    "dnd": PresenceState.BUSY,
    "away": PresenceState.AWAY,
    "xa": PresenceState.AWAY,
}
_SHOW_OF = {
    PresenceState.HERE: "",
    PresenceState.AWAY: "away",
    PresenceState.BUSY: "dnd",
    PresenceState.OFFLINE: "xa",
}


@dataclass(frozen=True, slots=True)
class OccupantPresence:
    """``show`` is ``away``, ``chat``, ``dnd``, ``xa`` or empty. ``extensions`` is the XML of all other
    children that a room passes on.
    """

    show: str = ""
    status: str = ""
    extensions: str = ""

    @property
    def xml(self) -> str:
        """The children of a presence stanza."""
        show = xml_element("show", "", self.show) if self.show else ""
        return show + status_xml(self.status) + self.extensions

    @property
    def without_texts(self) -> OccupantPresence:
        """The same without what a person wrote."""
        return OccupantPresence(self.show)


def status_xml(status: str) -> str:
    """The status element, empty if there is no status."""
    return xml_element("status", "", xml_text(status)) if status else ""


def parse_occupant_presence(stanza: Stanza) -> OccupantPresence:
    """What an available presence says. A ``show`` that RFC 6121 does not know is none. The extensions are
    left out as a whole if they are too large.
    """
    show = (stanza.text_of("show") or "").strip()
    extensions = children_xml(_extensions(stanza), stanza.namespace)
    return OccupantPresence(
        show=show if show in _SHOWS else "",
        status=parse_status(stanza),
        extensions=extensions if len(extensions.encode()) <= MAX_EXTENSIONS else "",
    )


def parse_status(stanza: Stanza) -> str:
    """The status of a presence, cut where it is too long."""
    status = (stanza.text_of("status") or "").strip()
    return status if len(status) <= MAX_STATUS else f"{status[: MAX_STATUS - 1]}\N{HORIZONTAL ELLIPSIS}"


def without_status(stanza: Stanza) -> Stanza:
    """A presence without its status; the one that is given stays as it is."""
    bare = Element(stanza.element.tag, stanza.element.attrib)
    bare.extend(child for child in stanza.element if child.tag != f"{{{stanza.namespace}}}status")
    return replace(stanza, element=bare)


def choose_presence(presences: Iterable[OccupantPresence]) -> OccupantPresence:
    """The presence of a person with several connections: the one that is there most, the last of equal
    ones.
    """
    found = OccupantPresence()
    for number, one in enumerate(presences):
        if not number or _SHOWS.index(one.show) <= _SHOWS.index(found.show):
            found = one
    return found


def person_presence(user: NativeId, presence: OccupantPresence, now: int) -> PersonPresence:
    """The presence of an occupant for other networks; ``now`` is in ms."""
    return PersonPresence(user=user, state=_STATES[presence.show], text=presence.status, since=now)


def puppet_presence(presence: PersonPresence) -> OccupantPresence:
    """The presence of a person of another network for occupants."""
    return OccupantPresence(_SHOW_OF[presence.state], presence.text)


def _extensions(stanza: Stanza) -> Iterable[Element]:
    own = {f"{{{stanza.namespace}}}{name}" for name in ("show", "status", "body")}
    return (
        child
        for child in kept_children(stanza, whole=True)
        if child.tag not in own and not child.tag.startswith(f"{{{NS_NICK}}}")
    )
