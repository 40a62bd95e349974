"""What people of other networks change for everybody, as state events that depend on the state before: a
person's rank, who enters and who reads the history.

The events are drafted in the room's turn on the state that they follow, so that of two changes at once none
takes back the other. The rules of the room decide whether the acting person may.

SPEC: Matrix v1.19, Client-Server API, "m.room.power_levels", "m.room.join_rules",
"m.room.history_visibility".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hansa import Content, HistoryVisibility, JoinRule, Refusal, RefusalCode, Role, Standing

from hansa_matrix.conversion.room_views import has_voice, role_of_level
from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.proto.auth_rules.levels import PowerLevels, creators_of, level_table
from hansa_matrix.proto.auth_rules.state_keys import (
    CREATE_KEY,
    HISTORY_VISIBILITY,
    JOIN_RULES,
    POWER_LEVELS,
    POWER_LEVELS_KEY,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion

#: The state that a change is made of.
KEYS = (POWER_LEVELS_KEY, CREATE_KEY)

_VISIBILITIES = frozenset({"world_readable", "shared", "invited", "joined"})
_CREATOR_LEVEL = 100


@dataclass(frozen=True, slots=True)
class StateChanges:
    """Drafts changes on ``state``, which has the events of ``KEYS``. ``user`` is the Matrix id of a content's
    person.
    """

    state: Mapping[StateKey, Pdu]
    version: RoomVersion

    def draft_of(self, content: Content, user: str) -> EventDraft | Refusal | None:
        """The event of a change, why it cannot be made, or None for a content that is none."""
        match content:
            case Standing():
                return self._power_levels(content, user)
            case JoinRule(rule=rule):
                return self._join_rules(rule)
            case HistoryVisibility(visibility=visibility) if visibility in _VISIBILITIES:
                return HISTORY_VISIBILITY, "", {"history_visibility": visibility}
            case HistoryVisibility():
                return _invalid("a room of Matrix has no such history visibility")
            case _:
                return None

    def _join_rules(self, rule: str) -> EventDraft | Refusal:
        if rule in {"public", "invite"} or (rule == "knock" and self.version.knock):
            return JOIN_RULES, "", {"join_rule": rule}
        return _invalid("this room of Matrix cannot have that rule for who enters")

    def _power_levels(self, content: Standing, user: str) -> EventDraft | Refusal:
        create, before = self.state.get(CREATE_KEY), self.state.get(POWER_LEVELS_KEY)
        if create is None:
            return _invalid("the room has no create event")
        levels = PowerLevels(create, before, self.version)
        if user in levels.creators:
            return Refusal(code=RefusalCode.FORBIDDEN, text="a creator of the room keeps their rank")
        level = _level_for(content, levels)
        made: dict[str, Any] = dict(before.content) if before is not None else {}
        users = dict(level_table(made, "users"))
        if before is None and not self.version.privileged_creators:
            users = dict.fromkeys(creators_of(create, self.version), _CREATOR_LEVEL)
        users.pop(user, None)
        if level != levels.default_level:
            users[user] = level
        made["users"] = users
        after = PowerLevels(create, _with_content(before or create, made), self.version)
        if role_of_level(after, user) is not _shown_role(content) or has_voice(after, user) != _speaks(
            content
        ):
            return _invalid("the power levels of this room do not tell this rank from another one")
        return POWER_LEVELS, "", made


def _level_for(content: Standing, levels: PowerLevels) -> int:
    """The least level that gives a rank by the room's own numbers."""
    speaks = levels.required_level("m.room.message", False)  # timeline event
    match content.role:
        case Role.OWNER:
            return max(levels.required_level("m.room.power_levels", True), speaks)  # state event
        case Role.MODERATOR:
            return max(levels.ban, levels.kick, levels.redact, speaks)
        case _ if _speaks(content):
            return max(levels.default_level, speaks)
        case _:
            return min(levels.default_level, speaks - 1)


def _speaks(content: Standing) -> bool:
    return content.voice and content.role > Role.VISITOR


def _shown_role(content: Standing) -> Role:
    return content.role if _speaks(content) else Role.VISITOR


def _with_content(pdu: Pdu, content: Mapping[str, Any]) -> Pdu:
    return replace(pdu, content=content)


def _invalid(text: str) -> Refusal:
    return Refusal(code=RefusalCode.UNSUPPORTED, text=text)
