"""Channels of a real ngircd: the example ``hansa-irc`` as a third party's distribution, in one room with Hansa."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from urllib.parse import quote

import aiohttp
import pytest
from peers.irc_bridge import reads
from peers.synapse import Refusal
from peers.tcp_cutter import TcpCutter
from peers.waiting import until

pytestmark = pytest.mark.e2e
CHANNEL = "#lobby"
BURST = 1000


async def test_people_of_irc_and_of_hansa_talk(bridged, irc_user, local_user):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)
    server = await bridged()
    ann = await local_user(server, "ann")
    room = await ann.join(f"#lobby:{server.name}")

    romeo.say(CHANNEL, "with \x02bold\x02 and é")
    event = await reads(ann, room, "with bold and é")
    assert event["content"]["formatted_body"] == "with <strong>bold</strong> and é"
    members = await ann.members(room)
    assert members[event["sender"]] == "Romeo"
    romeo.say(CHANNEL, "\x01ACTION waves\x01")
    assert (await reads(ann, room, "waves"))["content"]["msgtype"] == "m.emote"

    await ann.say(room, "ahoy, Romeo")
    await romeo.seen(CHANNEL, "<ann> ahoy, Romeo")
    await ann.say(room, "waves back", "m.emote")
    await romeo.seen(CHANNEL, "* ann waves back")
    await ann.say(room, "long " + "wörd " * 200)
    await romeo.until("all of a long text", lambda: " ".join(romeo.texts(CHANNEL)).count("wörd") == 200)
    assert all(len(one.encode()) <= 510 for one in romeo.lines)

    romeo.send(f"TOPIC {CHANNEL} :tea at five")

    async def topic():
        state = await ann.state(room)
        event = state.get(("m.room.topic", "")) or {"content": {}}
        return event["content"].get("topic") == "tea at five"

    await until("the topic", topic)
    romeo.send("NICK Montague")
    romeo.say(CHANNEL, "it is me")
    assert "montague" in (await reads(ann, room, "it is me"))["sender"]


async def test_a_puppet_is_a_person_of_its_own(bridged, irc_user, local_user):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)
    server = await bridged(puppets=5)
    ann = await local_user(server, "ann")
    room = await ann.join(f"#lobby:{server.name}")
    await ann.say(room, "ahoy")
    await romeo.seen(CHANNEL, "ahoy")
    assert romeo.texts(CHANNEL, by="ann!") == ["ahoy"]
    romeo.say(CHANNEL, "fence")
    await reads(ann, room, "fence")
    bodies = [e["content"]["body"] for e in await ann.history(room) if e["type"] == "m.room.message"]
    assert bodies == ["ahoy", "fence"]


async def test_a_nick_that_is_in_use_is_left_to_its_owner(bridged, irc_user, local_user):
    ann_of_irc, squatter = await irc_user("ann"), await irc_user("hansa")
    await ann_of_irc.join(CHANNEL)
    await squatter.join(CHANNEL)
    server = await bridged(puppets=5)
    ann = await local_user(server, "ann")
    room = await ann.join(f"#lobby:{server.name}")
    await ann.say(room, "which of us is it?")
    await ann_of_irc.seen(CHANNEL, "which of us is it?")
    assert ann_of_irc.texts(CHANNEL, by="ann_!") == ["which of us is it?"]
    assert any(line.startswith(":hansa_!") and " JOIN " in line for line in ann_of_irc.lines)
    for user in (ann_of_irc, squatter):
        user.say(CHANNEL, f"{user.nick} of IRC")
    senders = {(await reads(ann, room, f"{nick} of IRC"))["sender"] for nick in ("ann", "hansa")}
    assert len(senders) == 2
    assert ann.id not in senders


async def test_a_private_message_is_a_direct_chat(bridged, irc_user, local_user):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)
    server = await bridged(puppets=5)
    ann, bob = await local_user(server, "ann"), await local_user(server, "bob")
    room = await ann.join(f"#lobby:{server.name}")
    romeo.say(CHANNEL, "hello")
    ghost = (await reads(ann, room, "hello"))["sender"]

    chat = await ann.create_room(is_direct=True, invite=[ghost], preset="trusted_private_chat")
    await ann.say(chat, "for you alone")
    await romeo.seen("Romeo", "for you alone")
    assert romeo.texts("Romeo", by="ann!") == ["for you alone"]
    romeo.say("ann", "thank you")
    assert (await reads(ann, chat, "thank you"))["sender"] == ghost

    await bob.join(room)
    await bob.say(room, "I am here")
    await romeo.seen(CHANNEL, "I am here")
    romeo.say("bob", "and for you")

    async def invited():
        return await bob.invites()

    (first,) = await until("bob is invited", invited)
    await bob.join(first)
    assert (await reads(bob, first, "and for you"))["sender"] == ghost
    assert "and for you" not in await ann.bodies(room)

    nobody = ghost.replace("romeo", "mercutio")
    with pytest.raises(Refusal, match="nobody with the nick mercutio"):
        await ann.create_room(is_direct=True, invite=[nobody], preset="trusted_private_chat")


async def test_a_picture_is_a_link_that_everybody_opens(bridged, irc_user, local_user):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)
    server = await bridged()
    ann = await local_user(server, "ann")
    room = await ann.join(f"#lobby:{server.name}")
    data = b"\x89PNG\r\n\x1a\n" + bytes(4000)
    mxc = await ann.upload(data, "image/png", "balcony.png")
    info = {"mimetype": "image/png", "size": len(data)}
    picture = {"msgtype": "m.image", "body": "balcony.png", "url": mxc, "info": info}
    await ann.call("PUT", f"/rooms/{quote(room, safe='')}/send/m.room.message/picture", picture)
    await romeo.until(
        "the picture", lambda: any("balcony.png, 4 KB" in text for text in romeo.texts(CHANNEL))
    )
    (text,) = [text for text in romeo.texts(CHANNEL) if "balcony" in text]
    link = text.rpartition(" ")[2]
    tls = ssl.create_default_context(cafile=str(server.ca.certificate))
    async with aiohttp.ClientSession() as http, http.get(link, ssl=tls) as answer:
        assert (answer.status, await answer.read()) == (200, data)


async def test_edits_reactions_replies_and_deletions_are_words(bridged, irc_user, local_user):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)
    server = await bridged()
    ann = await local_user(server, "ann")
    room = await ann.join(f"#lobby:{server.name}")
    romeo.say(CHANNEL, "tea at five")
    tea = (await reads(ann, room, "tea at five"))["event_id"]
    base = f"/rooms/{quote(room, safe='')}"
    first = await ann.say(room, "at sx")
    await romeo.seen(CHANNEL, "<ann> at sx")
    new = {"msgtype": "m.text", "body": "at six"}
    relation = {"rel_type": "m.replace", "event_id": first}
    edit = {"msgtype": "m.text", "body": "* at six", "m.new_content": new, "m.relates_to": relation}
    await ann.call("PUT", f"{base}/send/m.room.message/edit", edit)
    await romeo.seen(CHANNEL, "<ann> edited: at six")
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": tea, "key": "👍"}}
    await ann.call("PUT", f"{base}/send/m.reaction/react", reaction)
    await romeo.seen(CHANNEL, "<ann> [reacted with 👍 to “tea at five”]")
    reply = {"msgtype": "m.text", "body": "gladly", "m.relates_to": {"m.in_reply_to": {"event_id": tea}}}
    await ann.call("PUT", f"{base}/send/m.room.message/reply", reply)
    await romeo.seen(CHANNEL, "<ann> gladly")
    assert "<ann> > Romeo: tea at five" in romeo.texts(CHANNEL)
    await ann.call("PUT", f"{base}/redact/{quote(first, safe='')}/gone", {"reason": "wrong"})
    await romeo.until("the deletion", lambda: any("was removed" in text for text in romeo.texts(CHANNEL)))


async def burst(user, room: str) -> None:
    """A thousand messages, in order, each said again under its id until the server has taken it."""
    for number in range(BURST):
        path = f"/rooms/{quote(room, safe='')}/send/m.room.message/burst{number}"

        async def taken(path=path, number=number):
            try:
                return await user.call("PUT", path, {"msgtype": "m.text", "body": f"line {number}"})
            except (aiohttp.ClientError, Refusal):
                return None

        await until(f"line {number} is taken", taken)


def check_burst(texts: list[str], kills: int) -> None:
    """None lost, the order kept, one doubled at most by each kill."""
    lines = [text for text in texts if " line " in text]
    assert list(dict.fromkeys(lines)) == [f"<ann> line {number}" for number in range(BURST)]
    doubled = {text: count for text, count in Counter(lines).items() if count > 1}
    assert len(lines) - BURST <= kills, doubled


async def test_a_killed_hansa_loses_nothing_and_doubles_one_line_at_most(bridged, irc_user, local_user):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)
    server = await bridged()
    ann = await local_user(server, "ann")
    room = await ann.join(f"#lobby:{server.name}")
    saying = asyncio.ensure_future(burst(ann, room))
    await romeo.seen(CHANNEL, "<ann> line 150")
    await server.kill()
    await server.start()
    await romeo.seen(CHANNEL, "<ann> line 500")
    await server.kill()
    await server.start()
    await saying
    await romeo.until("the last line", lambda: f"<ann> line {BURST - 1}" in romeo.texts(CHANNEL), 120)
    check_burst(romeo.texts(CHANNEL), 2)


async def test_a_killed_ngircd_loses_nothing_and_doubles_one_line_at_most(
    bridged, ngircd, irc_user, local_user
):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)
    cable = await TcpCutter().lay(ngircd.tls_port)
    server = await bridged(port=cable.port)
    ann = await local_user(server, "ann")
    room = await ann.join(f"#lobby:{server.name}")
    saying = asyncio.ensure_future(burst(ann, room))
    await romeo.seen(CHANNEL, "<ann> line 150")
    # Lines that wait in the socket of a server that dies are lost to it.
    ngircd.freeze()
    await reads(ann, room, "line 300")
    await ngircd.kill()
    # Nobody who is away reads what is said: Romeo is back before the bridge is.
    await cable.cut()
    await romeo.close()
    await ngircd.start()
    await romeo.connect()
    await romeo.join(CHANNEL)
    await cable.mend()
    await saying
    await romeo.until("the last line", lambda: f"<ann> line {BURST - 1}" in romeo.texts(CHANNEL), 200)
    check_burst(romeo.texts(CHANNEL), 1)
    await cable.cut()
