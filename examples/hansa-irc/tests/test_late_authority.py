"""A channel that decides what people of other networks may say in it, beside a small server."""

from __future__ import annotations

import hansa_irc
from hansa import Message
from hansa.testing import LateAuthoritySuite
from irc_server import IrcServer
from irc_stage import ROOM


class TestChannelsThatDecide(LateAuthoritySuite):
    plugin = hansa_irc
    address = ROOM
    options = {"host": "127.0.0.1"}  # noqa: RUF012  # read only
    server: IrcServer | None = None

    async def start_peer(self):
        self.server = self.server or IrcServer()
        await self.server.start()
        self.options = {
            "host": "127.0.0.1",
            "port": self.server.port,
            "transport": "tcp",
            "lines_per_second": 0,
            "decides": True,
        }

    async def stop_peer(self):
        await self.server.stop()

    def shown(self, _stage):
        return [Message(text=text.removeprefix("<zoe> ")) for text in self.server.texts(ROOM)]

    async def make_refuse(self, _net, _room):
        self.server.refuse["PRIVMSG"] = "404"

    async def test_the_reason_of_the_channel_reaches_the_sender(self):
        async with self.stage() as stage:
            await self.make_refuse(stage.net, stage.room)
            outcome = await stage.other.say("other", "zoe@elsewhere", "not here")
            assert outcome.refusal.text == "it is refused"
