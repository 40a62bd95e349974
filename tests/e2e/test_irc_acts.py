"""Kicks, bans, ranks, topics and refusals between a real ngircd and a room whose rules are Matrix's."""

from __future__ import annotations

import pytest
from peers.irc_bridge import reads
from peers.waiting import until

pytestmark = pytest.mark.e2e
CHANNEL = "#garden"


async def power_levels(user, room: str) -> dict:
    return (await user.state(room))["m.room.power_levels", ""]["content"]


async def make_moderator(user, room: str, other: str) -> None:
    levels = await power_levels(user, room)
    await user.set_state(room, "m.room.power_levels", {**levels, "users": {**levels["users"], other: 50}})


async def becomes(user, room: str, other: str, membership: str, reason: str) -> None:
    """Waits until a person's membership is this, for this reason."""

    async def holds():
        content = (await user.state(room))["m.room.member", other]["content"]
        return (content["membership"], content.get("reason", "")) == (membership, reason)

    await until(f"{other}: {membership}: {reason}", holds)


async def test_the_rules_of_the_room_decide_what_operators_of_the_channel_do(bridged, irc_user, local_user):
    romeo, benvolio = await irc_user("Romeo"), await irc_user("Benvolio")
    await romeo.join(CHANNEL)
    await benvolio.join(CHANNEL)
    server = await bridged()
    ann = await local_user(server, "ann")
    room = await ann.create_room("11", preset="public_chat", room_alias_name="garden", topic="roses")
    await server.run("rooms", "create", f"irc:{CHANNEL}", f"matrix:#garden:{server.name}")
    await romeo.until("the bridge", lambda: any(":hansa!" in one and "JOIN" in one for one in romeo.lines))
    romeo.send(f"MODE {CHANNEL} +o hansa")
    romeo.say(CHANNEL, "good morrow")
    benvolio.say(CHANNEL, "good day")
    romeos = (await reads(ann, room, "good morrow"))["sender"]
    benvolios = (await reads(ann, room, "good day"))["sender"]

    # Without a rank in the room, an operator's acts are undone.
    romeo.send(f"MODE {CHANNEL} +o Benvolio")
    await romeo.seen_line(f"MODE {CHANNEL} -o benvolio")
    romeo.send(f"TOPIC {CHANNEL} :thorns")
    await romeo.seen_line(f"TOPIC {CHANNEL} :roses")
    romeo.send(f"KICK {CHANNEL} Benvolio :weary")
    await benvolio.seen_line(f"INVITE Benvolio {CHANNEL}")
    await becomes(ann, room, benvolios, "leave", "weary")
    await benvolio.join(CHANNEL)
    await becomes(ann, room, benvolios, "join", "")
    romeo.send(f"MODE {CHANNEL} +b Benvolio")
    await romeo.seen_line(f"MODE {CHANNEL} -b benvolio!*@*")
    told = [one for one in romeo.texts("Romeo") if one.startswith(f"[{CHANNEL}]")]
    assert len(told) >= 3
    assert all("and it is undone here" in one for one in told)

    # With one, they hold in the room.
    await make_moderator(ann, room, romeos)
    romeo.send(f"TOPIC {CHANNEL} :thorns")

    async def topic():
        return (await ann.state(room))["m.room.topic", ""]["content"]["topic"] == "thorns"

    await until("the topic", topic)
    romeo.send(f"KICK {CHANNEL} Benvolio :weary of you")
    await becomes(ann, room, benvolios, "leave", "weary of you")
    await benvolio.join(CHANNEL)
    await becomes(ann, room, benvolios, "join", "")
    romeo.send(f"MODE {CHANNEL} +b Benvolio", f"KICK {CHANNEL} Benvolio :for ever")
    await becomes(ann, room, benvolios, "ban", "for ever")
    romeo.send(f"MODE {CHANNEL} -b Benvolio")
    await becomes(ann, room, benvolios, "leave", "")


async def test_moderators_of_the_room_act_in_the_channel(bridged, irc_user, local_user):
    romeo, benvolio = await irc_user("Romeo"), await irc_user("Benvolio")
    await romeo.join(CHANNEL)
    await benvolio.join(CHANNEL)
    server = await bridged()
    ann = await local_user(server, "ann")
    room = await ann.create_room("11", preset="public_chat", room_alias_name="garden")
    await server.run("rooms", "create", f"irc:{CHANNEL}", f"matrix:#garden:{server.name}")
    await romeo.until("the bridge", lambda: any(":hansa!" in one and "JOIN" in one for one in romeo.lines))
    romeo.send(f"MODE {CHANNEL} +o hansa")
    benvolio.say(CHANNEL, "good day")
    benvolios = (await reads(ann, room, "good day"))["sender"]

    await make_moderator(ann, room, benvolios)
    await benvolio.seen_line(f"MODE {CHANNEL} +o benvolio")
    levels = await power_levels(ann, room)
    users = {user: level for user, level in levels["users"].items() if user != benvolios}
    await ann.set_state(room, "m.room.power_levels", {**levels, "users": users})
    await benvolio.seen_line(f"MODE {CHANNEL} -o benvolio")
    await ann.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
    await benvolio.seen_line(f"MODE {CHANNEL} +i")
    await ann.set_state(room, "m.room.join_rules", {"join_rule": "public"})
    await benvolio.seen_line(f"MODE {CHANNEL} -i")
    await ann.kick(room, benvolios, "weary")
    await benvolio.seen_line(f"KICK {CHANNEL} benvolio :by ann: weary")
    await ann.ban(room, benvolios)
    await romeo.seen_line(f"MODE {CHANNEL} +b benvolio!*@*")
