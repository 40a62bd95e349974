"""The occupants of a MUC of another service, as its stanzas tell of them. Without I/O.

SPEC: XEP-0045 section 7.2 (entering), 7.6 (nicks), 8.2 and 9.1 (removals); XEP-0421 section 3 (occupant ids,
which count only where the room announces them); XEP-0359 section 3 (ids by the room, likewise).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.etree.ElementTree import Element

from hansa import Content, Member, Membership, NativeId, truncate_utf8
from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.proto import jid as addresses
from hansa_xmpp.proto.broadcast import BANNED, KICKED, NICK_CHANGED, REMOVED_BY_AFFILIATION, SELF
from hansa_xmpp.proto.stanza import MAX_ID, NS_DISCO_INFO, NS_MAM, NS_MUC_USER, NS_OCCUPANT_ID, NS_SID, Stanza

#: Occupants of one room that are remembered; further ones are known by what they say alone.
MAX_OCCUPANTS = 10_000
NS_STANZA_ID_TAG = f"{{{NS_SID}}}stanza-id"
#: The longest reason of a removal (bytes), and the status codes of one presence that are read.
_MAX_REASON, _MAX_CODES = 1024, 16
_REMOVED = frozenset({KICKED, BANNED, REMOVED_BY_AFFILIATION, 322})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomTraits:
    """What a room says of itself (XEP-0045 section 6.4). ``stable_ids``: its ids of messages count;
    ``occupant_ids``: those of occupants. ``archive``: it has one (XEP-0313).
    """

    name: str = ""
    stable_ids: bool = False
    occupant_ids: bool = False
    archive: bool = False


def parse_traits(answer: Stanza) -> RoomTraits | None:
    """The traits in an answer of service discovery; None if it is not a room."""
    query = answer.child("query", NS_DISCO_INFO)
    if query is None:
        return None
    identities = query.iterfind(f"{{{NS_DISCO_INFO}}}identity")
    rooms = [e for e in identities if e.get("category") == "conference"]
    if not rooms:
        return None
    features = {e.get("var") for e in query.iterfind(f"{{{NS_DISCO_INFO}}}feature")}
    return RoomTraits(
        name=truncate_utf8(rooms[0].get("name", ""), 255),
        stable_ids=NS_SID in features,
        occupant_ids=NS_OCCUPANT_ID in features,
        archive=NS_MAM in features,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MucPresence:
    """One presence of an occupant. ``actor`` is the nick of who removed them, ``jid`` their bare JID, if the
    room tells it. ``new_nick`` is set where they have another nick from now on.
    """

    nick: str
    available: bool
    jid: str = ""
    occupant_id: str = ""
    codes: frozenset[int] = frozenset()
    actor: str = ""
    reason: str = ""
    new_nick: str = ""


def parse_muc_presence(stanza: Stanza) -> MucPresence | None:
    """A presence from a room; None if it is not of an occupant."""
    x = stanza.child("x", NS_MUC_USER)
    if x is None or not stanza.sender.resource or stanza.type not in {"", "unavailable"}:
        return None
    item = x.find(f"{{{NS_MUC_USER}}}item")
    statuses = x.findall(f"{{{NS_MUC_USER}}}status")[:_MAX_CODES]
    codes = frozenset(int(e.get("code", "")) for e in statuses if _is_code(e.get("code", "")))
    actor, reason, new_nick, full = "", "", "", ""
    if item is not None:
        by = item.find(f"{{{NS_MUC_USER}}}actor")
        actor = by.get("nick", "") if by is not None else ""
        reason = truncate_utf8(item.findtext(f"{{{NS_MUC_USER}}}reason") or "", _MAX_REASON)
        full = item.get("jid", "")
        if NICK_CHANGED in codes:
            new_nick = item.get("nick", "")
    return MucPresence(
        nick=stanza.sender.resource,
        available=not stanza.type,
        jid=_bare(full),
        occupant_id=occupant_id_of(stanza),
        codes=codes,
        actor=actor,
        reason=reason,
        new_nick=new_nick,
    )


def _is_code(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit()


def _bare(full: str) -> str:
    try:
        return JID(full).bare
    except InvalidJID:
        return ""


def occupant_id_of(stanza: Stanza) -> str:
    """The occupant id in a stanza, empty if it has none that can be used."""
    found = stanza.child("occupant-id", NS_OCCUPANT_ID)
    return _id_of(found)


def _id_of(element: Element | None) -> str:
    text = "" if element is None else element.get("id", "")
    return text if len(text.encode(errors="surrogatepass")) <= MAX_ID else ""


def stanza_id_of(stanza: Stanza, room: str) -> str:
    """The id that a room gave to a message, empty if none."""
    for element in stanza.element.iterfind(f"{{{NS_SID}}}stanza-id"):
        if element.get("by") == room:
            return _id_of(element)
    return ""


def message_native_id(room: str, stanza_id: str) -> str:
    """The native id of a message of a room. The rooms of other services cannot take each other's."""
    return f"{room} {quote(stanza_id, safe='')}"


def is_listed_jid(person: str, room: str) -> bool:
    """True if the service of a room may name a bare JID as an occupant of it: the service is that of the
    JID's domain, or of a name below it. Another service could name everybody.
    """
    domain, service = addresses.domain_of(person), addresses.domain_of(room)
    return "@" in person and "." in domain and (service == domain or service.endswith(f".{domain}"))


def occupant_user(room: str, nick: str, occupant_id: str, person: str) -> str:
    """The native id of an occupant: their JID, else the room with the occupant's id, else with the nick."""
    if person and is_listed_jid(person, room):
        return person
    if occupant_id:
        return f"{room}/#{occupant_id}"
    return f"{room}/\\{nick}" if nick.startswith(("#", "\\")) else f"{room}/{nick}"


