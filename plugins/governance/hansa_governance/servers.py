"""Servers, judged by two lists: all of a room at a time, and the same set once.

A room can have ten thousand servers, and is asked about for everything that is said in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from hansa import LruCache

from hansa_governance.lists import Globs, server_forms

#: Servers that are refused of one set and named; the others change no verdict.
MAX_NAMED = 20
#: Servers that are judged without a pause.
_STEP = 50
#: Sets that are remembered, and the least size of one that is worth it.
_REMEMBERED, _LARGE = 32, 16


class RefusedServers(NamedTuple):
    """A server that may not take part; ``glob`` is the one that denies it, empty where none allows it."""

    server: str
    glob: str


class Servers:
    """``deny`` and ``allow`` are globs; none in ``allow`` allows all."""

    def __init__(self, deny: Iterable[str], allow: Iterable[str]) -> None:
        self._deny = Globs(deny, server_forms)
        self._allow = Globs(allow, server_forms)
        self._known: LruCache[frozenset[str], tuple[RefusedServers, ...]] = LruCache(_REMEMBERED)

    def __bool__(self) -> bool:
        return bool(self._deny or self._allow)

    async def refused(self, servers: frozenset[str]) -> tuple[RefusedServers, ...]:
        """Those that may not take part, ``MAX_NAMED`` of them at most."""
        if not self:
            return ()
        if len(servers) < _LARGE:
            return tuple(self._refusals_of(sorted(servers)))
        known = self._known.get(servers)
        if known is None:
            known = await self._judge_servers(servers)
            self._known.put(servers, known)
        return known

    async def _judge_servers(self, servers: frozenset[str]) -> tuple[RefusedServers, ...]:
        found, every = list[RefusedServers](), list(servers)
        for at in range(0, len(every), _STEP):
            found += self._refusals_of(every[at : at + _STEP])
            await asyncio.sleep(0)
        return tuple(sorted(found)[:MAX_NAMED])

    def _refusals_of(self, servers: Collection[str]) -> Iterator[RefusedServers]:
        for server in servers:
            glob = self._deny.matching_glob(server)
            if glob:
                yield RefusedServers(server, glob)
            elif self._allow and not self._allow.covers(server):
                yield RefusedServers(server, "")
