"""The view of a room that every plugin may read, in whatever network the room is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from hansa.model.content import (
    Avatar,
    Content,
    HistoryVisibility,
    JoinRule,
    Member,
    Membership,
    Name,
    Standing,
    Topic,
    Upgrade,
)
from hansa.model.ref import NativeId
from hansa.model.role import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMember:
    """One row of a room's members. ``server`` is the person's server on their home network. ``voice`` is
    False where the room keeps them from speaking; ``avatar`` is their picture.
    """

    user: NativeId
    membership: Membership
    server: str = ""
    name: str | None = None
    role: Role = Role.MEMBER
    voice: bool = True
    avatar: NativeId | None = None

    @property
    def display(self) -> str:
        """A name to show on any network: their own, or what stands before ``@`` or ``:`` in their id."""
        return self.name or display_of(self.user)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomInfo:
    """The small part of a view. ``join_rule`` is ``public``, ``invite``, ``knock`` or ``restricted``;
    ``history_visibility`` ``world_readable``, ``shared``, ``invited`` or ``joined``. ``name_by`` and
    ``topic_by`` are who said the name and the topic, None where that is not known. ``moderated``: only those
    with voice may speak. ``direct``: it is a chat of two. ``successor`` is the room that replaces it.
    """

    name: str = ""
    topic: str = ""
    join_rule: str = "public"
    encrypted: bool = False
    version: str = ""
    name_by: NativeId | None = None
    topic_by: NativeId | None = None
    avatar: NativeId | None = None
    history_visibility: str = "shared"
    moderated: bool = False
    direct: bool = False
    successor: NativeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDelta:
    """The changes of a view by one event, or by a reconciliation after a join or a state resolution.

    ``upserts`` replace rows by user; ``removed`` removes rows; ``info`` replaces the small part.
    """

    upserts: tuple[RoomMember, ...] = ()
    removed: tuple[NativeId, ...] = ()
    info: RoomInfo | None = None

    def __bool__(self) -> bool:
        return bool(self.upserts or self.removed or self.info is not None)


@dataclass(slots=True)
class RoomView:
    """A read-only handle on a room's present, never copied. Only the core's room calls ``apply``."""

    room: str
    facts: RoomInfo = field(default_factory=RoomInfo)
    _people: dict[NativeId, RoomMember] = field(default_factory=dict)
    _joined: dict[tuple[str, str], int] = field(default_factory=dict)
    _servers: frozenset[str] | None = field(default=None, compare=False, repr=False)
    _suspected: dict[str, frozenset[str]] = field(default_factory=dict)
    _on_joined: Callable[[str, NativeId, bool], None] | None = field(default=None, compare=False, repr=False)

    @property
    def people(self) -> Mapping[NativeId, RoomMember]:
        """Everybody with a membership, by user."""
        return MappingProxyType(self._people)

    @property
    def joined_servers(self) -> Mapping[tuple[str, str], int]:
        """``(network, server)`` -> how many of its people are joined."""
        return MappingProxyType(self._joined)

    def person(self, user: NativeId) -> RoomMember | None:
        """The row of one person, None for a stranger."""
        return self._people.get(user)

    def membership(self, user: NativeId) -> Membership | None:
        """The membership of one person, None for a stranger."""
        row = self._people.get(user)
        return row.membership if row else None

    def name_of(self, user: NativeId) -> str:
        """A name of any person to show on any network, also of a stranger."""
        row = self._people.get(user)
        return row.display if row is not None else display_of(user)

    def joined(self) -> Iterator[RoomMember]:
        """Everybody who is joined, in no order."""
        return (p for p in self._people.values() if p.membership is Membership.JOIN)

    def servers(self) -> frozenset[str]:
        """The names of all servers with a joined person, over all networks, and of those that are suspected
        to have one: the same set until it changes.
        """
        if self._servers is None:
            self._servers = frozenset(server for _, server in self._joined).union(*self._suspected.values())
        return self._servers

    @property
    def suspected(self) -> Mapping[str, frozenset[str]]:
        """By network, servers that speak in the room without a person there that is known to be one."""
        return MappingProxyType(self._suspected)

    def suspect(self, network: str, servers: frozenset[str]) -> None:
        """Take these servers of a network, and no others, for being in the room without being known to be."""
        self._suspected[network] = servers
        self._servers = None

    def suspect_as(self, before: RoomView) -> None:
        """Suspect what an earlier view of the room suspected, which no store holds."""
        for network, servers in before.suspected.items():
            self.suspect(network, servers)

    def apply(self, change: ViewDelta) -> None:
        """Take a change in place."""
        if change.info is not None:
            self.facts = self.facts_after(change.info)
        for user in change.removed:
            self._count_joined(self._people.pop(user, None), -1)
        for person in change.upserts:
            self._count_joined(self._people.get(person.user), -1)
            self._people[person.user] = person
            self._count_joined(person, +1)

    def facts_after(self, info: RoomInfo) -> RoomInfo:
        """The facts once ``info`` replaces them. A direct chat stays one: its network may not know it."""
        return replace(info, direct=True) if self.facts.direct and not info.direct else info

    def load(self, people: Iterable[RoomMember]) -> None:
        """Fill an empty view from the store."""
        self.apply(ViewDelta(upserts=tuple(people)))

    def report_joined(self, on_joined: Callable[[str, NativeId, bool], None]) -> None:
        """Call this from now on with the room, a person, and True if they are joined or False if not."""
        self._on_joined = on_joined

    def _count_joined(self, person: RoomMember | None, by: int) -> None:
        if person is None or person.membership is not Membership.JOIN:
            return
        if self._on_joined is not None:
            self._on_joined(self.room, person.user, by > 0)
        key = (person.user.network, person.server)
        left = self._joined.get(key, 0) + by
        if key not in self._joined or left <= 0:
            self._servers = None
        if left > 0:
            self._joined[key] = left
        else:
            self._joined.pop(key, None)


def view_delta_of(content: Content, view: RoomView, server: str, sender: NativeId | None = None) -> ViewDelta:
    """The change that an event's content makes by itself. ``server`` is the server of a member's user."""
    match content:
        case Member():
            before = view.person(content.user)
            row = RoomMember(
                user=content.user,
                membership=content.membership,
                server=server,
                name=content.name,
                role=before.role if before else Role.MEMBER,
                voice=before.voice if before else True,
                avatar=content.avatar,
            )
            return ViewDelta(upserts=(row,)) if row != before else ViewDelta()
        case Name():
            return ViewDelta(info=replace(view.facts, name=content.text, name_by=sender))
        case Topic():
            return ViewDelta(info=replace(view.facts, topic=content.text, topic_by=sender))
        case Avatar():
            return ViewDelta(info=replace(view.facts, avatar=content.source))
        case JoinRule():
            return ViewDelta(info=replace(view.facts, join_rule=content.rule))
        case HistoryVisibility():
            return ViewDelta(info=replace(view.facts, history_visibility=content.visibility))
        case Upgrade():
            return ViewDelta(info=replace(view.facts, successor=content.successor))
        case Standing():
            known = view.person(content.user)
            if known is None:
                return ViewDelta()
            return ViewDelta(upserts=(replace(known, role=content.role, voice=content.voice),))
        case _:
            return ViewDelta()


def as_resolved(content: Content, view: RoomView) -> Content:
    """A change of a rank or of a rule, as it is in ``view`` after the event: an event that the network which
    decides resolved against another one gives nobody a rank.
    """
    match content:
        case Standing(user=user):
            person = view.person(user)
            return content if person is None else replace(content, role=person.role, voice=person.voice)
        case JoinRule():
            return replace(content, rule=view.facts.join_rule)
        case HistoryVisibility():
            return replace(content, visibility=view.facts.history_visibility)
        case _:
            return content


def without_ranks(change: ViewDelta, view: RoomView) -> ViewDelta:
    """Returns what a network may correct in a room whose rules are another network's: who is there, and their
    names. Ranks, voice and the facts of the room stay as they are.
    """
    people: list[RoomMember] = []
    for row in change.upserts:
        known = view.person(row.user)
        role, voice = (known.role, known.voice) if known is not None else (Role.MEMBER, True)
        kept = replace(row, role=role, voice=voice)
        if kept != known:
            people.append(kept)
    return ViewDelta(upserts=tuple(people), removed=change.removed)


def unread(change: ViewDelta, content: Content) -> ViewDelta:
    """Returns the change of a withheld event: the membership changes, but no name and no topic of it is
    shown.
    """
    match content:
        case Name() | Topic() | Avatar():
            return replace(change, info=None)
        case Member():
            people = (
                replace(p, name=None, avatar=None) if p.user == content.user else p for p in change.upserts
            )
            return replace(change, upserts=tuple(people))
        case _:
            return change


def display_of(user: NativeId) -> str:
    """A short name of a person who has none: what stands before ``@`` or ``:`` in their id."""
    local = user.id.removeprefix("@").partition(":")[0].partition("@")[0]
    return local or user.id
