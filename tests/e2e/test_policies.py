"""E6: what policy stops, with the answers that both sides get."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.hansa import CommandFailed
from peers.synapse import Refusal, Synapse
from peers.waiting import until

pytestmark = pytest.mark.e2e

_DECISION = re.compile(r"d-[a-z2-7]{16}")


@pytest.fixture(scope="module")
def banned_synapse(ca, tmp_path_factory) -> Iterator[Synapse]:
    """A second Synapse, which the policies of these tests keep out."""
    import asyncio

    server = Synapse(tmp_path_factory.mktemp("banned"), ca, host="localhost")
    asyncio.run(server.start())
    yield server
    server.stop()


def policy(name: str, body: str, mode: str = "enforce") -> str:
    return f'\n[policies.{name}]\nplugin = "governance"\nmode = "{mode}"\n{body}\n'


async def explained(server, text: str):
    """Returns the output of ``hansa policy explain`` for the decision that a refusal names."""
    found = _DECISION.search(text)
    assert found, text
    return await server.run("policy", "explain", found[0])


async def test_a_denied_server_stays_out(hansa, banned_synapse, matrix_user, local_user):
    server = await hansa(
        policy("lists", 'deny_servers = ["localhost"]') + '\n[[rooms]]\nlinks = ["matrix:#lobby"]'
    )
    await until("the room", lambda: server.run("rooms", "ls"))
    alice, mallory = await matrix_user("alice"), await local_user(banned_synapse, "mallory")
    room = await alice.join(f"#lobby:{server.name}")
    with pytest.raises(Refusal):
        await mallory.join(f"#lobby:{server.name}")
    with pytest.raises(Refusal) as refused:
        await mallory.join(room, via=server.name)
    assert refused.value.status == 403

    target = f"/_matrix/federation/v1/query/directory?room_alias=%23lobby%3A{server.name.replace(':', '%3A')}"
    status, answer = await banned_synapse.signer().request("GET", server.name, target)
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
    decision = await explained(server, answer["error"])
    assert decision["facts"]["server"] == banned_synapse.name
    assert decision["reasons"][0]["rule"] == "deny_servers: localhost"
    assert not any(mallory.id in u for u in await alice.members(room))


async def test_denied_words_from_each_side(hansa, prosody, synapse, matrix_user, xmpp_user):
    server = await hansa(xmpp_config(prosody) + LOBBY + policy("words", 'words = ["classified"]'))
    await wait_linked(server)
    alice, juliet = await matrix_user("alice"), await xmpp_user("juliet")
    room = await alice.join(f"#lobby:{server.name}")
    await juliet.join(MUC, "Juliet")
    await wait_matrix_member(alice, room, "Juliet")

    withheld = await alice.say(room, "this is CLASSIFIED")
    levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
    assert levels["events"]["m.room.topic"] == 0
    await alice.set_state(room, "m.room.topic", {"topic": "classified matters"})
    after = await alice.say(room, "this is not")
    await juliet.until("the next", lambda: "this is not" in juliet.bodies(MUC))
    assert juliet.bodies(MUC) == ["this is not"]

    name = juliet.say(MUC, "classified, too")
    refused = await juliet.verdict(name, MUC)
    assert refused is not None and refused.condition == "policy-violation"
    decision = await explained(server, refused.text)
    assert decision["facts"]["sender"] == f"xmpp:{juliet.bare}"
    assert decision["reasons"][0]["rule"] == "words: classified"

    await juliet.verdict(juliet.say(MUC, "fine"), MUC)
    await until("Alice reads on", lambda: _says(alice, room, "fine"))
    assert "classified, too" not in await alice.bodies(room)
    assert (await server.run("rooms", "show", f"matrix:{room}"))["topic"] == ""

    # Both servers have the same DAG and the same state: withholding is ours alone.
    for event in (withheld, after):
        ours = await synapse.signer().state_ids(server.name, room, event)
        assert ours == await server.signer().state_ids(synapse.name, room, event)
    topic = (await alice.state(room))["m.room.topic", ""]["event_id"]
    assert topic in await synapse.signer().state_ids(server.name, room, after)


async def test_rate_exceeded_from_each_side(hansa, prosody, matrix_user, xmpp_user):
    # Coming in is the first act of each.
    server = await hansa(
        xmpp_config(prosody) + LOBBY + policy("pace", "rate = { events = 4, seconds = 600 }")
    )
    await wait_linked(server)
    alice, juliet = await matrix_user("alice"), await xmpp_user("juliet")
    room = await alice.join(f"#lobby:{server.name}")
    await juliet.join(MUC, "Juliet")
    ghost = await wait_matrix_member(alice, room, "Juliet")
    answers = [await juliet.verdict(juliet.say(MUC, f"x{n}"), MUC) for n in range(5)]
    assert [a and a.condition for a in answers] == [None, None, None, *["resource-constraint"] * 2]
    decision = await explained(server, answers[4].text)
    assert decision["reasons"][0]["rule"] == "rate"

    for n in range(5):
        await alice.say(room, f"m{n}")
    bob = await matrix_user("bob")
    await bob.join(f"#lobby:{server.name}")
    await bob.say(room, "calm")
    await juliet.until("Bob", lambda: "calm" in juliet.bodies(MUC))
    assert [b for b in juliet.bodies(MUC) if b.startswith("m")] == ["m0", "m1", "m2"]
    assert await alice.bodies(room, ghost) == ["x0", "x1", "x2"]


async def test_a_room_that_a_denied_server_is_in(hansa, prosody, banned_synapse, matrix_user, local_user):
    server = await hansa(xmpp_config(prosody) + policy("lists", 'deny_servers = ["localhost:*"]'))
    await wait_linked(server, rooms=0)
    alice, mallory = await matrix_user("alice"), await local_user(banned_synapse, "moll")
    room = await alice.create_room(room_alias_name="plaza" + alice.id[1:8])
    await mallory.join(room, via=alice.id.partition(":")[2])
    alias = (await alice.state(room))["m.room.canonical_alias", ""]["content"]["alias"]
    with pytest.raises(CommandFailed) as refused:
        await server.run("rooms", "create", f"matrix:{alias}", "xmpp:lobby")
    decision = await explained(server, str(refused.value))
    assert decision["facts"]["crossing"] == "Join"
    assert banned_synapse.name in decision["facts"]["room_servers"]
    assert decision["reasons"][0]["rule"] == "deny_servers: localhost:*"
    assert await server.run("rooms", "ls") == []
    await until("Hansa has left", lambda: _gone(alice, room, server.name))


async def test_an_invite_into_a_room_that_a_denied_server_is_in(
    hansa, banned_synapse, matrix_user, local_user
):
    """Only the answer to the join tells who is there: Hansa leaves again at once."""
    server = await hansa(policy("lists", 'deny_servers = ["localhost:*"]'))
    alice, mallory = await matrix_user("alice"), await local_user(banned_synapse, "malle")
    room = await alice.create_room()
    await mallory.join(room, via=alice.id.partition(":")[2])
    await alice.invite(room, f"@hansa:{server.name}")

    async def judged():
        return [d for d in await server.run("policy", "log") if d["facts"]["crossing"] == "Join"]

    (decision,) = await until("the decision", judged)
    assert banned_synapse.name in decision["facts"]["room_servers"]
    assert decision["reasons"][0]["rule"] == "deny_servers: localhost:*"
    await until("Hansa has left", lambda: _gone(alice, room, server.name))
    left = (await alice.state(room))["m.room.member", f"@hansa:{server.name}"]
    assert left["content"]["membership"] == "leave"
    assert await server.run("rooms", "ls") == []


async def test_in_shadow_mode_nothing_is_stopped(hansa, prosody, banned_synapse, xmpp_user, local_user):
    shadow = policy("lists", 'deny_servers = ["localhost"]', "shadow") + policy(
        "words", 'words = ["classified"]\nrate = { events = 1, seconds = 600 }', "shadow"
    )
    server = await hansa(xmpp_config(prosody) + LOBBY + shadow)
    await wait_linked(server)
    mallory, juliet = await local_user(banned_synapse, "mallet"), await xmpp_user("juliet")
    room = await mallory.join(f"#lobby:{server.name}")
    await juliet.join(MUC, "Juliet")
    assert await juliet.verdict(juliet.say(MUC, "classified"), MUC) is None
    assert await juliet.verdict(juliet.say(MUC, "again"), MUC) is None
    await mallory.say(room, "classified, too")
    await juliet.until("Mallory", lambda: "classified, too" in juliet.bodies(MUC))
    await until("Mallory reads", lambda: _says(mallory, room, "again"))
    log = await server.run("policy", "log")
    assert {d["mode"] for d in log} == {"shadow"}
    rules = {reason["rule"] for d in log for reason in d["would_reasons"]}
    assert rules == {"deny_servers: localhost", "words: classified", "rate"}
    assert all(d["would"] == "deny" or d["would"] == "withhold" for d in log)


async def _says(user, room, text):
    return text in await user.bodies(room)


async def _gone(user, room, server):
    return not any(u.endswith(f":{server}") for u in await user.members(room))
