"""What people do besides speaking, between a real Synapse, a Hansa user and a scripted network."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

import pytest
from e2e.three_servers import wait_matrix_member
from hansa import (
    Content,
    Edit,
    Kind,
    Location,
    Member,
    Message,
    PollAnswer,
    PollStart,
    PollVote,
    Reaction,
    Retraction,
)
from peers.waiting import until

pytestmark = pytest.mark.e2e


async def send(user, room: str, type_: str, content: dict[str, Any]) -> str:
    path = f"/rooms/{quote(room, safe='')}/send/{type_}/{secrets.token_hex(6)}"
    return (await user.call("PUT", path, content))["event_id"]


async def redact(user, room: str, event: str, reason: str) -> None:
    path = f"/rooms/{quote(room, safe='')}/redact/{quote(event, safe='')}/{secrets.token_hex(6)}"
    await user.call("PUT", path, {"reason": reason})


def said(shown: list[Content]) -> list[Content]:
    return [one for one in shown if not isinstance(one, Member)]


async def event_of(user, room: str, sender: str, type_: str, nth: int = 1) -> dict[str, Any]:
    """The nth event of a type that a person sent, once it is there."""

    async def there():
        found = [e for e in await user.history(room) if e["type"] == type_ and e["sender"] == sender]
        return found[nth - 1] if len(found) >= nth else None

    return await until(f"{type_} {nth} of {sender}", there)


@pytest.mark.parametrize("version", ["10", "12"])
async def test_every_kind_crosses_between_synapse_and_another_network(version, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    await hansa.run("matrix", "rooms", "create", "#lobby", "--version", version)
    await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
    room = await alice.join(f"#lobby:{hansa.name}")
    actor, who, ghost = hansa.actor, "juliet@capulet", hansa.ghost("juliet@capulet")
    await actor.join("lobby", who, "Juliet")
    await wait_matrix_member(alice, room, "Juliet")

    first = await alice.say(room, "helo")
    about = {"rel_type": "m.replace", "event_id": first}
    new = {"msgtype": "m.text", "body": "hello"}
    await send(
        alice, room, "m.room.message", {**new, "body": "* hello", "m.new_content": new, "m.relates_to": about}
    )
    mark = {"rel_type": "m.annotation", "event_id": first, "key": "👍"}
    reaction = await send(alice, room, "m.reaction", {"m.relates_to": mark})
    answer = {"m.in_reply_to": {"event_id": first}}
    await send(alice, room, "m.room.message", {"msgtype": "m.text", "body": "hi", "m.relates_to": answer})
    mxc = await alice.upload(b"\x89PNG\r\n\x1a\n" + b"x" * 100, "image/png", "balcony.png")
    info = {"mimetype": "image/png", "size": 108}
    picture = {"msgtype": "m.image", "body": "ours", "filename": "balcony.png", "url": mxc, "info": info}
    await send(alice, room, "m.room.message", picture)
    await redact(alice, room, reaction, "")
    await redact(alice, room, first, "oops")
    shown = said(await actor.until_shown("lobby", lambda shown: len(said(shown)) >= 7))
    assert [one.kind for one in shown[:5]] == [
        Kind.MESSAGE, Kind.EDIT, Kind.REACTION, Kind.MESSAGE, Kind.MESSAGE,
    ]  # fmt: skip
    _, edit, reacted, reply, image, unmarked, gone = shown
    assert isinstance(edit, Edit) and edit.message == Message(text="hello")
    assert isinstance(reacted, Reaction) and (reacted.target, reacted.key) == (edit.target, "👍")
    assert reply == Message(text="hi", reply_to=edit.target)
    assert isinstance(image, Message) and image.text == "ours"
    [file] = image.attachments
    assert (file.name, file.media_type, file.size) == ("balcony.png", "image/png", 108)
    assert isinstance(unmarked, Retraction) and unmarked.of is Kind.REACTION
    assert unmarked.of_target == edit.target
    assert gone == Retraction(target=edit.target, reason="oops", of=Kind.MESSAGE)

    async def by_juliet(content: Content) -> Any:
        result = await actor.do("lobby", who, content)
        assert result.event is not None, result.refusal
        return result.event

    message = await by_juliet(Message(text="wherefor"))
    await by_juliet(Edit(target=message.id, message=Message(text="wherefore")))
    theirs = await alice.say(room, "what?")
    await until("it is known", lambda: hansa.matrix.ctx.event_by(theirs))
    asked = await hansa.matrix.ctx.event_by(theirs)
    assert asked is not None
    await by_juliet(Reaction(target=asked.id, key="❤"))
    await by_juliet(Message(text="thou", reply_to=asked.id))
    await by_juliet(Location(text="Verona", uri="geo:45.4,11"))
    poll = await by_juliet(
        PollStart(question="well?", answers=(PollAnswer(id="y", text="yes"), PollAnswer(id="n", text="no")))
    )
    await by_juliet(PollVote(target=poll.id, answers=("y",)))
    sent = await event_of(alice, room, ghost, "m.room.message")
    edited = await event_of(alice, room, ghost, "m.room.message", 2)
    assert edited["content"]["m.relates_to"] == {"rel_type": "m.replace", "event_id": sent["event_id"]}
    assert edited["content"]["m.new_content"]["body"] == "wherefore"
    replied = await event_of(alice, room, ghost, "m.room.message", 3)
    assert replied["content"]["m.relates_to"] == {"m.in_reply_to": {"event_id": theirs}}
    assert replied["content"]["m.mentions"] == {"user_ids": [alice.id]}
    assert (await event_of(alice, room, ghost, "m.room.message", 4))["content"]["geo_uri"] == "geo:45.4,11"
    reacted = await event_of(alice, room, ghost, "m.reaction")
    assert reacted["content"]["m.relates_to"]["event_id"] == theirs
    started = await event_of(alice, room, ghost, "org.matrix.msc3381.poll.start")
    voted = await event_of(alice, room, ghost, "org.matrix.msc3381.poll.response")
    assert voted["content"]["m.relates_to"]["event_id"] == started["event_id"]

    # Synapse itself counts the reaction and the edit, and takes back what Juliet retracts.
    await by_juliet(Retraction(target=message.id, reason="sorry"))

    async def blank() -> bool:
        path = f"/rooms/{quote(room, safe='')}/event/{quote(sent['event_id'], safe='')}"
        return (await alice.call("GET", path))["content"] == {}

    await until("Synapse shows nothing of it", blank)


async def test_a_user_of_hansa_and_one_of_synapse_see_each_others_edits_and_reactions(hansa, matrix_user):
    """Both servers are Matrix: what is converted for other networks stays what it was between them."""
    server = await hansa("")
    alice = await matrix_user("alice")
    bob = await server.user("bob")
    try:
        room = await bob.create_room(preset="public_chat", room_alias_name="square")
        await alice.join(f"#square:{server.name}", via=server.name)
        first = await alice.say(room, "helo")
        await event_of(bob, room, alice.id, "m.room.message")
        await send(
            bob,
            room,
            "m.reaction",
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": first, "key": "x"}},
        )
        seen = await event_of(alice, room, bob.id, "m.reaction")
        assert seen["content"]["m.relates_to"]["event_id"] == first
        # A client of Matrix may react to an event that the log does not have.
        strange = {"rel_type": "m.annotation", "event_id": "$" + "z" * 43, "key": "y"}
        await send(bob, room, "m.reaction", {"m.relates_to": strange})
        assert (await event_of(alice, room, bob.id, "m.reaction", 2))["content"]["m.relates_to"] == strange
    finally:
        await bob.close()
