"""Presence of Matrix users as that of people of any network, and back.

SPEC: client-server API, "Presence". There is no state for a busy person, who is unavailable.
"""

from __future__ import annotations

from hansa import NativeId, PersonPresence, PresenceState

from hansa_matrix.proto.edus import PresenceEdu

_STATES = {
    "online": PresenceState.HERE,
    "unavailable": PresenceState.AWAY,
    "offline": PresenceState.OFFLINE,
}
_PRESENCES = {
    PresenceState.HERE: "online",
    PresenceState.AWAY: "unavailable",
    PresenceState.BUSY: "unavailable",
    PresenceState.OFFLINE: "offline",
}
#: The status of a person who is busy and has no text.
_BUSY_STATUS = "busy"


def parse_person_presence(one: PresenceEdu, network: str, now: int) -> PersonPresence:
    """Returns the presence of a user of the Matrix network with the id ``network``; ``now`` is in ms."""
    state = _STATES[one.presence]
    since = max(0, now - one.last_active_ago) if state is PresenceState.AWAY else 0
    return PersonPresence(user=NativeId(network, one.user), state=state, text=one.status, since=since)


def ghost_presence_edu(ghost: str, presence: PersonPresence, now: int) -> PresenceEdu:
    """Returns the presence of the ghost of a person of another network; ``now`` is in ms."""
    here, busy = presence.state is PresenceState.HERE, presence.state is PresenceState.BUSY
    return PresenceEdu(
        user=ghost,
        presence=_PRESENCES[presence.state],
        last_active_ago=0 if here or not presence.since else min(max(0, now - presence.since), 2**53 - 1),
        active=here,
        status=presence.text or (_BUSY_STATUS if busy else ""),
    )
