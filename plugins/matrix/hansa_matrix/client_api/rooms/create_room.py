"""Translates a request for a new room into the events that the room begins with. SPEC: client-server API,
"Creation".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa_matrix.client_api.http import get_string
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.rooms.create_room import InitialEvent, RoomTemplate

_PRESETS = {
    "private_chat": ("invite", "shared", "can_join"),
    "trusted_private_chat": ("invite", "shared", "can_join"),
    "public_chat": ("public", "shared", "forbidden"),
}
_MAX_INITIAL_STATE = 200
#: People that a room is made for.
_MAX_INVITEES = 100


def user_ids(body: Mapping[str, Any], key: str, code: str = "M_INVALID_PARAM") -> list[str]:
    """A list of user ids of a body, each once. Raises the error answer of anything else."""
    value = body.get(key, [])
    if not isinstance(value, list) or len(value) > _MAX_INVITEES or not all(map(ids.is_valid_user_id, value)):
        raise matrix_error(400, code, f"{key} must be a list of user IDs, of {_MAX_INVITEES} at most")
    return list(dict.fromkeys(value))


def _default_power_levels(creator: str, version: RoomVersion) -> dict[str, Any]:
    """Returns the power levels of a room that a user creates."""
    high = 150 if version.privileged_creators else 100
    return {
        "users": {} if version.privileged_creators else {creator: 100},
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.encryption": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": high,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0,
        "historical": 100,
    }


def template_from_request(
    creator: str,
    version: RoomVersion,
    body: Mapping[str, Any],
    invited: Mapping[str, Mapping[str, Any]],
    shown: Mapping[str, Any],
) -> RoomTemplate:
    """Of the body of ``/createRoom``; ``invited`` has what the invites say, ``shown`` what its creator says
    of themselves. Raises the error answer of what is none.
    """
    visibility = body.get("visibility", "private")
    preset = body.get("preset", "public_chat" if visibility == "public" else "private_chat")
    if not isinstance(preset, str) or preset not in _PRESETS:
        raise matrix_error(400, "M_INVALID_PARAM", "the preset does not exist")
    rule, history, guests = _PRESETS[preset]
    create = body.get("creation_content", {})
    if not isinstance(create, dict):
        raise matrix_error(400, "M_BAD_JSON", "creation_content must be an object")
    create = {k: v for k, v in create.items() if k not in {"creator", "room_version"}}
    creators = user_ids(create, "additional_creators", code="M_BAD_JSON")
    levels = _default_power_levels(creator, version)
    if preset == "trusted_private_chat" and version.privileged_creators:
        create["additional_creators"] = list(dict.fromkeys([*creators, *invited]))
    elif preset == "trusted_private_chat":
        levels["users"] |= dict.fromkeys(invited, 100)
    override = body.get("power_level_content_override", {})
    if not isinstance(override, dict):
        raise matrix_error(400, "M_BAD_JSON", "power_level_content_override must be an object")
    then: list[InitialEvent] = [
        ("m.room.join_rules", "", {"join_rule": rule}),
        ("m.room.history_visibility", "", {"history_visibility": history}),
        ("m.room.guest_access", "", {"guest_access": guests}),
    ]
    given = _initial_state(body)
    named = {(type_, key) for type_, key, _ in given}
    then = [step for step in then if step[:2] not in named] + given
    if body.get("name"):
        then.append(("m.room.name", "", {"name": get_string(body, "name")}))
    if body.get("topic"):
        topic = get_string(body, "topic")
        plain = {"m.text": [{"body": topic}]}
        then.append(("m.room.topic", "", {"topic": topic, "m.topic": plain}))
    return RoomTemplate(
        create=create,
        member=shown,
        levels={**levels, **override},
        then=then,
        invited=invited,
        published=visibility == "public",
    )


def _initial_state(body: Mapping[str, Any]) -> list[InitialEvent]:
    listed = body.get("initial_state", [])
    if not isinstance(listed, list) or len(listed) > _MAX_INITIAL_STATE:
        raise matrix_error(400, "M_BAD_JSON", "initial_state must be a list of state events")
    found: list[InitialEvent] = []
    for one in listed:
        if not isinstance(one, dict) or not isinstance(one.get("content"), dict):
            raise matrix_error(400, "M_BAD_JSON", "each entry of initial_state must be a state event")
        step = (get_string(one, "type"), get_string(one, "state_key", ""), one["content"])
        if step[0] == MEMBER:
            raise matrix_error(400, "M_INVALID_PARAM", f"{step[0]} cannot be initial state")
        found.append(step)
    return found
