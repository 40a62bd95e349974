"""A room that lives on the fake homeservers: its events are hashed, signed and authorised like those of real
servers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.auth_rules.state_keys import auth_event_keys
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import hash_and_sign, pdu_from_raw
from hansa_matrix.proto.room_versions import DEFAULT_VERSION

_VERSION = DEFAULT_VERSION
_TEXT = "Two households, both alike in dignity, in fair Verona, where we lay our scene. "
#: Events that every user may send as state, where a server under test sends them itself.
SAID = "org.hansa.bench"
#: One event in so many changes a display name: state, not only messages.
_STATE_EVERY = 25


class FakeServer:
    """A fake server: a server name and its key. ``members`` are its users in the room at hand."""

    def __init__(self, name: str, key: SigningKey) -> None:
        self.name = name
        self.key = key


class FakeRoom:
    """``members`` people, spread evenly over ``servers``; the first server made the room and has the alias.

    ``tips`` are the forward extremities among what the peer under test has acknowledged, so that what a
    server sends never stands on an event that the peer lacks.
    """

    def __init__(self, servers: Sequence[FakeServer], members: int, name: str) -> None:
        self.servers = {server.name: server for server in servers}
        home = servers[0]
        self.alias = f"#{name}:{home.name}"
        self.state: dict[StateKey, Pdu] = {}
        self.auth: dict[str, Pdu] = {}
        self.events: dict[str, Pdu] = {}
        self.before: dict[str, dict[StateKey, Pdu]] = {}
        self.tips: dict[str, int] = {}
        self.room_id = ""
        self._count = 0
        creator = f"@creator:{home.name}"
        created = self._keep(self.event(home, "m.room.create", creator, {"room_version": _VERSION.id}, ""))
        self.room_id = created.room_id
        self._keep(self.event(home, "m.room.member", creator, {"membership": "join"}, creator))
        power: dict[str, Any] = {"users_default": 0, "events_default": 0, "state_default": 50, "ban": 50}
        power["events"] = {SAID: 0}
        self._keep(self.event(home, "m.room.power_levels", creator, power, ""))
        self._keep(self.event(home, "m.room.join_rules", creator, {"join_rule": "public"}, ""))
        seen = {"history_visibility": "shared"}
        self._keep(self.event(home, "m.room.history_visibility", creator, seen, ""))
        # The state before each of these joins is never requested, and a copy of it for each is expensive.
        standing, self.state = self.state, dict(self.state)
        self.people: dict[str, list[str]] = {server.name: [] for server in servers}
        for n in range(max(members, len(servers))):
            server = servers[n % len(servers)]
            user = f"@person{n}:{server.name}"
            content = {"membership": "join", "displayname": f"Person {n}"}
            pdu = self.event(server, "m.room.member", user, content, user)
            self.before[pdu.event_id] = standing
            self.state[pdu.key] = self.auth[pdu.event_id] = pdu
            self.taken(pdu)
            self.people[server.name].append(user)

    def event(
        self,
        server: FakeServer,
        kind: str,
        sender: str,
        content: dict[str, Any],
        state_key: str | None = None,
        *,
        prev: dict[str, int] | None = None,
    ) -> Pdu:
        """A signed event after ``prev`` (event id -> depth; default: the tips)."""
        after = self.tips if prev is None else prev
        keys = auth_event_keys(kind, sender, state_key, content, _VERSION)
        draft: dict[str, Any] = {
            "type": kind,
            "sender": sender,
            "content": content,
            "prev_events": list(after)[:20],
            "auth_events": sorted(self.state[key].event_id for key in keys if key in self.state),
            "depth": max(after.values(), default=0) + 1,
            "origin_server_ts": time.time_ns() // 1_000_000,
        }
        if self.room_id:
            draft["room_id"] = self.room_id
        if state_key is not None:
            draft["state_key"] = state_key
        pdu = hash_and_sign(draft, _VERSION, server.name, (server.key.key_id, server.key.sign))
        self._known(pdu)
        return pdu

    def _known(self, pdu: Pdu) -> None:
        self.events[pdu.event_id] = pdu
        self.before[pdu.event_id] = self.state

    def stands(self, pdu: Pdu) -> None:
        """A new piece of state. Snapshots are shared, so the present is copied, not changed."""
        self.state = {**self.state, pdu.key: pdu}
        self.auth[pdu.event_id] = pdu

    def _keep(self, pdu: Pdu) -> Pdu:
        """One more event that everybody has."""
        if pdu.state_key is not None:
            self.stands(pdu)
        self.taken(pdu)
        return pdu

    def talk(self, server: FakeServer, count: int) -> list[Pdu]:
        """The next ``count`` events of a server's people, each after the one before."""
        made: list[Pdu] = []
        prev = dict(self.tips)
        for _ in range(count):
            self._count += 1
            people = self.people[server.name]
            sender = people[self._count % len(people)]
            if self._count % _STATE_EVERY:
                content: dict[str, Any] = {"msgtype": "m.text", "body": f"{_TEXT}{self._count}"}
                pdu = self.event(server, "m.room.message", sender, content, prev=prev)
            else:
                content = {"membership": "join", "displayname": f"Renamed {self._count}"}
                pdu = self.event(server, "m.room.member", sender, content, sender, prev=prev)
                self.stands(pdu)
            prev = {pdu.event_id: pdu.depth}
            made.append(pdu)
        return made

    def say(self, server: FakeServer, text: str) -> Pdu:
        """One message of the server's first person."""
        content = {"msgtype": "m.text", "body": text}
        return self.event(server, "m.room.message", self.people[server.name][0], content)

    def taken(self, *pdus: Pdu) -> None:
        """The peer has these now: they are what the next event stands on."""
        for pdu in pdus:
            for before in pdu.prev_events:
                self.tips.pop(before, None)
            self.tips[pdu.event_id] = pdu.depth

    def template(self, user: str) -> dict[str, Any]:
        """The answer to make_join."""
        content = {"membership": "join"}
        keys = auth_event_keys("m.room.member", user, user, content, _VERSION)
        event = {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": user,
            "state_key": user,
            "content": content,
            "prev_events": list(self.tips)[:20],
            "auth_events": sorted(self.state[key].event_id for key in keys if key in self.state),
            "depth": max(self.tips.values()) + 1,
            "origin_server_ts": time.time_ns() // 1_000_000,
        }
        return {"room_version": _VERSION.id, "event": event}

    def join(self, server: str, raw: dict[str, Any]) -> dict[str, Any]:
        """The answer to send_join, before which the join is part of the room."""
        before, chain = list(self.state.values()), dict(self.auth)
        self.received(raw)
        return {
            "origin": server,
            "state": [pdu.raw for pdu in before],
            "auth_chain": [pdu.raw for pdu in chain.values()],
            "event": raw,
            "members_omitted": False,
            "servers_in_room": sorted(self.servers),
        }

    def missing(self, earliest: Sequence[str], latest: Sequence[str], limit: int) -> list[Pdu]:
        """The answer to get_missing_events: breadth first from ``latest``, oldest first."""
        seen, found, edge = {*earliest, *latest}, list[Pdu](), list(latest)
        while edge and len(found) < limit:
            before = [e for one in edge if one in self.events for e in self.events[one].prev_events]
            edge = [e for e in dict.fromkeys(before) if e not in seen and e in self.events]
            seen.update(edge)
            found += [self.events[e] for e in edge]
        return found[limit - 1 :: -1] if len(found) > limit else found[::-1]

    def received(self, raw: dict[str, Any]) -> Pdu:
        """An event that the peer sent us."""
        pdu = self.parsed(raw)
        self._known(pdu)
        return self._keep(pdu)

    @staticmethod
    def parsed(raw: dict[str, Any]) -> Pdu:
        """An event as its signature is over it."""
        return pdu_from_raw({k: v for k, v in raw.items() if k != "unsigned"}, _VERSION)
