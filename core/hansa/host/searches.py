"""Searches for people and rooms, over all networks that can be searched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from hansa.api.contracts import LooksUp, LooksUpRooms, Network, PersonMatch, RoomMatch
from hansa.bus.policy_engine import PolicyEngine
from hansa.host.supervisor import NetworkSupervisor
from hansa.model.crossing import Crossing, DirectoryQuery, ProfileQuery

#: Seconds that a network has for people, who are searched for while a user types, and for rooms.
_PEOPLE_TIMEOUT_S, _ROOMS_TIMEOUT_S = 5.0, 15.0
#: Characters of what is searched for, of an address, and of a name or topic that is found.
MAX_SEARCH, _MAX_ADDRESS, _MAX_TEXT = 255, 1023, 255
#: Results of one search.
MAX_MATCHES = 50

Match = TypeVar("Match", PersonMatch, RoomMatch)


class SearchHost(Protocol):
    """The parts of the running application that a search uses."""

    decisions: PolicyEngine

    @property
    def runners(self) -> Mapping[str, NetworkSupervisor]:
        """Every configured network, by its id."""
        ...

    def server_of(self, network: str, user: str) -> str:
        """The server of a user, by the network's own rule."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        ...


class Searches:
    """Asks the networks, and the policies about each result."""

    def __init__(self, host: SearchHost) -> None:
        self._host = host
        self._log = logging.getLogger("hansa.searches")

    async def find_people(self, text: str, *, limit: int, but: str = "") -> list[PersonMatch]:
        """People of all networks but one whose address or name has ``text`` in it; at most ``limit``, and 50.
        People whose ``ProfileQuery`` a policy denies are left out, and networks that fail.
        """

        async def search(network: Network | None, most: int) -> Sequence[PersonMatch]:
            if not isinstance(network, LooksUp):
                return ()
            found = await network.find_people(text, limit=most)
            return [one for one in found[:most] if len(one.user.id) <= _MAX_ADDRESS]

        def network_of(match: PersonMatch) -> str:
            return match.user.network

        def crossing_of(match: PersonMatch) -> Crossing:
            server = self._host.server_of(match.user.network, match.user.id)
            return ProfileQuery(network=match.user.network, server=server, user=match.user, outbound=True)

        named = self._search(text, limit, but, _PEOPLE_TIMEOUT_S, search)
        return await self._allowed(await named, limit, network_of, crossing_of)

    async def find_rooms(self, text: str, *, limit: int, but: str = "") -> list[RoomMatch]:
        """Rooms of all networks but one that are open to everybody and match ``text``, as
        ``hansa.LooksUpRooms`` says; at most ``limit``, and 50. Rooms whose ``DirectoryQuery`` a policy denies
        are left out, and networks that fail.
        """

        async def search(network: Network | None, most: int) -> Sequence[RoomMatch]:
            if not isinstance(network, LooksUpRooms):
                return ()
            found = await network.find_rooms(text, limit=most)
            return [one for one in found[:most] if len(one.address) <= _MAX_ADDRESS]

        def network_of(match: RoomMatch) -> str:
            return match.network

        def crossing_of(match: RoomMatch) -> Crossing:
            return DirectoryQuery(
                network=match.network,
                server=self._host.server_of(match.network, match.address),
                address=match.address,
                outbound=True,
                texts=tuple(filter(None, (match.name, match.topic))),
            )

        named = self._search(text, limit, but, _ROOMS_TIMEOUT_S, search)
        return await self._allowed(await named, limit, network_of, crossing_of)

    async def _search(
        self,
        text: str,
        limit: int,
        but: str,
        seconds: float,
        search: Callable[[Network | None, int], Awaitable[Sequence[Match]]],
    ) -> list[tuple[str, Match]]:
        """The results of each network, with its id."""
        if not text.strip() or len(text) > MAX_SEARCH:
            return []

        async def ask(name: str, network: Network | None) -> list[tuple[str, Match]]:
            try:
                async with asyncio.timeout(seconds):
                    return [(name, match) for match in await search(network, min(limit, MAX_MATCHES))]
            except Exception as error:  # noqa: BLE001  # a faulty network must not hide what others find
                self._host.count("searches_failed", network=name)
                self._log.warning("%s could not be searched: %s: %s", name, type(error).__name__, error)
                return []

        asked = [ask(name, one.network) for name, one in self._host.runners.items() if name != but]
        return [match for found in await asyncio.gather(*asked) for match in found]

    async def _allowed(
        self,
        found: Sequence[tuple[str, Match]],
        limit: int,
        network_of: Callable[[Match], str],
        crossing_of: Callable[[Match], Crossing],
    ) -> list[Match]:
        """Results that a network gives of itself, and that the policies let people see."""
        allowed = list[Match]()
        for name, match in found:
            if len(allowed) >= min(limit, MAX_MATCHES):
                break
            if network_of(match) != name:
                continue
            verdict = await self._host.decisions.judge_and_store(crossing_of(match))
            if verdict.allowed:
                allowed.append(match)
        return allowed


def shorten(text: str) -> str:
    """A name or a topic on one line, bounded."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 4]} ..."
