"""The push rules: they decide which events notify a user. SPEC: client-server API, "Push Rules".

A ruleset is JSON as clients get it: ``kind -> rules``, in the order in which they are asked; a rule is an
object with ``rule_id``, ``default``, ``enabled``, ``actions``, and ``conditions`` or ``pattern``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hansa_matrix.proto.auth_rules.levels import PowerLevels
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.globs import contains_glob, is_glob, is_word_char, matches_glob

#: The rule that comes before all others, and turns everything off where it is on.
MASTER = ".m.rule.master"
#: Actions of earlier versions, which mean nothing any more.
_OBSOLETE_ACTIONS = frozenset({"dont_notify", "coalesce"})
KINDS = ("override", "content", "room", "sender", "underride")

_NOTIFY: tuple[Any, ...] = ("notify",)
_SOUND = {"set_tweak": "sound", "value": "default"}
_HIGHLIGHT = {"set_tweak": "highlight"}
#: Rules from before ``m.mentions``, which says more exactly who an event is for.
_BEFORE_MENTIONS = frozenset(
    [".m.rule.contains_display_name", ".m.rule.roomnotif", ".m.rule.contains_user_name"]
)
_MENTIONS = "m.mentions"
_MAX_PATTERN = 1000
_MAX_CONDITIONS = 100
#: Characters of a text that are looked at for a word.
MAX_TEXT = 4096
_COUNT = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,9})", re.ASCII)


def _event_match(key: str, pattern: str) -> dict[str, Any]:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _default_rule(
    name: str, conditions: Sequence[Any], *actions: Any, enabled: bool = True
) -> dict[str, Any]:
    return {
        "rule_id": f".m.rule.{name}",
        "default": True,
        "enabled": enabled,
        "conditions": list(conditions),
        "actions": list(actions),
    }


def default_rules(user: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the rules of a user who never changed them."""
    local = user[1:].partition(":")[0]
    mentioned = {
        "kind": "event_property_contains",
        "key": "content.m\\.mentions.user_ids",
        "value": user,
    }
    everybody = {"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": True}
    may_all = {"kind": "sender_notification_permission", "key": "room"}
    two = {"kind": "room_member_count", "is": "2"}
    edits = {"kind": "event_property_is", "key": "content.m\\.relates_to.rel_type", "value": "m.replace"}
    invited = [
        _event_match("type", "m.room.member"),
        _event_match("content.membership", "invite"),
        _event_match("state_key", user),
    ]
    named = {"kind": "contains_display_name"}
    return {
        "override": [
            _default_rule("master", [], enabled=False),
            _default_rule("suppress_notices", [_event_match("content.msgtype", "m.notice")]),
            _default_rule("invite_for_me", invited, *_NOTIFY, _SOUND),
            _default_rule("member_event", [_event_match("type", "m.room.member")]),
            _default_rule("is_user_mention", [mentioned], *_NOTIFY, _SOUND, _HIGHLIGHT),
            _default_rule("contains_display_name", [named], *_NOTIFY, _SOUND, _HIGHLIGHT),
            _default_rule("is_room_mention", [everybody, may_all], *_NOTIFY, _HIGHLIGHT),
            _default_rule(
                "roomnotif", [_event_match("content.body", "@room"), may_all], *_NOTIFY, _HIGHLIGHT
            ),
            _default_rule(
                "tombstone",
                [_event_match("type", "m.room.tombstone"), _event_match("state_key", "")],
                *_NOTIFY,
                _HIGHLIGHT,
            ),
            _default_rule("reaction", [_event_match("type", "m.reaction")]),
            _default_rule(
                "room.server_acl", [_event_match("type", "m.room.server_acl"), _event_match("state_key", "")]
            ),
            _default_rule("suppress_edits", [edits]),
        ],
        "content": [
            {
                "rule_id": ".m.rule.contains_user_name",
                "default": True,
                "enabled": True,
                "pattern": local,
                "actions": [*_NOTIFY, _SOUND, _HIGHLIGHT],
            }
        ],
        "room": [],
        "sender": [],
        "underride": [
            _default_rule(
                "call",
                [_event_match("type", "m.call.invite")],
                *_NOTIFY,
                {"set_tweak": "sound", "value": "ring"},
            ),
            _default_rule(
                "encrypted_room_one_to_one", [two, _event_match("type", "m.room.encrypted")], *_NOTIFY, _SOUND
            ),
            _default_rule("room_one_to_one", [two, _event_match("type", "m.room.message")], *_NOTIFY, _SOUND),
            _default_rule("message", [_event_match("type", "m.room.message")], *_NOTIFY),
            _default_rule("encrypted", [_event_match("type", "m.room.encrypted")], *_NOTIFY),
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class PushContext:
    """The user that the rules are evaluated for, their display name in the room, the member count, and the
    power levels.
    """

    user: str
    name: str
    members: int
    levels: PowerLevels


@dataclass(frozen=True, slots=True)
class PushDecision:
    """The decision of the push rules about an event: notify, highlight, and the actions of the rule that
    matched.
    """

    notify: bool = False
    highlight: bool = False
    actions: tuple[Any, ...] = field(default=(), compare=False)


def evaluate_rules(rules: Mapping[str, Any], pdu: Pdu, situation: PushContext) -> PushDecision:
    """The first enabled rule that fits decides; none that fits tells of nothing."""
    for kind in KINDS:
        for rule in rules.get(kind, ()):
            if not rule.get("enabled", True):
                continue
            if rule.get("rule_id") in _BEFORE_MENTIONS and _MENTIONS in pdu.content:
                continue
            if _rule_matches(kind, rule, pdu, situation):
                return _decision_of(rule.get("actions", ()))
    return PushDecision()


def _decision_of(actions: Sequence[Any]) -> PushDecision:
    notify = "notify" in actions
    tweaks = (one for one in actions if isinstance(one, dict) and one.get("set_tweak") == "highlight")
    highlight = any(one.get("value", True) is not False for one in tweaks)
    return PushDecision(notify=notify, highlight=notify and highlight, actions=tuple(actions))


def _rule_matches(kind: str, rule: Mapping[str, Any], pdu: Pdu, situation: PushContext) -> bool:
    if kind == "room":
        return bool(rule.get("rule_id") == pdu.room_id)
    if kind == "sender":
        return bool(rule.get("rule_id") == pdu.sender)
    if kind == "content":
        pattern, body = rule.get("pattern"), pdu.content.get("body")
        return isinstance(pattern, str) and isinstance(body, str) and _matches_words(pattern, body)
    conditions = rule.get("conditions", ())
    return all(isinstance(one, dict) and _condition_matches(one, pdu, situation) for one in conditions)


def _condition_matches(condition: Mapping[str, Any], pdu: Pdu, situation: PushContext) -> bool:
    kind, key = condition.get("kind"), condition.get("key")
    match kind:
        case "event_match":
            pattern, value = condition.get("pattern"), _event_property(pdu, key)
            if not isinstance(pattern, str) or not isinstance(value, str):
                return False
            return _matches_words(pattern, value) if key == "content.body" else _matches_all(pattern, value)
        case "event_property_is":
            return _is_same_value(_event_property(pdu, key), condition.get("value"))
        case "event_property_contains":
            values = _event_property(pdu, key)
            return isinstance(values, list) and any(
                _is_same_value(one, condition.get("value")) for one in values
            )
        case "contains_display_name":
            body = pdu.content.get("body")
            return (
                bool(situation.name)
                and isinstance(body, str)
                and _contains_words(situation.name, _truncate_text(body))
            )
        case "room_member_count":
            return _member_count_matches(condition.get("is"), situation.members)
        case "sender_notification_permission":
            return _can_notify(key, pdu.sender, situation.levels)
        case _:
            return False


def _is_same_value(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other and not isinstance(one, dict | list)


def _event_property(pdu: Pdu, key: object) -> Any:
    """Returns the value of an event under a dotted path, in which a backslash escapes a dot."""
    if not isinstance(key, str):
        return None
    first, *rest = _split_path(key)
    match first:
        case "content":
            value: Any = pdu.content
        case "type" | "sender" | "room_id" | "state_key":
            value = getattr(pdu, first)
        case _:
            return None
    for part in rest:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


@lru_cache(maxsize=2000)
def _split_path(key: str) -> tuple[str, ...]:
    return tuple(split_property_path(key))


def split_property_path(key: str) -> Iterator[str]:
    """The names in a dotted path. SPEC: appendices, "Dot-separated property paths"."""
    part, characters = "", iter(key)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            part += following if following in {"\\", "."} else "\\" + following
        elif character == ".":
            yield part
            part = ""
        else:
            part += character
    yield part


def _matches_all(glob: str, value: str) -> bool:
    if len(glob) > _MAX_PATTERN:
        return False
    if not is_glob(glob):
        return glob.lower() == value.lower()
    return len(value) <= MAX_TEXT and matches_glob(glob, value)


def _matches_words(glob: str, value: str) -> bool:
    if not glob or len(glob) > _MAX_PATTERN:
        return False
    return (
        contains_glob(glob, _truncate_text(value))
        if is_glob(glob)
        else _contains_words(glob, _truncate_text(value))
    )


def _truncate_text(text: str) -> str:
    """The beginning of a text, if it is long; no word ends where it is cut."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "_"


def _contains_words(word: str, text: str) -> bool:
    """True if a text contains a word, or several, with no word character beside them."""
    text, word = text.lower(), word.lower()
    at = text.find(word)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(word) : at + len(word) + 1]
        if not (before and is_word_char(before)) and not (after and is_word_char(after)):
            return True
        at = text.find(word, at + 1)
    return False


def _member_count_matches(wanted: object, members: int) -> bool:
    match = _COUNT.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        return False
    number = int(match[2])
    return {
        "<": members < number,
        ">": members > number,
        "<=": members <= number,
        ">=": members >= number,
    }.get(match[1] or "==", members == number)


def _can_notify(key: object, sender: str, levels: PowerLevels) -> bool:
    return isinstance(key, str) and levels.user_level(sender) >= levels.notification_level(key)


def is_valid_rule(kind: str, rule: Mapping[str, Any]) -> bool:
    """True if a value is a valid rule of a kind."""
    if not are_valid_actions(rule.get("actions")):
        return False
    if kind == "content":
        pattern = rule.get("pattern")
        return isinstance(pattern, str) and 0 < len(pattern) <= _MAX_PATTERN
    if kind in {"override", "underride"}:
        conditions = rule.get("conditions", [])
        return (
            isinstance(conditions, list)
            and len(conditions) <= _MAX_CONDITIONS
            and all(isinstance(one, dict) and _is_valid_condition(one) for one in conditions)
        )
    return kind in KINDS


def _is_valid_condition(condition: Mapping[str, Any]) -> bool:
    """True if a condition has the fields of its kind; a condition of an unknown kind matches nothing."""
    kind, key, value = condition.get("kind"), condition.get("key"), condition.get("value")
    match kind:
        case "event_match":
            pattern = condition.get("pattern")
            return isinstance(key, str) and isinstance(pattern, str) and len(pattern) <= _MAX_PATTERN
        case "event_property_is" | "event_property_contains":
            plain = value is None or isinstance(value, str | bool | int)
            return isinstance(key, str) and "value" in condition and plain
        case "room_member_count":
            count = condition.get("is")
            return isinstance(count, str) and _COUNT.fullmatch(count) is not None
        case "sender_notification_permission":
            return isinstance(key, str)
        case _:
            return isinstance(kind, str)


def are_valid_actions(actions: object) -> bool:
    """True if a value is a valid list of actions of a rule."""
    if not isinstance(actions, list) or len(actions) > 20:
        return False
    return all(
        _is_valid_tweak(one)
        if isinstance(one, dict)
        else isinstance(one, str) and one in {"notify", *_OBSOLETE_ACTIONS}
        for one in actions
    )


def _is_valid_tweak(action: Mapping[str, Any]) -> bool:
    tweak, value = action.get("set_tweak"), action.get("value")
    if tweak == "sound":
        return value is None or isinstance(value, str)
    if tweak == "highlight":
        return value is None or isinstance(value, bool)
    return isinstance(tweak, str)


def current_actions(actions: Sequence[Any]) -> list[Any]:
    """Actions without those that earlier versions had."""
    return [one for one in actions if not isinstance(one, str) or one not in _OBSOLETE_ACTIONS]
