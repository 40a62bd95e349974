"""Push rules: the events that notify a user."""

from __future__ import annotations

from typing import Any

import pytest
from hansa_matrix.proto.auth_rules.levels import PowerLevels
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.push_rules import (
    PushContext,
    PushDecision,
    default_rules,
    evaluate_rules,
    is_valid_rule,
)
from hansa_matrix.proto.room_versions import VERSIONS

ME = "@juliet:capulet"
NOTHING, TOLD, LOUD = PushDecision(), PushDecision(notify=True), PushDecision(notify=True, highlight=True)


def event(type_: str, content: dict[str, Any], state_key: str | None = None, sender: str = "@romeo:m") -> Pdu:
    raw = {"type": type_, "content": content, "sender": sender}
    return Pdu(
        event_id="$e", room_id="!r", type=type_, sender=sender, state_key=state_key, content=content, prev_events=(),
        auth_events=(), depth=1, origin_server_ts=0, raw=raw, wire=b"{}",
    )  # fmt: skip


def said(body: str, **more: Any) -> Pdu:
    return event("m.room.message", {"msgtype": "m.text", "body": body, **more})


def situation(members: int = 3, name: str = "Juliet C.", levels: dict[str, Any] | None = None) -> PushContext:
    version = VERSIONS["11"]
    create = event("m.room.create", {}, "", "@maker:m")
    powers = event("m.room.power_levels", levels, "") if levels is not None else None
    return PushContext(user=ME, name=name, members=members, levels=PowerLevels(create, powers, version))


@pytest.mark.parametrize(
    ("pdu", "wanted"),
    [
        (said("hello"), TOLD),
        (event("m.room.encrypted", {}), TOLD),
        (event("test.note", {}), NOTHING),
        (event("m.reaction", {"m.relates_to": {"rel_type": "m.annotation"}}), NOTHING),
        (event("m.room.message", {"msgtype": "m.notice", "body": "juliet"}), NOTHING),
        (said("* better", **{"m.relates_to": {"rel_type": "m.replace"}}), NOTHING),
        (said("O juliet, juliet"), LOUD),
        (said("JULIET!"), LOUD),
        (said("juliette"), TOLD),
        (said("my_juliet"), TOLD),
        (said("for juliet c. alone"), LOUD),
        (said("你好juliet吗"), LOUD),
        (said("juliet", **{"m.mentions": {}}), TOLD),
        (said("you", **{"m.mentions": {"user_ids": [ME]}}), LOUD),
        (said("him", **{"m.mentions": {"user_ids": ["@tybalt:capulet"]}}), TOLD),
        (said("all", **{"m.mentions": {"room": True}}), TOLD),
        (said("@room look"), TOLD),
        (event("m.room.member", {"membership": "invite"}, ME), TOLD),
        (event("m.room.member", {"membership": "invite"}, "@x:y"), NOTHING),
        (event("m.room.tombstone", {}, ""), LOUD),
        (event("m.room.server_acl", {}, ""), NOTHING),
        (event("m.call.invite", {}), TOLD),
    ],
)  # fmt: skip
def test_the_rules_that_hold_for_everybody(pdu, wanted):
    assert evaluate_rules(default_rules(ME), pdu, situation()) == wanted


@pytest.mark.parametrize(("level", "wanted"), [(49, TOLD), (50, LOUD), (100, LOUD)])
def test_who_may_speak_to_all(level, wanted):
    powers = {"users": {"@romeo:m": level}}
    for pdu in (said("x", **{"m.mentions": {"room": True}}), said("@room look")):
        assert evaluate_rules(default_rules(ME), pdu, situation(levels=powers)) == wanted
    powers["notifications"] = {"room": level + 1}
    assert evaluate_rules(default_rules(ME), said("@room look"), situation(levels=powers)) == TOLD


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ({"kind": "room_member_count", "is": "3"}, True), ({"kind": "room_member_count", "is": "==3"}, True),
        ({"kind": "room_member_count", "is": "<3"}, False), ({"kind": "room_member_count", "is": "<=3"}, True),
        ({"kind": "room_member_count", "is": ">2"}, True), ({"kind": "room_member_count", "is": ">=4"}, False),
        ({"kind": "room_member_count", "is": "many"}, False), ({"kind": "room_member_count", "is": 3}, False),
        ({"kind": "event_match", "key": "content.body", "pattern": "hel*"}, True),
        ({"kind": "event_match", "key": "content.body", "pattern": "ell"}, False),
        ({"kind": "event_match", "key": "content.msgtype", "pattern": "M.T?XT"}, True),
        ({"kind": "event_match", "key": "content.msgtype", "pattern": "text"}, False),
        ({"kind": "event_match", "key": "content.none", "pattern": "*"}, False),
        ({"kind": "event_match", "key": "content.a\\.b.c", "pattern": "d"}, True),
        ({"kind": "event_match", "key": "content.a.b.c", "pattern": "d"}, False),
        ({"kind": "event_property_is", "key": "content.n", "value": 1}, True),
        ({"kind": "event_property_is", "key": "content.n", "value": True}, False),
        ({"kind": "event_property_is", "key": "content.list", "value": [1]}, False),
        ({"kind": "event_property_contains", "key": "content.list", "value": 1}, True),
        ({"kind": "event_property_contains", "key": "content.n", "value": 1}, False),
        ({"kind": "something new"}, False), ({}, False), ({"kind": "event_match"}, False),
    ],
)  # fmt: skip
def test_conditions(condition, wanted):
    rules = {
        "override": [{"rule_id": "x", "enabled": True, "conditions": [condition], "actions": ["notify"]}]
    }
    pdu = said("hello there", n=1, list=[1], **{"a.b": {"c": "d"}})
    assert evaluate_rules(rules, pdu, situation()).notify is wanted


def test_the_first_that_fits_decides_and_what_is_off_does_not():
    rules = default_rules(ME)
    rules["override"][0]["enabled"] = True  # the switch that turns all off
    assert evaluate_rules(rules, said("juliet"), situation()) == NOTHING
    rules["override"][0]["enabled"] = False
    rules["sender"].append({"rule_id": "@romeo:m", "enabled": True, "actions": []})
    assert evaluate_rules(rules, said("hello"), situation()) == NOTHING
    rules["room"].append({"rule_id": "!r", "enabled": True, "actions": ["notify"]})
    assert evaluate_rules(rules, said("hello"), situation()) == TOLD


def test_patterns_that_could_take_for_ever_do_not():
    pattern = "*a" * 200
    rules = {
        "override": [
            {
                "rule_id": "x",
                "conditions": [{"kind": "event_match", "key": "content.body", "pattern": pattern}],
                "actions": ["notify"],
            }
        ]
    }
    assert evaluate_rules(rules, said("a" * 50_000 + "b"), situation()) == NOTHING


@pytest.mark.parametrize(
    ("kind", "rule", "good"),
    [
        ("override", {"actions": ["notify"], "conditions": []}, True), ("content", {"actions": [], "pattern": "x"}, True),
        ("content", {"actions": []}, False), ("room", {"actions": [{"set_tweak": "sound"}]}, True),
        ("override", {"actions": "notify"}, False), ("override", {"actions": [7]}, False), ("override", {}, False),
        ("underride", {"actions": [], "conditions": [{}]}, False), ("none", {"actions": []}, False),
    ],
)  # fmt: skip
def test_what_can_be_a_rule(kind, rule, good):
    assert is_valid_rule(kind, rule) is good
