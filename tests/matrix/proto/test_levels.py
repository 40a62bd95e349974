"""Power levels: defaults, creators, and the memo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hansa_matrix.proto.auth_rules.levels import INFINITE, PowerLevelCache, PowerLevels, creators_of
from hansa_matrix.proto.room_versions import RoomVersion
from matrix.proto.room_graph import ALL_VERSIONS, V10, V11, V12, create_event, make

each_version = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"v{v.id}")


def power_levels(version: RoomVersion, **content: Any) -> Any:
    return make(version, "$PL", "m.room.power_levels", "@a:x", content)


@each_version
def test_mistake_10_defaults_with_and_without_an_event(version: RoomVersion) -> None:
    for event in (None, power_levels(version)):
        levels = PowerLevels(create_event(version), event, version)
        named = (levels.ban, levels.kick, levels.redact, levels.invite)
        assert named == (50, 50, 50, 0)
        assert levels.required_level("m.room.topic", is_state=True) == 50
        assert levels.required_level("m.room.message", is_state=False) == 0
        assert levels.user_level("@nobody:z") == 0


def test_the_creator() -> None:
    for version in (V10, V11):
        assert PowerLevels(create_event(version), None, version).user_level("@a:x") == 100
        assert PowerLevels(create_event(version), power_levels(version), version).user_level("@a:x") == 0
    for event in (None, power_levels(V12), power_levels(V12, users={"@a:x": 1, "@m:x": 2})):
        levels = PowerLevels(create_event(V12, additional_creators=["@m:x"]), event, V12)
        assert levels.user_level("@a:x") == levels.user_level("@m:x") == INFINITE
        assert levels.user_level("@a:x") > 2**53


def test_who_the_creators_are() -> None:
    named = {"creator": "@n:x", "additional_creators": ["@m:x", 7]}
    assert creators_of(create_event(V10, **named), V10) == {"@n:x"}
    assert creators_of(create_event(V11, **named), V11) == {"@a:x"}
    assert creators_of(create_event(V12, **named), V12) == {"@a:x", "@m:x"}
    assert creators_of(create_event(V10, creator=["@n:x"]), V10) == set()


@each_version
def test_values_that_are_no_integers_count_as_absent(version: RoomVersion) -> None:
    for odd in ("seven", True, None, [], {}, *(() if version.string_power_levels else ("7", 7.5))):
        event = power_levels(
            version, users={"@b:y": odd}, users_default=odd, events={"t": odd}, ban=odd, state_default=odd
        )
        levels = PowerLevels(create_event(version), event, version)
        assert levels.user_level("@b:y") == 0
        assert levels.ban == 50
        assert levels.required_level("t", is_state=True) == 50


@each_version
def test_the_memo_answers_for_this_object_only_and_stays_small(version: RoomVersion) -> None:
    memo = PowerLevelCache(2)
    create = create_event(version)
    event = power_levels(version, ban=1)
    assert memo(create, event, version) is memo(create, event, version)
    redacted = replace(event, content={})
    assert memo(create, redacted, version).ban == 50
    assert memo(create, None, version).ban == 50
    for number in range(10):
        memo(create, replace(event, event_id=f"${number}", content={"ban": number}), version)
    assert memo(create, event, version).ban == 1
    assert len(memo._known) == 2
