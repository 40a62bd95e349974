"""Push rules: read, changed, kept, and counted by."""

from __future__ import annotations

import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa_matrix.proto.push_rules import default_rules


async def counts(person, room):
    return (await person.sync("&full_state=true"))["rooms"]["join"][room]["unread_notifications"][
        "notification_count"
    ]


async def test_rules_are_read_changed_and_removed(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        assert (await bob.get("/pushrules/"))["global"] == default_rules(bob.user)
        assert await bob.get("/pushrules/global/") == default_rules(bob.user)
        await bob.sync()
        base = f"/pushrules/global/room/{part(room)}"
        await bob.call("PUT", base, {"actions": []})
        (event,) = (await bob.sync())["account_data"]["events"]
        assert event["type"] == "m.push_rules"
        assert event["content"]["global"]["room"] == [
            {"rule_id": room, "default": False, "enabled": True, "actions": []}
        ]
        await alice.say(room, "hello")
        assert await counts(bob, room) == 0
        await bob.call("PUT", f"{base}/enabled", {"enabled": False})
        assert await bob.get(f"{base}/enabled") == {"enabled": False}
        assert await counts(bob, room) == 1
        await bob.call("PUT", f"{base}/enabled", {"enabled": True})
        await bob.call("PUT", f"{base}/actions", {"actions": ["notify"]})
        assert (await bob.get(f"{base}/actions"))["actions"] == ["notify"]
        await bob.call("DELETE", base)
        assert (await bob.ask("GET", base))[0] == 404
        assert (await alice.get("/pushrules/global/"))["room"] == []


async def test_the_order_of_rules(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        for name, query in (("a", ""), ("b", ""), ("c", "?after=b"), ("d", "?before=a")):
            await alice.call(
                "PUT", f"/pushrules/global/override/{name}{query}", {"actions": [], "conditions": []}
            )
        names = [r["rule_id"] for r in (await alice.get("/pushrules/global/"))["override"]]
        assert names[:5] == [".m.rule.master", "b", "c", "d", "a"]


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("PUT", "override/.m.mine", {"actions": [], "conditions": []}, "M_INVALID_PARAM"),
        ("PUT", "none/x", {"actions": []}, "M_INVALID_PARAM"), ("PUT", "content/x", {"actions": []}, "M_BAD_JSON"),
        ("PUT", "room/x", {}, "M_BAD_JSON"), ("DELETE", "override/.m.rule.master", None, "M_INVALID_PARAM"),
        ("DELETE", "room/none", None, "M_NOT_FOUND"), ("PUT", "room/x?after=none", {"actions": []}, "M_UNKNOWN"),
        ("PUT", "override/.m.rule.master/enabled", {}, "M_BAD_JSON"), ("PUT", "override/.m.rule.master/actions", {}, "M_BAD_JSON"),
        ("GET", "override/none", None, "M_NOT_FOUND"), ("GET", "none/none/enabled", None, "M_NOT_FOUND"),
    ],
)  # fmt: skip
async def test_rules_that_are_none(tmp_path, method, path, body, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        with pytest.raises(Refused) as refused:
            await alice.call(method, f"/pushrules/global/{path}", body)
        assert refused.value.code == code


async def names(person, kind="override"):
    return [r["rule_id"] for r in (await person.get("/pushrules/global/"))[kind]]


async def test_a_rule_that_is_changed_stays_where_it_is(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        base, body = "/pushrules/global/content", {"actions": [], "pattern": "x"}
        for name in ("c", "b", "a"):
            await alice.call("PUT", f"{base}/{name}", body)
        await alice.call("PUT", f"{base}/b/enabled", {"enabled": False})
        await alice.call("PUT", f"{base}/b", body | {"pattern": "y"})
        assert (await names(alice, "content"))[:3] == ["a", "b", "c"]
        rule = {"rule_id": "b", "default": False, "enabled": False, "actions": [], "pattern": "y"}
        assert await alice.get(f"{base}/b") == rule
        await alice.call("PUT", f"{base}/c?before=a&after=b", body)
        assert (await names(alice, "content"))[:3] == ["c", "a", "b"]
        await alice.call("PUT", f"{base}/c?after=b", body)
        assert (await names(alice, "content"))[:3] == ["a", "b", "c"]


async def test_rules_of_the_server_keep_their_order_behind_those_of_people(tmp_path):
    """This also holds for a user whose rules were stored before some of them existed."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        override = "/pushrules/global/override"
        await alice.call("PUT", f"{override}/mine", {"actions": ["notify"], "conditions": []})
        await alice.call("PUT", f"{override}/.m.rule.reaction/enabled", {"enabled": False})
        await alice.call("PUT", f"{override}/.m.rule.tombstone/actions", {"actions": ["notify"]})
        data = home.matrix.client_api._sync._data
        kept = await data.get(alice.user, "", "m.push_rules")
        given = kept["global"]["override"]
        kept["global"]["override"] = [
            r for r in reversed(given) if "mention" not in r["rule_id"] and "server_acl" not in r["rule_id"]
        ]
        await data.put(alice.user, "", "m.push_rules", kept)
        defaults = [r["rule_id"] for r in default_rules(alice.user)["override"]]
        assert await names(alice) == [defaults[0], "mine", *defaults[1:]]
        assert (await alice.get(f"{override}/.m.rule.reaction"))["enabled"] is False
        assert (await alice.get(f"{override}/.m.rule.tombstone"))["actions"] == ["notify"]


async def test_actions_that_are_no_more_do_nothing(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        rule = f"/pushrules/global/room/{part(room)}"
        await bob.call("PUT", rule, {"actions": ["coalesce"]})
        await alice.say(room, "hello")
        assert await counts(bob, room) == 0
        assert (await bob.get(f"{rule}/actions"))["actions"] == []
        await bob.call("PUT", f"{rule}/actions", {"actions": ["notify", "dont_notify"]})
        assert (await bob.get(f"{rule}/actions"))["actions"] == ["notify"]
        assert await counts(bob, room) == 1


@pytest.mark.parametrize(
    "actions",
    [
        ["shout"], [7], [["notify"]], [{}], [{"set_tweak": 1}], [{"set_tweak": "sound", "value": 1}],
        [{"set_tweak": "highlight", "value": "yes"}], ["notify"] * 21, {"notify": True}, None,
    ],
)  # fmt: skip
async def test_actions_that_are_none(tmp_path, actions):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        for path in ("room/!x:y", "override/.m.rule.reaction/actions"):
            with pytest.raises(Refused, match="M_BAD_JSON"):
                await alice.call(
                    "PUT", f"/pushrules/global/{part(path).replace('%2F', '/')}", {"actions": actions}
                )


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ({"kind": "org.example.moon", "phase": 1}, True), ({"kind": 7}, False), ({}, False), ("event_match", False),
        ({"kind": "event_match", "key": "content.body", "pattern": "x"}, True), ({"kind": "event_match", "key": "content.body"}, False),
        ({"kind": "event_match", "key": 1, "pattern": "x"}, False), ({"kind": "event_match", "key": "a", "pattern": ["x"]}, False),
        ({"kind": "event_property_is", "key": "a", "value": None}, True), ({"kind": "event_property_is", "key": "a"}, False),
        ({"kind": "event_property_is", "key": "a", "value": {}}, False), ({"kind": "event_property_contains", "key": "a", "value": []}, False),
        ({"kind": "room_member_count", "is": ">=3"}, True), ({"kind": "room_member_count", "is": 3}, False),
        ({"kind": "room_member_count", "is": "many"}, False), ({"kind": "room_member_count", "is": "=>3"}, False),
        ({"kind": "sender_notification_permission", "key": "room"}, True), ({"kind": "sender_notification_permission"}, False),
        ({"kind": "contains_display_name"}, True),
    ],
)  # fmt: skip
async def test_conditions(tmp_path, condition, taken):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        for kind in ("override", "underride"):
            path, body = f"/pushrules/global/{kind}/x", {"actions": [], "conditions": [condition]}
            if taken:
                await alice.call("PUT", path, body)
                assert (await alice.get(path))["conditions"] == [condition]
            else:
                with pytest.raises(Refused, match="M_BAD_JSON"):
                    await alice.call("PUT", path, body)


@pytest.mark.parametrize("name", ["a/b", "a\\b", ".a", "x" * 256])
async def test_names_that_no_rule_has(tmp_path, name):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        with pytest.raises(Refused, match="M_INVALID_PARAM"):
            await alice.call("PUT", f"/pushrules/global/room/{part(name)}", {"actions": []})
