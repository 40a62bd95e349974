"""The presence of users and ghosts, if an operator enables it. SPEC: server-server API, "Presence".

The last presence of a user counts; a restart loses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hansa import LruCache, NativeId, NetworkContext

from hansa_matrix.bounds.fair_shares import FairShares
from hansa_matrix.conversion.presence import parse_person_presence
from hansa_matrix.crossings import Crossings, is_allowed, require_allowed
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.local.client_notifier import ClientNotifier
from hansa_matrix.proto import ids
from hansa_matrix.proto.edus import PRESENCE, PresenceEdu, parse_presence, presence_edu
from hansa_matrix.users.shared_rooms import SharedRooms

#: Unknown users whose presence is remembered, and for how long (s): their server may have learned that
#: a local user joined a room before the join is stored here.
MAX_EARLY_PRESENCES, EARLY_PRESENCE_TTL_S = 1000, 60.0
#: Users whose presence is known, in all; the oldest entry of the server with the most gives way.
MAX_PRESENCES = 50_000
#: Ghosts whose presence is known; the one that changed least recently gives way.
MAX_GHOST_PRESENCES = 10_000
#: Users whose presence a server gets when it joins a room, and those in one EDU.
MAX_INTRODUCED_USERS, _USERS_PER_EDU = 1000, 100
#: People who are looked at before the loop comes round: each is looked for in all rooms, and policies are
#: asked about them.
_USERS_PER_STEP = 10
#: Seconds after which such a server has taken up the room, and knows whose presence it is told.
WELCOME_DELAY_S = 20.0


@dataclass(frozen=True, slots=True)
class _GhostPresence:
    """The presence of the ghost of ``home``, the policies that judged it, and the servers and rooms that were
    told.
    """

    edu: PresenceEdu
    generation: int
    home: NativeId
    told: set[str] = field(default_factory=set)


class PresenceTracker:
    """Of people elsewhere what their servers said last; of people here what they are told."""

    def __init__(
        self, ctx: NetworkContext, company: SharedRooms, sender: FederationSender, notifier: ClientNotifier
    ) -> None:
        self._ctx = ctx
        self._company = company
        self._sender = sender
        self._notifier = notifier
        self._on: bool = ctx.config.presence_enabled
        self._crossings = Crossings(ctx)
        #: Each presence, and the policies that judged it.
        self._known: FairShares[str, tuple[PresenceEdu, int]] = FairShares(MAX_PRESENCES, ids.domain_of)
        self._ghosts: LruCache[str, _GhostPresence] = LruCache(MAX_GHOST_PRESENCES)
        #: The presence of unknown users, with its time.
        self._early: FairShares[str, tuple[PresenceEdu, float]] = FairShares(
            MAX_EARLY_PRESENCES, ids.domain_of
        )
        #: Rooms and servers that came there just now.
        self._came: set[tuple[str, frozenset[str]]] = set()

    def home_of(self, user: str) -> NativeId:
        """Returns the person of any network whose presence is that of a user."""
        ghost = self._ghosts.get(user)
        return ghost.home if ghost is not None else NativeId(self._ctx.id, user)

    def get(self, user: str) -> PresenceEdu | None:
        """Returns the last presence of a user or ghost."""
        if (ghost := self._ghosts.get(user)) is not None:
            return self._without_stale_text(ghost.edu, ghost.generation)
        known = self._known.get(user)
        return self._without_stale_text(*known) if known is not None else None

    def _without_stale_text(self, one: PresenceEdu, generation: int) -> PresenceEdu:
        """Returns a presence without a text that earlier policies judged: a repeated text is judged again."""
        if one.status and self._ctx.has_policies and generation != self._ctx.policy_generation:
            return replace(one, status="")
        return one

    def get_all(self) -> list[PresenceEdu]:
        """Returns the last presence of every user and ghost."""
        ghosts = [(ghost.edu, ghost.generation) for _, ghost in self._ghosts.items()]
        return [self._without_stale_text(*known) for known in (*(k for _, k in self._known.items()), *ghosts)]

    async def handle_edus(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """The ``m.presence`` of a transaction: how many are none. Of strangers it is kept for a minute, and
        shown to nobody.
        """
        if not self._on:
            return len(contents)
        ignored = 0
        for content in contents:
            given = list(parse_presence(content, origin))
            ignored += not given
            for at, one in enumerate(given):
                if not at % _USERS_PER_STEP:
                    await asyncio.sleep(0)
                if not self._company.is_tracked(one.user):
                    self._early.put(one.user, (one, self._ctx.clock.monotonic()))
                elif await self._lets_in(one):
                    await self._take_presence(one)
        return ignored

    async def apply_early(self, room_id: str) -> None:
        """Takes up the presence of users in a room that arrived shortly before a local user joined it."""
        since = self._ctx.clock.monotonic() - EARLY_PRESENCE_TTL_S
        for number, (user, early) in enumerate(self._early.items()):
            if not number % _USERS_PER_STEP:
                await asyncio.sleep(0)
            if self._early.get(user) is not early:  # replaced meanwhile, or known
                continue
            one, at = early
            here = self._company.is_in_room(room_id, user)
            if here or at < since:
                self._early.pop(user)
            if here and at >= since and self._known.get(user) is None and await self._lets_in(one):
                await self._take_presence(one)

    async def _lets_in(self, one: PresenceEdu) -> bool:
        """True if the policies let local users see a user's presence."""
        return not self._ctx.has_policies or await is_allowed(
            self._ctx, self._crossings.presence(one.user, one.status)
        )

    async def require_allowed_status(self, one: PresenceEdu) -> None:
        """Raises the error answer if a policy denies a local user's status."""
        if self._ctx.has_policies:
            await require_allowed(self._ctx, self._crossings.presence(one.user, one.status))

    async def announce_presence(self, user: str, servers: Collection[str]) -> None:
        """Tells servers that meet a user now about the user's presence."""
        one = self.get(user)
        if self._on and one is not None and servers:
            self._sender.send_ephemeral(
                await self._servers_to_notify(one, servers), (PRESENCE, user), presence_edu(one)
            )

    async def announce_to_networks(self, user: str, room_id: str) -> None:
        """Tells other networks of a room about the presence of a local user who joined it."""
        one = self.get(user)
        if self._on and one is not None:
            now = self._ctx.clock.now()
            await self._ctx.send_presence(parse_person_presence(one, self._ctx.id, now), room_id)

    async def announce_to_room(
        self, room_id: str, servers: Collection[str], here: Callable[[], Iterable[str]]
    ) -> None:
        """Tells servers that are new in a room about the presence of the local users in it. They are told at
        once and a little later: a server that is still joining ignores users that it does not know.
        """
        came = room_id, frozenset(servers)
        if not self._on or came in self._came:
            return
        self._came.add(came)
        try:
            await self.apply_early(room_id)
            await self._send_presences(room_id, servers, here())
            await asyncio.sleep(WELCOME_DELAY_S)
            await self._send_presences(room_id, self._company.servers_of_room(room_id) & set(servers), here())
        finally:
            self._came.discard(came)

    async def _send_presences(self, room_id: str, servers: Collection[str], here: Iterable[str]) -> None:
        known = [one for user in here if (one := self.get(user)) is not None and one.presence != "offline"]
        if len(known) > MAX_INTRODUCED_USERS:
            self._ctx.count("matrix_edus_dropped")
        told: dict[str, list[PresenceEdu]] = {}
        for at, one in enumerate(known[:MAX_INTRODUCED_USERS]):
            if not at % _USERS_PER_STEP:
                await asyncio.sleep(0)
            for server in await self._servers_to_notify(one, servers):
                told.setdefault(server, []).append(one)
        for server, people in told.items():
            for at in range(0, len(people), _USERS_PER_EDU):
                edu = presence_edu(*people[at : at + _USERS_PER_EDU])
                self._sender.send_ephemeral([server], (PRESENCE, room_id, str(at)), edu)

    async def _servers_to_notify(self, one: PresenceEdu, of: Collection[str] | None = None) -> set[str]:
        """Returns the servers that may know a user's presence, of some or of all that the user meets."""
        servers = self._company.servers_sharing(one.user) if of is None else set(of)
        if not self._ctx.has_policies or not servers:
            return servers
        if await is_allowed(self._ctx, self._crossings.presence(one.user, one.status, servers)):
            return servers
        each = {s: self._crossings.presence(one.user, one.status, [s]) for s in sorted(servers)}
        return {server for server, crossing in each.items() if await is_allowed(self._ctx, crossing)}

    async def _take_presence(self, one: PresenceEdu) -> None:
        """Remembers the presence of a user of Matrix, and tells users here and other networks of a change."""
        before = self._known.get(one.user)
        self._known.put(one.user, (one, self._ctx.policy_generation))
        if before is None or one != before[0]:
            self._notifier.presence_changed(one.user)
            now = self._ctx.clock.now()
            await self._ctx.send_presence(parse_person_presence(one, self._ctx.id, now))

    async def set_local(self, one: PresenceEdu) -> None:
        """Announces that a local user is online, away or offline."""
        if self._on and await self._lets_in(one):
            await self._take_presence(one)
            self._sender.send_ephemeral(
                await self._servers_to_notify(one), (PRESENCE, one.user), presence_edu(one)
            )

    async def set_ghost(self, home: NativeId, one: PresenceEdu, room_id: str) -> None:
        """Shows the presence of the ghost of ``home`` to users here who are in a room, and to the servers of
        the room that were not told the same.
        """
        if not self._on or not await self._lets_in(one):
            return
        ghost = self._ghosts.get(one.user)
        if ghost is None or not _is_same(ghost.edu, one):
            ghost = _GhostPresence(one, self._ctx.policy_generation, home)
            self._ghosts.put(one.user, ghost)
            self._notifier.presence_changed(one.user)
        if room_id not in ghost.told:
            ghost.told.add(room_id)
            self._notifier.wake_room(room_id)
        others = self._company.servers_of_room(room_id) - ghost.told - {self._company.server}
        servers = await self._servers_to_notify(one, others)
        ghost.told.update(servers)
        if servers:
            self._sender.send_ephemeral(servers, (PRESENCE, one.user), presence_edu(one))

    async def remove_user(self, user: str) -> None:
        """Ends the presence of a closed account: the user is offline, and the status is removed."""
        known = self._known.get(user)
        if known is not None:
            await self.set_local(PresenceEdu(user=user, presence="offline"))


def _is_same(one: PresenceEdu, other: PresenceEdu) -> bool:
    """True if a presence differs from another by its time alone."""
    return (one.presence, one.status, one.active) == (other.presence, other.status, other.active)
