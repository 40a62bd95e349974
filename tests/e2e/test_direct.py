"""Direct chats of people of a real Synapse, of Hansa itself and of a real Prosody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from e2e.three_servers import wait_linked, xmpp_config
from hansa import NativeId
from hansa_matrix.local.ghosts import ghost_localpart
from hansa_xmpp.proto import jid
from peers.prosody import GATEWAY
from peers.synapse import MatrixUser, Refusal
from peers.waiting import until

pytestmark = pytest.mark.e2e


def ghost_of(user: str, server: str) -> str:
    return f"@{ghost_localpart(NativeId('xmpp', user), '_')}:{server}"


def puppet_of(user: str) -> str:
    return jid.puppet(NativeId("matrix", user), GATEWAY)


def chat_bodies(user, puppet: str) -> list[str]:
    """What a user was sent by a puppet alone."""
    return [
        e.findtext("{*}body") or ""
        for e in user.stanzas
        if e.get("from", "").partition("/")[0] == puppet and e.get("type") == "chat"
    ]


def error_texts(user, puppet: str) -> list[tuple[str, str]]:
    found = []
    for e in user.stanzas:
        if e.get("from", "").partition("/")[0] == puppet and e.get("type") == "error":
            error = e.find("{*}error")
            condition = next(c for c in error if not c.tag.endswith("}text"))
            found.append((condition.tag.rpartition("}")[2], error.findtext("{*}text") or ""))
    return found


def write(user, puppet: str, text: str, id_: str) -> None:
    user.raw(f"<message to='{puppet}' type='chat' id='{id_}'><body>{text}</body></message>")


@pytest.fixture(params=["synapse", "hansa"])
def matrix_side(request, matrix_user, local_user) -> Callable[..., Awaitable[MatrixUser]]:
    """Makes a Matrix user: of Synapse, or of Hansa itself."""

    async def make(server, name: str):
        if request.param == "synapse":
            return await matrix_user(name)
        return await local_user(server, name)

    return make


async def test_a_matrix_user_writes_to_an_xmpp_user(hansa, prosody, xmpp_user, matrix_side):
    server = await hansa(xmpp_config(prosody))
    await wait_linked(server, rooms=0)
    juliet, alice = await xmpp_user("juliet"), await matrix_side(server, "alice")
    bare = juliet.full.partition("/")[0]
    ghost, puppet = ghost_of(bare, server.name), puppet_of(alice.id)
    room = await alice.create_room(is_direct=True, preset="trusted_private_chat", invite=[ghost])

    async def joined() -> bool:
        return ghost in await alice.members(room)

    await until("the ghost has joined", joined)
    await alice.say(room, "is it you?")
    await juliet.until("Alice's words", lambda: chat_bodies(juliet, puppet) == ["is it you?"])
    write(juliet, puppet, "it is", "j1")

    async def answered() -> bool:
        return "it is" in await alice.bodies(room, ghost)

    await until("Juliet's answer", answered)
    said = await alice.bodies(room, ghost)
    assert [text for text in said if "not encrypted" in text] == said[:1]
    assert chat_bodies(juliet, puppet) == ["is it you?"]


async def test_an_xmpp_user_writes_to_a_matrix_user(hansa, prosody, xmpp_user, matrix_side):
    server = await hansa(xmpp_config(prosody))
    await wait_linked(server, rooms=0)
    juliet, alice = await xmpp_user("juliet"), await matrix_side(server, "alice")
    bare = juliet.full.partition("/")[0]
    ghost, puppet = ghost_of(bare, server.name), puppet_of(alice.id)
    write(juliet, puppet, "waits for you", "j1")

    async def invited() -> str:
        return next(iter(await alice.invites()), "")

    room = await until("Alice is invited", invited)
    write(juliet, puppet, "and this too", "j2")

    async def entered() -> bool:
        try:
            await alice.join(room)
        except Refusal:  # her server signed the invite, which is not a part of the room yet
            return False
        return True

    await until("Alice's join", entered)

    async def read() -> bool:
        said = [t for t in await alice.bodies(room, ghost) if "not encrypted" not in t]
        return said == ["waits for you", "and this too"]

    await until("Alice reads what waited", read)
    await alice.say(room, "I am here")
    await juliet.until("the answer", lambda: chat_bodies(juliet, puppet) == ["I am here"])
    state = await alice.state(room)
    assert ("m.room.encryption", "") not in state
    assert error_texts(juliet, puppet) == []


async def test_who_cannot_be_reached_is_said_to_both_sides(hansa, prosody, xmpp_user, matrix_side):
    server = await hansa(xmpp_config(prosody))
    await wait_linked(server, rooms=0)
    juliet, alice = await xmpp_user("juliet"), await matrix_side(server, "alice")
    for absent in (puppet_of(f"@nobody:{server.name}"), puppet_of("@nobody:127.0.0.1:1")):
        write(juliet, absent, "hello?", "j1")
        await juliet.until("an error", lambda absent=absent: error_texts(juliet, absent))
        ((condition, text),) = error_texts(juliet, absent)
        assert condition in {"item-not-found", "remote-server-timeout"}
        assert text
    # Of its own domain the component knows that nobody has the address.
    with pytest.raises(Refusal) as refused:
        await alice.create_room(is_direct=True, invite=[ghost_of(f"nobody@{GATEWAY}", server.name)])
    assert refused.value.status in {403, 404}
    # Prosody says to strangers nothing of its users, and refuses the first message instead.
    ghost = ghost_of(f"nobody@{juliet.bare.partition('@')[2]}", server.name)
    room = await alice.create_room(is_direct=True, preset="trusted_private_chat", invite=[ghost])

    async def joined() -> bool:
        return ghost in await alice.members(room)

    await until("the ghost has joined", joined)
    await alice.say(room, "anybody?")

    async def told() -> bool:
        return any("did not get a message" in text for text in await alice.bodies(room, ghost))

    await until("Alice is told", told)
