"""The occupants of a hosted MUC, with their nicks and connections.

SPEC: XEP-0045 section 7.2.8 (nickname conflict); several connections of one person share one nick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hansa import NativeId, Role

from hansa_xmpp.proto.presence_xml import OccupantPresence, choose_presence

#: A ``seq`` that no event has: who was given the log up to it is given nothing.
_NOTHING = 2**63 - 1


@dataclass(slots=True)
class Occupant:
    """One person. ``sessions`` maps the full JIDs of an XMPP person's connections to the ``seq`` up to which
    each was given the log; a person of another network has none. ``name`` is the full display name.
    ``taken``: their nick was taken from them. ``presences`` are those of the connections, as far as they
    have said anything, and under the empty name that of a person of another network.
    """

    user: NativeId
    nick: str
    name: str = ""
    role: Role = Role.MEMBER
    taken: bool = False
    sessions: dict[str, int] = field(default_factory=dict)
    presences: dict[str, OccupantPresence] = field(default_factory=dict)

    @property
    def presence(self) -> OccupantPresence:
        """What all connections together say."""
        return choose_presence(self.presences.values())

    def set_presence(self, full: str, presence: OccupantPresence) -> bool:
        """Takes what a connection says; True if the whole is another."""
        before = self.presence
        self.presences.pop(full, None)
        self.presences[full] = presence
        return self.presence != before


class OccupantList:
    """The occupants of one room. A nick has one holder; all connections of a person share one nick."""

    def __init__(self) -> None:
        self._occupants: dict[NativeId, Occupant] = {}
        self._nicks: dict[str, NativeId] = {}
        self._sessions: dict[str, Occupant] = {}
        self._reserved: dict[NativeId, str] = {}

    def __iter__(self) -> Iterator[Occupant]:
        return iter(list(self._occupants.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def by_user(self, user: NativeId) -> Occupant | None:
        """The occupant who is ``user``."""
        return self._occupants.get(user)

    def by_nick(self, nick: str) -> Occupant | None:
        """The occupant under ``nick``."""
        user = self._nicks.get(nick)
        return self._occupants.get(user) if user is not None else None

    def by_session(self, full: str) -> Occupant | None:
        """The occupant whose connection ``full`` is."""
        return self._sessions.get(full)

    def is_nick_free(self, nick: str, user: NativeId) -> bool:
        """True if ``user`` may have ``nick``: nobody else holds it or is about to."""
        return self._nicks.get(nick, user) == user

    def is_present_or_joining(self, user: NativeId) -> bool:
        """True if ``user`` is here or about to be."""
        return user in self._occupants or user in self._reserved

    def reserve(self, user: NativeId, nick: str) -> None:
        """Reserves ``nick`` for a user who is about to take it."""
        self.release(user)
        self._reserved[user] = nick
        self._nicks.setdefault(nick, user)

    def release(self, user: NativeId) -> None:
        """End a reservation that was not used."""
        nick = self._reserved.pop(user, None)
        occupant = self._occupants.get(user)
        if nick is not None and (occupant is None or occupant.nick != nick):
            self._nicks.pop(nick, None)

    def add(self, occupant: Occupant) -> None:
        """Adds an occupant, or gives one another nick. The nick must be free."""
        reserved = self._reserved.pop(occupant.user, None)
        if reserved is not None and reserved != occupant.nick:
            self._nicks.pop(reserved, None)
        self.remove(occupant.user)
        self._occupants[occupant.user] = occupant
        self._nicks[occupant.nick] = occupant.user
        for full in occupant.sessions:
            self._sessions[full] = occupant

    def remove(self, user: NativeId) -> Occupant | None:
        """Removes an occupant, with all connections."""
        occupant = self._occupants.pop(user, None)
        if occupant is not None:
            if self._reserved.get(user) != occupant.nick:
                self._nicks.pop(occupant.nick, None)
            for full in occupant.sessions:
                self._sessions.pop(full, None)
        return occupant

    def add_session(self, occupant: Occupant, full: str, upto: int) -> None:
        """Add a connection, which was given the log up to ``upto``."""
        occupant.sessions[full] = upto
        self._sessions[full] = occupant

    def suspend(self, full: str) -> None:
        """Gives a connection no live stanzas until it has joined again."""
        occupant = self._sessions.get(full)
        if occupant is not None:
            occupant.sessions[full] = _NOTHING

    def suspended(self, full: str) -> bool:
        """True if a connection must join again before it gets anything."""
        occupant = self._sessions.get(full)
        return occupant is not None and occupant.sessions[full] == _NOTHING

    def remove_session(self, full: str) -> Occupant | None:
        """Take one connection out; the person goes with the last."""
        occupant = self._sessions.pop(full, None)
        if occupant is not None:
            del occupant.sessions[full]
            occupant.presences.pop(full, None)
            if not occupant.sessions:
                self.remove(occupant.user)
        return occupant

    def session_jids(self, seq: int | None = None) -> tuple[str, ...]:
        """Every connection; with ``seq``, those that were not given the event of that ``seq`` before."""
        if seq is None:
            return tuple(self._sessions)
        return tuple(full for full, o in self._sessions.items() if o.sessions[full] < seq)
