"""The log of decisions: its rows, how long they are kept, and how many of them a stranger can cause.

A decision about an act is a row of its own. Crossings that an unknown server can cause (it asks this server
something) are counted in one row per server and reason. Beyond a limit, one row counts all others. These rows
never take the place of decisions about acts.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from hansa.environment import Clock, Random
from hansa.model.crossing import Crossing, DirectoryQuery, KeysQuery, PeerConnect, ProfileQuery
from hansa.model.errors import LocalProtocolError
from hansa.store.base import Delete, Put, Row, ScopedStore, Write

_DAY = 86_400_000
#: A row of strangers is written at most once in this time (ms); what it counted since then a crash loses.
_WRITTEN_EVERY = 60_000
_PAGE_SIZE = 500
#: The server in the row that counts all for which there is no room.
OTHERS = "(others)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long decisions are kept (days), how many, and how many rows strangers may cause."""

    days: int = 90
    rows: int = 100_000
    strangers: int = 1_000


@dataclass(slots=True)
class _Tally:
    body: dict[str, Any]
    written: int = 0


class DecisionLog:
    """Makes the rows, reads them, and lets go of old ones."""

    def __init__(self, store: ScopedStore, clock: Clock, random: Random, retention: Retention) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._tallies: OrderedDict[str, _Tally] = OrderedDict()
        self._retention = retention
        #: Rows about acts, as far as this process knows.
        self.kept = 0

    async def open(self) -> None:
        """Take what is stored: how many rows there are, and the rows of strangers."""
        self.kept = await self._store.count("decision")
        rows = await self._store.scan(
            "stranger", index=("ts",), limit=self._retention.strangers, reverse=True
        )
        for row in reversed(rows):
            body = orjson.loads(row.body)
            self._tallies[str(row.key[0])] = _Tally(body, int(body["last"]))

    def measures(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """The gauge ``decisions_kept``."""
        yield "decisions_kept", {"of": "acts"}, float(self.kept)
        yield "decisions_kept", {"of": "strangers"}, float(len(self._tallies))

    def note(self, crossing: Crossing, body: dict[str, Any]) -> tuple[str, tuple[Write, ...]]:
        """The id of a decision and what is to be written. ``body`` is completed."""
        now = self._clock.now()
        if not of_stranger(crossing):
            decision = "d-" + base64.b32encode(self._random.bytes(10)).decode().lower()
            self.kept += 1
            whole = {"id": decision, "ts": now, **body}
            return decision, (Put("decision", (decision,), orjson.dumps(whole), {"ts": now}),)
        decision = _stranger_row_id(body)
        if decision not in self._tallies and len(self._tallies) >= self._retention.strangers:
            kind = body["facts"]["crossing"]
            body = {**body, "facts": {"crossing": kind, "server": OTHERS}, "reasons": [], "would_reasons": []}
            decision = _stranger_row_id(body)
        tally = self._tallies.get(decision)
        if tally is None:
            tally = self._tallies[decision] = _Tally({"id": decision, "ts": now, **body, "count": 0})
        tally.body["count"] += 1
        tally.body["last"] = now
        self._tallies.move_to_end(decision)
        if tally.written and now - tally.written < _WRITTEN_EVERY:
            return decision, ()
        tally.written = now
        return decision, (Put("stranger", (decision,), orjson.dumps(tally.body), {"ts": now}),)

    async def explain(self, decision: str) -> dict[str, Any]:
        """Returns the decision with an id. Raises LocalProtocolError if the id is unknown."""
        tally = self._tallies.get(decision)
        if tally is not None:
            return tally.body
        row = await self._store.get("decision", (decision,)) or await self._store.get("stranger", (decision,))
        if row is None:
            raise LocalProtocolError(f"there is no decision {decision!r}")
        explained: dict[str, Any] = orjson.loads(row.body)
        return explained

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """The newest, oldest first: at most ``limit`` about acts, and of strangers a quarter of that."""
        rows = await self._store.scan("decision", index=("ts",), limit=limit, reverse=True)
        found = [orjson.loads(row.body) for row in rows]
        found += [tally.body for tally in list(self._tallies.values())[-(limit // 4 or 1) :]]
        return sorted(found, key=lambda body: (body.get("last", body["ts"]), body["id"]))

    async def prune(self) -> int:
        """Let go of what is too old, and of the oldest where there is too much; how many rows."""
        before = self._clock.now() - self._retention.days * _DAY
        gone = 0
        self.kept = await self._store.count("decision")
        while rows := await self._expired_rows("decision", before, self.kept - self._retention.rows):
            await self._store.commit([Delete("decision", row.key) for row in rows], durability="lazy")
            self.kept -= len(rows)
            gone += len(rows)
        stored = await self._store.count("stranger")
        while rows := await self._expired_rows("stranger", before, stored - self._retention.strangers):
            await self._store.commit([Delete("stranger", row.key) for row in rows], durability="lazy")
            for row in rows:
                self._tallies.pop(str(row.key[0]), None)
            stored -= len(rows)
            gone += len(rows)
        return gone

    async def _expired_rows(self, collection: str, before: int, over: int) -> list[Row]:
        rows = await self._store.scan(collection, index=("ts",), limit=_PAGE_SIZE)
        return [row for at, row in enumerate(rows) if at < over or int(row.fields["ts"] or 0) < before]


def of_stranger(crossing: Crossing) -> bool:
    """True if an unknown server can cause the crossing: it asks this server something."""
    asks = PeerConnect | ProfileQuery | DirectoryQuery | KeysQuery
    return isinstance(crossing, asks) and not crossing.outbound


def _stranger_row_id(body: dict[str, Any]) -> str:
    """The id of a row of strangers: the same for the same server and the same reasons."""
    facts, said = body["facts"], body["reasons"] + body["would_reasons"]
    codes = sorted((r["policy"], r["code"], r["rule"]) for r in said)
    same = orjson.dumps([facts["crossing"], facts["server"], body["mode"], codes])
    return "d-" + base64.b32encode(hashlib.sha256(same).digest()[:10]).decode().lower()


def same_decision(facts: dict[str, Any], reasons: Sequence[object]) -> tuple[Any, ...]:
    """Returns the key of refusals that one decision can stand for: crossing, sender or server, room,
    reasons.
    """
    who = facts.get("server") or facts.get("user") or facts.get("sender")
    return (facts["crossing"], who, facts.get("room"), tuple(reasons))
