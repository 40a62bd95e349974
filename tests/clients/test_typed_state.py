"""State of every wrong JSON type, from a server with the power to set it: every reader answers all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clients.people import House, house, part
from clients.test_strangers import filled, routes
from hansa_matrix.proto.pdu import from_raw
from matrix.inbound import OURS, V1
from matrix.test_route_fuzz import routes as federation_routes

DEEP: Any = "x"
for _ in range(30):
    DEEP = [{"a": DEEP}]
WRONG: dict[str, Any] = {
    "null": None, "list": ["x"], "nested": [["x"]], "dict": {"x": {}}, "string": "x", "number": 7, "bool": True, "deep": DEEP,
}  # fmt: skip
#: The fields that somebody reads, by type of state.
FIELDS = {
    "m.room.join_rules": ("join_rule", "allow"),
    "m.room.history_visibility": ("history_visibility",),
    "m.room.guest_access": ("guest_access",),
    "m.room.canonical_alias": ("alias", "alt_aliases"),
    "m.room.name": ("name",),
    "m.room.topic": ("topic", "m.topic"),
    "m.room.avatar": ("url", "info"),
    "m.room.encryption": ("algorithm", "rotation_period_ms", "rotation_period_msgs"),
    "m.room.tombstone": ("replacement_room", "body"),
    "m.room.pinned_events": ("pinned",),
    "m.room.aliases": ("aliases",),
    "m.room.third_party_invite": ("display_name", "key_validity_url", "public_key", "public_keys"),
    "m.space.child": ("via", "order", "suggested"),
    "m.space.parent": ("via", "canonical"),
    "m.room.server_acl": ("deny", "allow_ip_literals"),
    "m.room.member": ("displayname", "avatar_url", "is_direct", "reason", "join_authorised_via_users_server"),
    "m.room.power_levels": ("notifications", "events_default", "users_default", "events", "ban", "invite", "kick", "redact", "state_default"),
}  # fmt: skip


def contents(type_: str, value: Any, user: str) -> Iterator[dict[str, Any]]:
    """One field wrong at a time, then all at once, beside what the event needs to be taken."""
    base: dict[str, Any] = {}
    if type_ == "m.room.member":
        base = {"membership": "join"}
    elif type_ == "m.room.power_levels":
        base = {"users": {user: 100, f"@hansa:{OURS}": 100}}
    elif type_ == "m.room.server_acl":
        base = {"allow": ["*"]}
    for field in FIELDS[type_]:
        yield {**base, field: value}
    if type_ != "m.room.power_levels":
        yield {**base, **dict.fromkeys(FIELDS[type_], value)}


async def ask_everything(home: House, reader: Any, room: str, event: str, where: str) -> int:
    router, asked = home.app.routers[OURS], 0
    given = {
        "room": room, "event": event, "event_id": event, "v": event, "user": reader.user, "user_id": reader.user,
        "device": reader.device, "kind": "m.read", "key": "", "alias": f"#one:{OURS}", "server": OURS,
    }  # fmt: skip
    for method, parts in routes(router):
        if method != "GET" or parts[-1] in {"sync", "events"} or "{room}" not in parts:
            continue
        for type_ in FIELDS if "{type}" in parts else ("m.room.name",):
            target = filled(parts, given | {"type": type_})
            answer = await reader.whole(method, target)
            asked += 1
            assert answer.status < 500, f"{answer.status} to {target} with {where}: {answer.body[:300]!r}"
    for target in ("/sync?full_state=true", "/publicRooms", "/joined_rooms", "/notifications"):
        assert (await reader.whole("GET", target)).status == 200, f"{target} with {where}"
    for method, parts in federation_routes(router):
        if method == "GET":
            target = filled(parts, given) + f"?event_id={part(event)}&v={part(event)}&ver=12&limit=10"
            status, answer = await home.wire.ask(method, target)
            asked += 1
            assert status < 500, f"{status} to {target} with {where}: {answer}"
    return asked


@pytest.mark.parametrize("version", ["1", "6", "10", "12"])
async def test_no_type_of_state_takes_an_answer_from_anybody(tmp_path, caplog, version):
    async with house(tmp_path, version, origin_rate=0) as home:
        wire, alice = home.wire, await home.person("alice")
        joined, forger = wire.room, wire.forger
        await alice.join(joined.room_id)
        users = {joined.user: 100} | ({f"@hansa:{OURS}": 100} if version != "12" else {})
        event = await home.app.network("matrix")._administration.state(
            joined.room_id, "m.room.power_levels", "", {"users": users}
        )
        event = (
            event
            if isinstance(event, str)
            else (await alice.get(f"/rooms/{part(joined.room_id)}/messages?dir=b&limit=1"))["chunk"][0][
                "event_id"
            ]
        )
        status, answer = await wire.ask("GET", f"{V1}/event/{part(event)}")
        assert status == 200, answer
        joined.keep(from_raw(answer["pdus"][0], joined.version))
        taken = asked = 0
        for name, value in WRONG.items():
            for type_ in FIELDS:
                key = joined.user if type_ == "m.room.member" else ""
                for content in contents(type_, value, joined.user):
                    if version == "12" and type_ == "m.room.power_levels":
                        content["users"].pop(f"@hansa:{OURS}", None)
                    raw = forger.finish(joined, forger.draft(joined, type_, content, key))
                    if await wire.fate(raw) == "accepted":
                        joined.keep(from_raw(raw, joined.version))
                        taken += 1
                tip = next(iter(joined.tips))
            asked += await ask_everything(home, alice, joined.room_id, tip, name)
        print(version, taken, asked)
        assert taken > 150
        assert asked > 200
        assert home.app.counters.get(("http_internal_errors", ()), 0) == 0
        assert home.app.runners["matrix"].restarts == 0
        assert not [r for r in caplog.records if r.exc_info]
