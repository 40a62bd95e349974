"""Acts of users in a random room: each is an event's type, sender, state key and content, allowed or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion

#: type, sender, state key, content
Act = tuple[str, str, str | None, dict[str, Any]]
Pdus = Mapping[StateKey, Pdu]

USERS = ("@a:x", "@b:y", "@c:z", "@d:x", "@e:y", "@f:z")
RULES = ("public", "public", "invite", "knock", "restricted", "knock_restricted", "private")
LEVELS = (0, 0, 10, 25, 50, 50, 75, 99, 100, 101, 2**53 - 1)
SCALARS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
TYPES = ("m.room.topic", "m.room.name", "m.room.message", "m.room.power_levels", "m.room.join_rules")


@dataclass(frozen=True)
class People:
    """The acting users and their source of chance. ``creators`` are those that power levels may not name."""

    random: Random
    creators: frozenset[str]
    version: RoomVersion


Action = Callable[[People, str, str, Pdus], Act]


def rules_content(rule: str) -> dict[str, Any]:
    content: dict[str, Any] = {"join_rule": rule}
    if "restricted" in rule:
        content["allow"] = [{"type": "m.room_membership", "room_id": "!space:x"}]
    return content


def first_levels(people: People, founder: str) -> dict[str, Any]:
    random = people.random
    users = {user: random.choice(LEVELS[:-2]) for user in random.sample(USERS, random.randint(0, 4))}
    users[founder] = 100
    content: dict[str, Any] = {"users": {u: v for u, v in users.items() if u not in people.creators}}
    for name in SCALARS:
        if random.random() < 0.25:
            content[name] = random.choice((0, 0, 10, 25, 50))
    if random.random() < 0.4:
        content["events"] = {random.choice(TYPES): random.choice((0, 10, 50, 60))}
    return content


def join(people: People, sender: str, target: str, state: Pdus) -> Act:
    content: dict[str, Any] = {"membership": "join"}
    rules = state.get(("m.room.join_rules", ""))
    if rules is not None and "restricted" in rules.content["join_rule"] and people.random.random() < 0.8:
        content["join_authorised_via_users_server"] = people.random.choice(USERS)
    if people.random.random() < 0.3:
        content["displayname"] = f"{people.random.randrange(1000)}"
    who = people.random.choice((sender, target, target))
    return "m.room.member", who, who, content


def leave(people: People, sender: str, target: str, state: Pdus) -> Act:
    return "m.room.member", sender, sender, {"membership": "leave"}


def of_another(membership: str) -> Action:
    def act(people: People, sender: str, target: str, state: Pdus) -> Act:
        return "m.room.member", sender, target, {"membership": membership}

    return act


def knock(people: People, sender: str, target: str, state: Pdus) -> Act:
    who = people.random.choice((target, target, sender))
    return "m.room.member", who, target, {"membership": "knock"}


def odd_member(people: People, sender: str, target: str, state: Pdus) -> Act:
    return "m.room.member", sender, target, {"membership": people.random.choice(("join", "dance", ""))}


def levels(people: People, sender: str, target: str, state: Pdus) -> Act:
    random = people.random
    current = state.get(("m.room.power_levels", ""))
    content = {} if current is None else orjson.loads(orjson.dumps(current.raw["content"]))
    for _ in range(random.choice((1, 1, 2))):
        _change(random, content, random.choice((sender, target, target)))
    if random.random() < 0.03:
        name, value = random.choice(ODD_LEVELS if not people.version.string_power_levels else LAX_LEVELS)
        content[name] = value
    if random.random() < 0.97:
        for creator in people.creators:
            content.get("users", {}).pop(creator, None)
    return "m.room.power_levels", sender, "", content


ODD_LEVELS = (("ban", "50"), ("events", {"x": None}), ("users", {"nobody": 1}), ("kick", True))
#: Where a string may be a level; Synapse raises an internal error for what is none of a kind that it reads.
LAX_LEVELS = (("ban", "50"), ("users_default", " +25 "), ("users", {"nobody": 1}), ("users", {"@b:y": "x"}))


def _change(random: Random, content: dict[str, Any], user: str) -> None:
    what = random.random()
    if what < 0.5:
        _set(random, content.setdefault("users", {}), user)
    elif what < 0.75:
        _set(random, content, random.choice(SCALARS))
    elif what < 0.9:
        _set(random, content.setdefault("events", {}), random.choice(TYPES))
    else:
        _set(random, content.setdefault("notifications", {}), "room")


def _set(random: Random, where: dict[str, Any], name: str) -> None:
    if random.random() < 0.25:
        where.pop(name, None)
    else:
        where[name] = random.choice(LEVELS)


def join_rules(people: People, sender: str, target: str, state: Pdus) -> Act:
    return "m.room.join_rules", sender, "", rules_content(people.random.choice(RULES))


def some_state(people: People, sender: str, target: str, state: Pdus) -> Act:
    kind = people.random.choice(("m.room.topic", "m.room.name", "m.room.topic", "org.example.odd"))
    key = "" if kind != "org.example.odd" else people.random.choice((sender, target, "k"))
    return kind, sender, key, {"text": f"{people.random.randrange(1000)}"}


def message(people: People, sender: str, target: str, state: Pdus) -> Act:
    return "m.room.message", sender, None, {"body": f"{people.random.randrange(1000)}"}


def third_party(people: People, sender: str, target: str, state: Pdus) -> Act:
    return "m.room.third_party_invite", sender, f"token{people.random.randrange(3)}", {"public_key": "x"}


def aliases(people: People, sender: str, target: str, state: Pdus) -> Act:
    whose = people.random.choice((sender, sender, target)).partition(":")[2]
    return "m.room.aliases", sender, whose, {"aliases": []}


def redaction(people: People, sender: str, target: str, state: Pdus) -> Act:
    return "m.room.redaction", sender, None, {"reason": f"{people.random.randrange(1000)}"}


kick, ban, invite = of_another("leave"), of_another("ban"), of_another("invite")

ACTIONS = (
    join, join, join, join, leave, kick, kick, ban, ban, invite, invite, knock, odd_member,
    levels, levels, levels, levels, join_rules, join_rules, some_state, some_state, some_state, message, third_party,
    aliases, redaction,
)  # fmt: skip
