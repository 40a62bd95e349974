"""The authorisation rules, case by case (tests/vectors/auth_rules.json), and what callers rely on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hansa_matrix.proto.auth_rules.rules as auth_module
import pytest
from hansa.model.errors import LocalProtocolError
from hansa_matrix.proto.auth_rules.levels import PowerLevelCache
from hansa_matrix.proto.auth_rules.rules import (
    auth_event_keys,
    auth_event_keys_of,
    check_auth_events,
    check_event_auth,
    redaction_allowed,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from matrix.proto.auth_cases import VECTORS, build
from matrix.proto.room_graph import ALL_VERSIONS, V10, V11, create_event, make, state_of

STATE_CASES = [
    pytest.param(VERSIONS[number], case, id=f"v{number}: {case['name']}")
    for case in VECTORS["state"]
    for number in case["versions"]
]
OWN_CASES = [
    pytest.param(VERSIONS[number], case, id=f"v{number}: {case['name']}")
    for case in VECTORS["own"]
    for number in case["versions"]
]
MEMO = PowerLevelCache()


def signed_by(case: Mapping[str, Any]) -> Any:
    servers = case.get("signed_by")
    return (lambda _: True) if servers is None else servers.__contains__


@pytest.mark.parametrize(("version", "case"), STATE_CASES)
def test_state_rules(version: RoomVersion, case: dict[str, Any]) -> None:
    built = build(version, case)
    asked: list[Sequence[str]] = []

    def third_party_ok(signed: Mapping[str, Any], keys: Sequence[str]) -> bool:
        asked.append(keys)
        return bool(case["third_party"])

    for levels in (auth_module.PowerLevels, MEMO, PowerLevelCache(1)):
        reject = check_event_auth(
            built.pdu,
            built.state,
            version,
            signed_by=signed_by(case),
            third_party_ok=third_party_ok,
            levels=levels,
        )
        assert (reject and reject.rule) == case["rule"], reject
    assert all(list(keys) == ["k1", "k2"] for keys in asked)


@pytest.mark.parametrize(("version", "case"), STATE_CASES)
def test_state_rules_read_only_what_an_event_may_cite(version: RoomVersion, case: dict[str, Any]) -> None:
    built = build(version, case)
    read: set[StateKey] = set()

    class Spy(dict[StateKey, Pdu]):
        def get(self, key: StateKey, default: Any = None) -> Any:
            read.add(key)
            return super().get(key, default)

    check_event_auth(built.pdu, Spy(built.state), version, third_party_ok=lambda *_: True)
    assert read <= {*auth_event_keys_of(built.pdu, version), ("m.room.create", "")}


@pytest.mark.parametrize(("version", "case"), OWN_CASES)
def test_own_rules(version: RoomVersion, case: dict[str, Any]) -> None:
    pdu, known = own_event(version, case)
    cited = [known[event_id] for event_id in pdu.auth_events]
    create = None if case.get("no_create") else known["$C"]
    reject = check_auth_events(pdu, cited, version, create=create, rejected=case.get("rejected", ()))
    assert (reject and reject.rule) == case["rule"], reject


def own_event(version: RoomVersion, case: Mapping[str, Any]) -> tuple[Pdu, dict[str, Pdu]]:
    event = dict(case["event"])
    if event["type"] == "m.room.create":
        content = {"room_version": version.id, "creator": event["sender"], **event["content"]}
        content = {name: value for name, value in content.items() if name not in event.get("drop", ())}
        more = {"room_id": event["room_id"]} if "room_id" in event else {}
        pdu = make(version, "$C", event["type"], event["sender"], content, prev=event["prev"], **more)
        if "room_id" in event:
            pdu.raw["room_id"] = event["room_id"]
        return pdu, {"$C": pdu}
    auth = list(case["auth"])
    if not version.room_id_is_create_hash and not case.get("bare"):
        auth.insert(0, "$C")
    room = {"room_id": event["room_id"]} if "room_id" in event else {}
    pdu = make(
        version,
        "$EVENT",
        event["type"],
        event["sender"],
        event["content"],
        state_key=event["state_key"],
        auth=auth,
        **room,
    )
    join = {"membership": "join"}
    citable = (
        create_event(version),
        make(version, "$PL", "m.room.power_levels", "@a:x"),
        make(version, "$PL2", "m.room.power_levels", "@a:x"),
        make(version, "$JR", "m.room.join_rules", "@a:x"),
        make(version, "$MB", "m.room.member", "@b:y", join, state_key="@b:y"),
        make(version, "$MBo", "m.room.member", "@b:y", join, state_key="@b:y", room_id="!elsewhere"),
        make(version, "$MC", "m.room.member", "@c:z", join, state_key="@c:z"),
        make(version, "$3P", "m.room.third_party_invite", "@b:y", state_key="tok"),
        make(version, "$MSG", "m.room.message", "@b:y", state_key=None),
    )
    return pdu, {other.event_id: other for other in citable}


def test_every_rule_has_a_vector_that_it_refuses_and_accepted_neighbours() -> None:
    sources = Path(auth_module.__file__).parent.glob("*.py")
    rules = {
        rule for path in sources for rule in re.findall(r'AuthRejection\(\s*f?"([\w.{}]+)"', path.read_text())
    }
    rules -= {"10.{name}"}
    rules |= {"10.events", "10.notifications"}
    vectors = [*VECTORS["state"], *VECTORS["own"]]
    for version in ALL_VERSIONS:
        refused = {case["rule"] for case in vectors if version.id in case["versions"]}
        missing = rules - refused - {"1.creator"} - absent(version)
        assert not missing, version.id
    assert {case["rule"] for case in vectors} - {None} | {"11.redaction"} == rules


def absent(version: RoomVersion) -> set[str]:
    """The rules that a version does not have; that of redactions has tests of its own."""
    return {
        *(
            {"3.create"}
            if version.room_id_is_create_hash
            else {"1.additional_creators", "2.room_id", "10.creator"}
        ),
        *(() if version.special_aliases_auth else {"4.aliases"}),
        *(() if version.checks_notification_levels else {"10.notifications"}),
        *(() if version.restricted else {"5.authorised", "5.join.restricted"}),
        *(() if version.knock else {"5.knock.rule", "5.knock.sender", "5.knock.membership"}),
        "11.redaction",
    }


def test_cited_events_must_be_given() -> None:
    pdu = make(V11, "$E", "m.room.message", "@a:x", state_key=None, auth=("$C", "$PL"))
    with pytest.raises(LocalProtocolError, match="PL"):
        check_auth_events(pdu, [create_event(V11)], V11)


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"v{v.id}")
def test_selected_keys(version: RoomVersion) -> None:
    create = set() if version.room_id_is_create_hash else {("m.room.create", "")}
    always = {("m.room.power_levels", ""), ("m.room.member", "@s:x")} | create
    target, rules = ("m.room.member", "@t:y"), ("m.room.join_rules", "")

    def selected(
        content: Mapping[str, Any], type_: str = "m.room.member", key: str | None = "@t:y"
    ) -> set[StateKey]:
        return set(auth_event_keys(type_, "@s:x", key, content, version))

    assert selected({}, "m.room.create", "") == set()
    assert selected({}, "m.room.message", None) == always
    assert selected({"membership": "ban"}, "m.room.topic", "") == always
    for membership in ("leave", "ban"):
        assert selected({"membership": membership}) == always | {target}
    for membership in ("join", "invite", "knock"):
        assert selected({"membership": membership}) == always | {target, rules}
    by = {"join_authorised_via_users_server": "@r:z"}
    who = {("m.room.member", "@r:z")} if version.restricted else set()
    assert selected({"membership": "join", **by}) == always | {target, rules} | who
    assert selected({"membership": "invite", **by}) == always | {target, rules}
    token = {"third_party_invite": {"signed": {"token": "tok"}}}
    third_party = ("m.room.third_party_invite", "tok")
    assert selected({"membership": "invite", **token}) == always | {target, rules, third_party}
    assert selected({"membership": "join", **token}) == always | {target, rules}


HOSTILE = (None, True, 0, -1, 1.5, "", "x", [], ["join"], {}, {"signed": 7}, {"signed": {"token": []}})


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"v{v.id}")
@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_no_content_of_any_type_makes_a_rule_raise(version: RoomVersion, value: object) -> None:
    names = (
        "membership",
        "join_rule",
        "third_party_invite",
        "join_authorised_via_users_server",
        "creator",
        "m.federate",
    )
    content = {
        **dict.fromkeys(names, value),
        "users": value,
        "events": value,
        "additional_creators": value,
        "ban": value,
    }
    kinds = (
        "m.room.member",
        "m.room.power_levels",
        "m.room.join_rules",
        "m.room.third_party_invite",
        "m.room.topic",
    )
    state = state_of(
        [
            create_event(version, **{**content, "room_version": version.id}),
            *(make(version, "$" + kind, kind, "@a:x", content) for kind in kinds),
            make(
                version, "$MA", "m.room.member", "@a:x", {**content, "membership": "join"}, state_key="@a:x"
            ),
        ]
    )
    for kind in kinds:
        for state_key in (None, "", "@a:x", "@b:y", "@"):
            for membership in (value, "join", "invite", "leave", "ban", "knock"):
                odd = make(
                    version, "$E", kind, "@a:x", {**content, "membership": membership}, state_key=state_key
                )
                check_event_auth(odd, state, version)
                check_auth_events(odd, (), version, create=state[("m.room.create", "")])


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"v{v.id}")
def test_a_redaction_takes_effect_by_level_or_by_server(version: RoomVersion) -> None:
    def redaction(sender: str, target: str = "$T", **more: Any) -> Pdu:
        named = {"content": {"redacts": target}} if version.redacts_in_content else {"redacts": target}
        content = named.pop("content", {})
        return make(version, "$R", "m.room.redaction", sender, content, state_key=None, **named, **more)

    target = make(version, "$T", "m.room.message", "@t:t", state_key=None)
    users = {"@b:y": 50, "@c:z": 49} if version.privileged_creators else {"@a:x": 100, "@b:y": 50, "@c:z": 49}
    levels = make(version, "$PL", "m.room.power_levels", "@a:x", {"users": users})
    state = state_of([create_event(version), levels])
    assert redaction_allowed(redaction("@a:x"), target, state, version)
    assert redaction_allowed(redaction("@b:y"), target, state, version)
    assert not redaction_allowed(redaction("@c:z"), target, state, version)
    assert redaction_allowed(redaction("@other:t"), target, state, version)
    assert not redaction_allowed(redaction("@b:y", "$other"), target, state, version)
    assert not redaction_allowed(redaction("@b:y", room_id="!elsewhere"), target, state, version)
    higher = make(version, "$PL", "m.room.power_levels", "@a:x", {"users": users, "redact": 51})
    assert not redaction_allowed(redaction("@b:y"), target, {**state, higher.key: higher}, version)
    assert not redaction_allowed(redaction("@b:y"), target, {}, version)


def test_the_redacts_key_of_the_other_version_counts_for_nothing() -> None:
    for version, content, more in ((V10, {"redacts": "$T"}, {}), (V11, {}, {"redacts": "$T"})):
        target = make(version, "$T", "m.room.message", "@a:x", state_key=None)
        pdu = make(version, "$R", "m.room.redaction", "@a:x", content, state_key=None, **more)
        assert not redaction_allowed(pdu, target, state_of([create_event(version)]), version)
