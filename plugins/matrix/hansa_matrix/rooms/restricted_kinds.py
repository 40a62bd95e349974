"""What only people with a power level may do in a room. SPEC: client-server API, ``m.room.power_levels``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hansa import Kind

from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, POWER_LEVELS_KEY
from hansa_matrix.rooms.room import MatrixRoom

#: The event of each kind, and whether it is state.
_EVENTS: Mapping[Kind, tuple[str, bool]] = {
    Kind.MESSAGE: ("m.room.message", False),
    Kind.EDIT: ("m.room.message", False),
    Kind.LOCATION: ("m.room.message", False),
    Kind.CALL: ("m.room.message", False),
    Kind.REACTION: ("m.reaction", False),
    Kind.RETRACTION: ("m.room.redaction", False),
    Kind.POLL_START: ("org.matrix.msc3381.poll.start", False),
    Kind.POLL_VOTE: ("org.matrix.msc3381.poll.response", False),
    Kind.POLL_END: ("org.matrix.msc3381.poll.end", False),
    Kind.NAME: ("m.room.name", True),
    Kind.TOPIC: ("m.room.topic", True),
    Kind.AVATAR: ("m.room.avatar", True),
}


async def restricted_kinds(room: MatrixRoom) -> Collection[Kind]:
    """The kinds whose events take more than the level of a user who has none of their own."""
    powers = await room.events_of(await room.state(), [POWER_LEVELS_KEY])
    levels = room.levels(powers[CREATE_KEY], powers.get(POWER_LEVELS_KEY), room.version)
    everybody = levels.user_level("")
    return [kind for kind, event in _EVENTS.items() if levels.required_level(*event) > everybody]
