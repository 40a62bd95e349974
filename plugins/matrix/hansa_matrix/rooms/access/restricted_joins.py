"""The users who can authorise a join into a restricted room. SPEC: server-server API, "Restricted rooms"."""

from __future__ import annotations

from collections.abc import Mapping

from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, JOIN_RULES_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.state_content import allowed_rooms, join_rule
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.state.state_groups import StateIds

_NOT_GRANTED, _NOT_KNOWN = "M_UNABLE_TO_GRANT_JOIN", "M_UNABLE_TO_AUTHORISE_JOIN"
#: The codes of what another resident of the room may allow.
UNABLE = frozenset([_NOT_GRANTED, _NOT_KNOWN])


class RestrictedJoins:
    """The conditions of restricted rooms, as far as they are ours to check."""

    def __init__(self, entitled: ServerAccess) -> None:
        self._rooms = entitled.rooms
        self._server = entitled.own.server

    async def find_authoriser(self, room: MatrixRoom, user: str) -> str | None:
        """Returns the local user in whose name ``user`` may join; None if the join needs none, or other rules
        decide. Raises the error answer for a join that this server cannot authorise.
        """
        state = await room.state()
        keys = [JOIN_RULES_KEY, POWER_LEVELS_KEY, (MEMBER, user)]
        known = await room.events_of(state, keys)
        rules = known.get(JOIN_RULES_KEY)
        rule = join_rule(rules.content) if rules is not None else None
        if not _is_restricted_rule(rule, room) or rules is None:
            return None
        own = known.get((MEMBER, user))
        if own is not None and own.membership in {"join", "invite", "ban"}:
            return None
        await self._require_allow_rule(rules, user)
        granting = await self._find_inviter(room, state, known)
        if granting is None:
            raise matrix_error(400, _NOT_GRANTED, "no user of this server may invite into that room")
        return granting

    async def _require_allow_rule(self, rules: Pdu, user: str) -> None:
        named = allowed_rooms(rules.content)
        rooms = [self._rooms.get(name) for name in named]
        ours = [room for room in rooms if room is not None and room.resident]
        for room in ours:
            member = (await room.events_of(await room.state(), [(MEMBER, user)])).get((MEMBER, user))
            if member is not None and member.membership == "join":
                return
        if len(ours) < len(named):
            text = "this server is not in every room whose members may join"
            raise matrix_error(400, _NOT_KNOWN, text)
        raise matrix_error(403, "M_FORBIDDEN", f"{user} is in none of the rooms whose members may join")

    async def _find_inviter(
        self, room: MatrixRoom, state: StateIds, known: Mapping[StateKey, Pdu]
    ) -> str | None:
        """Returns a local user who is joined and may invite, the one with the highest level first."""
        levels = room.levels(known[CREATE_KEY], known.get(POWER_LEVELS_KEY), room.version)
        ours = [k[1] for k in state if k[0] == MEMBER and ids.domain_of(k[1]) == self._server]
        ours = [user for user in ours if levels.user_level(user) >= levels.invite]
        ours.sort(key=lambda user: (-levels.user_level(user), user))
        return await anext(room.joined_of(state, ours), None)


def _is_restricted_rule(rule: str | None, room: MatrixRoom) -> bool:
    return (rule == "restricted" and room.version.restricted) or (
        rule == "knock_restricted" and room.version.knock_restricted
    )
