"""Bots on a Hansa: of mautrix, with libolm for what is encrypted, and of matrix-bot-sdk."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from mautrix.api import HTTPAPI
from mautrix.client import Client
from mautrix.client.state_store import MemoryStateStore
from mautrix.crypto import MemoryCryptoStore, OlmMachine
from mautrix.types import EventType, MessageType, RoomCreatePreset, TextMessageEventContent
from nio import JoinResponse
from peers.process import Process
from peers.require import require_browser
from peers.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Rooms(MemoryStateStore):
    """The rooms of the bot, as its encryption reads them."""

    async def find_shared_rooms(self, user_id):
        return [room for room, members in self.members.items() if user_id in members]


class Bot:
    """Answers ``!ping``, in rooms of both kinds."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: list[str] = []
        client.add_event_handler(EventType.ROOM_MESSAGE, self._message)

    async def _message(self, event) -> None:
        if event.sender != self.client.mxid:
            self.heard.append(event.content.body)


@pytest.fixture
async def bot(ca) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    made = []

    async def make(server, name):
        context = ssl.create_default_context(cafile=str(ca.certificate))
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        state = Rooms()
        client = Client(api=HTTPAPI(server.url, client_session=session), state_store=state)
        user = await server.account(name)
        await client.login(identifier=user, password="pw", device_name="bot", device_id="BOT")
        client.crypto_store = MemoryCryptoStore(user, "pickle")
        await client.crypto_store.open()
        client.crypto = OlmMachine(client, client.crypto_store, state)
        await client.crypto.load()
        await client.crypto.share_keys()
        client.start(None)
        made.append((client, session))
        return Bot(client)

    yield make
    for client, session in made:
        client.stop()
        await session.close()


async def test_a_bot_speaks_plainly_and_encrypted(hansa, bot, nio_user):
    server = await hansa()
    helper = await bot(server, "helper")
    romeo = await nio_user(server.url, await server.account("romeo"))
    room = await helper.client.create_room(preset=RoomCreatePreset.PUBLIC, name="desk")
    assert isinstance(await romeo.client.join(room), JoinResponse)
    await romeo.until("the room", lambda: room in romeo.client.rooms)
    await romeo.say(room, "is anybody there?")

    async def heard() -> bool:
        return "is anybody there?" in helper.heard

    await until("the bot hears", heard)
    said = TextMessageEventContent(msgtype=MessageType.TEXT, body="at your service")
    await helper.client.send_message_event(room, EventType.ROOM_MESSAGE, said)
    await romeo.until("the answer", lambda: "at your service" in romeo.bodies(room))
    topic = await helper.client.get_state_event(room, EventType.ROOM_NAME)
    assert topic.name == "desk"
    mxc = await helper.client.upload_media(b"a file", mime_type="text/plain", filename="a.txt")
    assert await helper.client.download_media(mxc) == b"a file"

    closed = await helper.client.create_room(
        preset=RoomCreatePreset.PRIVATE,
        invitees=[romeo.id],
        initial_state=[{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
    )
    await romeo.until("the invite", lambda: closed in romeo.client.invited_rooms)
    assert isinstance(await romeo.client.join(closed), JoinResponse)
    await romeo.until(
        "the bot in the room",
        lambda: closed in romeo.client.rooms and helper.client.mxid in romeo.client.rooms[closed].users,
    )

    async def met() -> bool:
        return romeo.id in await helper.client.state_store.get_members(closed)

    await until("the bot sees Romeo come in", met)
    await romeo.until(
        "the bot's device", lambda: list(romeo.client.device_store.active_user_devices(helper.client.mxid))
    )
    await helper.client.send_message_event(
        closed, EventType.ROOM_MESSAGE, TextMessageEventContent(msgtype=MessageType.TEXT, body="between us")
    )
    await romeo.until("the secret", lambda: "between us" in romeo.bodies(closed))
    assert [e for r, _, b, e in romeo.said if b == "between us"] == [True]
    await romeo.say(closed, "my lips are sealed")

    async def deciphered() -> bool:
        return "my lips are sealed" in helper.heard

    await until("the bot deciphers", deciphered)


async def test_a_bot_of_javascript_comes_where_it_is_asked_and_answers(hansa, local_user, ca, tmp_path):
    """matrix-bot-sdk, with clients on the paths of before: for media, and the token in a header."""
    folder, _ = require_browser()
    server = await hansa()
    helper, romeo = await server.account("helper"), await local_user(server, "romeo")
    command = [
        "env",
        f"NODE_EXTRA_CA_CERTS={ca.certificate}",
        "node",
        str(folder / "bot.cjs"),
        server.url,
        helper,
        "pw",
    ]
    process = Process(command, tmp_path, foreign=True)
    try:

        async def said(what: str) -> str:
            assert process.running, process.tail()
            lines = (tmp_path / "output.log").read_text().splitlines()
            return next((line for line in lines if what in line), "")

        await until("the bot is ready", lambda: said('"ready"'))
        room = await romeo.create_room(preset="private_chat", invite=[helper])

        async def inside() -> bool:
            return helper in await romeo.members(room)

        await until("the bot comes in", inside)
        event = await romeo.say(room, "!ping")
        await until("the bot answers", lambda: said(event))
        history = await romeo.history(room)
        (answer,) = [e for e in history if e["sender"] == helper and e["type"] == "m.room.message"]
        assert answer["content"]["body"].endswith("pong a map")
        assert answer["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == event
        (reaction,) = [e for e in history if e["type"] == "m.reaction"]
        assert reaction["content"]["m.relates_to"]["key"] == "+1"
    finally:
        process.stop()
