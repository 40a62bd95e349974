"""Push rules: read, changed, kept, and counted by."""

from __future__ import annotations

import pytest
from clients.people import Refused, house, part
from hansa_matrix.proto.push_rules import default_rules


async def counts(person, room):
    return (await person.sync("&full_state=true"))["rooms"]["join"][room]["unread_notifications"][
        "notification_count"
    ]


async def test_rules_are_read_changed_and_removed(tmp_path):
    async with house(tmp_path) as home:
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
    async with house(tmp_path) as home:
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
    async with house(tmp_path) as home:
        alice = await home.person("alice")
        with pytest.raises(Refused) as refused:
            await alice.call(method, f"/pushrules/global/{path}", body)
        assert refused.value.code == code