def is_of_room(user: str, room: str) -> bool:
    """True for a native id that ``occupant_user`` may give to an occupant of a room."""
    return user == room or user.startswith(f"{room}/") or is_listed_jid(user, room)


@dataclass(slots=True)
class ForeignOccupant:
    """An occupant. ``ours``: it is the listener, or the puppet of a person of another network."""

    nick: str
    user: str
    occupant_id: str = ""
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that an occupant, ``sender``, did."""

    sender: str
    content: Content
    name: str = ""


@dataclass(slots=True)
class OwnOccupants:
    """The occupants that are ours. ``nicks`` are those with which one is inside or enters, ``former_nicks``
    those from before a restart: they count where the room has no occupant ids. ``occupant_ids`` are all that
    they ever had.
    """

    nicks: set[str] = field(default_factory=set)
    former_nicks: set[str] = field(default_factory=set)
    occupant_ids: set[str] = field(default_factory=set)


class ForeignRoom:
    """One room of another service. ``network`` is the id of our own network, ``domain`` that of our
    component: who has an address of it is ours.
    """

    def __init__(self, room: str, network: str, domain: str) -> None:
        self.room = room
        self.traits = RoomTraits()
        self.own = OwnOccupants()
        self.occupants: dict[str, ForeignOccupant] = {}
        self._network = network
        self._domain = domain

    def enter(self, traits: RoomTraits) -> None:
        """The listener enters again: nobody is known."""
        self.traits = traits
        self.occupants.clear()

    def find_user(self, user: str) -> ForeignOccupant | None:
        """The occupant that a native id belongs to."""
        return next((one for one in self.occupants.values() if one.user == user), None)

    def occupant_of(self, stanza: Stanza, person: str = "") -> ForeignOccupant:
        """Who sent a message: an occupant who is there, or who was. ``person`` is the JID that an archive
        names.
        """
        nick = stanza.sender.resource
        named = occupant_id_of(stanza) if self.traits.occupant_ids else ""
        here = self.occupants.get(nick)
        if here is not None and (not named or named == here.occupant_id):
            return here
        return self._make(nick, named, person)

    def _make(self, nick: str, occupant_id: str, person: str) -> ForeignOccupant:
        own = addresses.domain_of(person) == self._domain or occupant_id in self.own.occupant_ids
        ours = own or (not occupant_id and nick in self.own.nicks | self.own.former_nicks)
        return ForeignOccupant(nick, occupant_user(self.room, nick, occupant_id, person), occupant_id, ours)

    def disown(self, nick: str) -> None:
        """A nick does not count as our own: the room gave it to another occupant."""
        self.own.nicks.discard(nick)
        occupant = self.occupants.get(nick)
        if occupant is not None:
            occupant.ours = False

    def apply_presence(self, presence: MucPresence) -> list[Happening]:
        """What a presence says that happened to people who are not ours."""
        if presence.available:
            return list(self._came(presence))
        return list(self._went(presence))

    def _came(self, presence: MucPresence) -> Iterator[Happening]:
        before = self.occupants.get(presence.nick)
        if before is None and len(self.occupants) >= MAX_OCCUPANTS:
            return
        named = presence.occupant_id if self.traits.occupant_ids else ""
        occupant = self._make(presence.nick, named, presence.jid)
        occupant.ours = occupant.ours or SELF in presence.codes or presence.nick in self.own.nicks
        self.occupants[presence.nick] = occupant
        if not occupant.ours and (before is None or before.user != occupant.user):
            yield self._joined(occupant)

    def _went(self, presence: MucPresence) -> Iterator[Happening]:
        occupant = self.occupants.pop(presence.nick, None)
        if occupant is None or occupant.ours:
            return
        if presence.new_nick:
            user = occupant.user
            if not occupant.occupant_id and "/" in user:  # their nick is all that is known of them
                user = occupant_user(self.room, presence.new_nick, "", "")
                yield self._left(occupant, f"is now known as {presence.new_nick}")
            renamed = ForeignOccupant(presence.new_nick, user, occupant.occupant_id)
            self.occupants[presence.new_nick] = renamed
            yield self._joined(renamed)
            return
        actor = self.occupants.get(presence.actor) if presence.codes & _REMOVED else None
        if actor is None or actor.ours:
            yield self._left(occupant, presence.reason)
            return
        membership = Membership.BAN if BANNED in presence.codes else Membership.LEAVE
        content = Member(user=self._id(occupant), membership=membership, reason=presence.reason)
        yield Happening(sender=actor.user, content=content, name=actor.nick)

    def _joined(self, who: ForeignOccupant) -> Happening:
        content = Member(user=self._id(who), membership=Membership.JOIN, name=who.nick)
        return Happening(sender=who.user, content=content, name=who.nick)

    def _left(self, who: ForeignOccupant, reason: str) -> Happening:
        content = Member(user=self._id(who), membership=Membership.LEAVE, reason=reason)
        return Happening(sender=who.user, content=content, name=who.nick)

    def _id(self, who: ForeignOccupant) -> NativeId:
        return NativeId(self._network, who.user)

    def differences(self, shown: Iterable[str], most: int) -> list[Happening]:
        """What has to be told, where ``shown`` are the native ids of the members that are shown, so that at
        least ``most`` occupants are.
        """
        here = {one.user: one for one in self.occupants.values() if not one.ours}
        before = set(shown)
        found = [self._left(ForeignOccupant("", user), "") for user in sorted(before - set(here))]
        places = max(0, most - len(before & set(here)))
        entering = [one for user, one in here.items() if user not in before][:places]
        return found + [self._joined(one) for one in entering]
