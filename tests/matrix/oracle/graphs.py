"""Seeded random rooms: several users of varied power who act on forks that merge again.

Everything follows from one ``random.Random``: the same seed gives the same room, byte for byte. The room is
judged by Hansa's own rules while it grows; every judgement and every resolution is kept as a question with our
answer, for another implementation to be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hansa_matrix.proto.auth_rules.rules import auth_event_keys, check_auth_events, check_event_auth
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.hashing import event_id as reference_id
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.state_res.v2 import resolve_state
from matrix.oracle.acts import ACTIONS, RULES, USERS, Act, People, first_levels, rules_content

State = dict[StateKey, str]

CREATOR = USERS[0]


@dataclass
class Graph:
    """A room with the questions it gave rise to. Indices are of ``events``."""

    version: RoomVersion
    events: list[Pdu] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    #: Rejected by the state before it, though not by its auth events.
    rejected: set[str] = field(default_factory=set)
    #: ``index -> the rule that refused`` or None, by rules 1 to 3.
    own: dict[int, str | None] = field(default_factory=dict)
    #: ``(index, state, the rule that refused or None)``, by rules 4 to 11.
    state: list[tuple[int, State, str | None]] = field(default_factory=list)
    #: ``(states, our resolution)``.
    resolve: list[tuple[list[State], State]] = field(default_factory=list)

    def fetch(self, event_id: str) -> Pdu | None:
        index = self.index.get(event_id)
        return None if index is None else self.events[index]

    def pdus(self, state: State) -> dict[StateKey, Pdu]:
        return {key: self.events[self.index[event_id]] for key, event_id in state.items()}

    def add(self, pdu: Pdu) -> int:
        index = self.index[pdu.event_id] = len(self.events)
        self.events.append(pdu)
        return index

    def request(self) -> dict[str, Any]:
        """The graph as a question to the oracle."""
        numbers = [self.index[event_id] for event_id in sorted(self.rejected)]
        return {
            "version": self.version.id,
            "events": [pdu.raw for pdu in self.events],
            "rejected": numbers,
            "own": list(self.own),
            "state": [[index, self.numbers(state)] for index, state, _ in self.state],
            "resolve": [[self.numbers(state) for state in states] for states, _ in self.resolve],
        }

    def numbers(self, state: State) -> list[int]:
        return sorted(self.index[event_id] for event_id in state.values())


class RandomRoom:
    """Grows a ``Graph``."""

    def __init__(self, version: RoomVersion, random: Random) -> None:
        self._version = version
        self._random = random
        self._clock = 1_000_000
        self.graph = Graph(version)
        self._after: dict[str, State] = {}
        self._depth: dict[str, int] = {}
        self._found()

    def grow(self, *, rounds: int, steps: int) -> Graph:
        """Each round: two to four branches of up to ``steps`` attempts each, merged by the next event."""
        trunk = [self._last]
        for _ in range(rounds):
            branches = self._random.choice((2, 2, 2, 3, 4))
            tips = [self._branch(trunk, self._random.randint(1, steps)) for _ in range(branches)]
            if self._random.random() < 0.2:
                tips.append(self._random.choice(list(self._after)))
            trunk = list(dict.fromkeys(tips))
            self._state_before(trunk)
        self._foreign_states()
        return self.graph

    def _found(self) -> None:
        random, version = self._random, self._version
        content: dict[str, Any] = {"room_version": version.id}
        founder = CREATOR
        if version.creator_in_content:
            founder = content["creator"] = random.choice((CREATOR,) * 9 + (USERS[1],))
        if version.privileged_creators and random.random() < 0.6:
            content["additional_creators"] = random.sample(USERS[1:], random.randint(0, 2))
        if random.random() < 0.1:
            content["m.federate"] = random.random() < 0.4
        self._room_id = "!room:x"
        create = self._build(("m.room.create", CREATOR, "", content), [], [])
        self._room_id = create.room_id
        self._create = create
        creators = (
            {CREATOR, *content.get("additional_creators", ())} if version.privileged_creators else set()
        )
        self._people = People(random, frozenset(creators), version)
        self._accept(create, {})
        self._last = create.event_id
        self._try(("m.room.member", founder, founder, {"membership": "join"}), [self._last])
        if random.random() < 0.95:
            self._try(("m.room.power_levels", founder, "", first_levels(self._people, founder)), [self._last])
        rule = random.choice(RULES[:-1])
        if random.random() < 0.9:
            self._try(("m.room.join_rules", founder, "", rules_content(rule)), [self._last])
        for user in random.sample(USERS, random.randint(1, 4)):
            if rule != "public":
                self._try(("m.room.member", founder, user, {"membership": "invite"}), [self._last])
            self._try(("m.room.member", user, user, {"membership": "join"}), [self._last])

    def _branch(self, trunk: list[str], steps: int) -> str:
        tip, prev = "", trunk
        for _ in range(steps):
            self._last = ""
            self._attempt(prev)
            if self._last:
                tip, prev = self._last, [self._last]
        return tip or self._random.choice(trunk)

    def _state_before(self, prev: list[str]) -> State:
        states = [self._after[event_id] for event_id in prev]
        if all(state == states[0] for state in states):
            return dict(states[0])
        result = resolve_state(
            self._version, states, self.graph.fetch, rejected=self.graph.rejected, admit_rejected=False
        )
        self.graph.resolve.append((states, result))
        return result

    def _foreign_states(self) -> None:
        # States as a server that accepts more than we do may hand them out: rejected events in them.
        for event_id in sorted(self.graph.rejected):
            pdu = self.graph.events[self.graph.index[event_id]]
            if pdu.state_key is None or self._random.random() < 0.5:
                continue
            ours = self._after[self._random.choice(list(self._after))]
            states = [{**self._after[event_id], pdu.key: event_id}, ours]
            if states[0] == states[1]:
                continue
            result = resolve_state(
                self._version, states, self.graph.fetch, rejected=self.graph.rejected, admit_rejected=False
            )
            self.graph.resolve.append((states, result))

    def _attempt(self, prev: list[str]) -> None:
        random = self._random
        state = self._state_before(prev)
        pdus = self.graph.pdus(state)
        joined = sorted(k[1] for k, p in pdus.items() if k[0] == "m.room.member" and p.membership == "join")
        sender = random.choice(joined if joined and random.random() < 0.75 else USERS)
        if random.random() < 0.3:
            sender = CREATOR
        target = random.choice(USERS)
        action = random.choice(ACTIONS)
        self._try(action(self._people, sender, target, pdus), prev, state)

    def _try(self, act: Act, prev: list[str], state: State | None = None) -> None:
        if state is None:
            state = self._state_before(prev)
        auth = self._auth_events(act, state)
        pdu = self._build(act, prev, auth)
        graph = self.graph
        if pdu.event_id in graph.index:
            return
        cited = [graph.events[graph.index[event_id]] for event_id in auth]
        index = graph.add(pdu)
        reject = check_auth_events(pdu, cited, self._version, create=self._create, rejected=graph.rejected)
        graph.own[index] = reject and reject.rule
        own_state = {event.key: event.event_id for event in cited if event.state_key is not None}
        own_state[("m.room.create", "")] = self._create.event_id
        refused_by_own = self._judge(index, pdu, own_state)
        refused_by_state = self._judge(index, pdu, state)
        if reject is not None or refused_by_own:
            return
        if refused_by_state:
            graph.rejected.add(pdu.event_id)
            self._after[pdu.event_id] = state
            self._depth[pdu.event_id] = pdu.depth
        elif not self._stricter_there(pdu):
            self._accept(pdu, state)
            self._last = pdu.event_id

    def _judge(self, index: int, pdu: Pdu, state: State) -> bool:
        reject = check_event_auth(pdu, self.graph.pdus(state), self._version)
        rule = reject and reject.rule
        if rule is None and self._stricter_there(pdu):
            rule = "synapse: the target of a member event must be of the creator's server too"
        self.graph.state.append((index, state, rule))
        return reject is not None

    def _stricter_there(self, pdu: Pdu) -> bool:
        # Where a room is closed (m.federate false) Synapse asks the rule of a member event's target as well as
        # of the sender, but for the first join; the specification asks it of the sender. The one difference
        # that rooms here meet.
        create = self._create
        if create.content.get("m.federate") is not False or pdu.type != "m.room.member":
            return False
        founder = create.content["creator"] if self._version.creator_in_content else create.sender
        first = pdu.prev_events == (create.event_id,) and (pdu.membership, pdu.state_key) == ("join", founder)
        return not first and domain_of(pdu.state_key or "") != domain_of(create.sender)

    def _accept(self, pdu: Pdu, before: State) -> None:
        if pdu.event_id not in self.graph.index:
            self.graph.add(pdu)
        self._after[pdu.event_id] = before if pdu.state_key is None else {**before, pdu.key: pdu.event_id}
        self._depth[pdu.event_id] = pdu.depth

    def _auth_events(self, act: Act, state: State) -> list[str]:
        keys = sorted(auth_event_keys(*act, self._version))
        auth = [state[key] for key in keys if key in state]
        if self._random.random() < 0.1:
            auth = self._spoil(auth)
        return auth

    def _spoil(self, auth: list[str]) -> list[str]:
        random = self._random
        choice = random.random()
        if choice < 0.75 and auth:
            # Another event, accepted or not, of the same key: the state of some other branch.
            at = random.randrange(len(auth))
            key = self.graph.events[self.graph.index[auth[at]]].key
            same = [
                e.event_id
                for e in self.graph.events
                if (e.type, e.state_key) == key and e.event_id in self._after
            ]
            return [*auth[:at], random.choice(same), *auth[at + 1 :]]
        if choice < 0.85 and auth:
            return auth[:-1]
        # Only state: Synapse raises an internal error where an event cites a message.
        citable = [e for e in self._after if self.graph.events[self.graph.index[e]].state_key is not None]
        if self._version.room_id_is_create_hash:
            citable.remove(self._create.event_id)
        if not citable:
            return auth
        extra = random.choice(citable)
        return [*auth, extra]

    def _build(self, act: Act, prev: list[str], auth: list[str]) -> Pdu:
        kind, sender, state_key, content = act
        random = self._random
        self._clock += random.choice((0, 0, 1, 10))
        # Clocks of servers differ: by more than what lies between two events.
        ts = self._clock + random.choice((0, 0, 0, -30, 30, -3, 3))
        depth = 1 + max((self._depth[event_id] for event_id in prev), default=0)
        raw: dict[str, Any] = {
            "type": kind,
            "sender": sender,
            "content": content,
            "prev_events": cited(prev, self._version),
            "auth_events": cited(auth, self._version),
            "depth": depth,
            "origin_server_ts": ts,
            "hashes": {"sha256": f"{len(self.graph.events)}"},
            "signatures": {},
        }
        if self._version.server_made_event_ids:
            raw["event_id"] = f"${len(self.graph.events)}:{domain_of(sender)}"
        if kind == "m.room.redaction" and not self._version.redacts_in_content:
            raw["redacts"] = random.choice(self.graph.events).event_id
        if state_key is not None:
            raw["state_key"] = state_key
        if kind != "m.room.create" or not self._version.room_id_is_create_hash:
            raw["room_id"] = self._room_id
        event_id = reference_id(raw, self._version)
        return Pdu(
            event_id=event_id,
            room_id=raw.get("room_id", "!" + event_id[1:]),
            type=kind,
            sender=sender,
            state_key=state_key,
            content=content,
            prev_events=tuple(prev),
            auth_events=tuple(auth),
            depth=depth,
            origin_server_ts=ts,
            raw=raw,
            wire=b"",
        )


def cited(event_ids: Sequence[str], version: RoomVersion) -> list[Any]:
    """References to events as that version writes them; nobody here looks at the hashes."""
    return [[e, {"sha256": "x"}] for e in event_ids] if version.server_made_event_ids else list(event_ids)


def random_graph(version: RoomVersion, seed: str, *, rounds: int = 3, steps: int = 8) -> Graph:
    """The room of this seed."""
    return RandomRoom(version, Random(seed)).grow(rounds=rounds, steps=steps)
