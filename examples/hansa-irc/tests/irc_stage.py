"""The network beside the small server, and what its tests wait for."""

from __future__ import annotations

import hansa_irc
from hansa import Message
from hansa_irc.lines import parse_line
from irc_server import IrcServer

ROOM = "#room"


class IrcStage:
    """Settings of ``NetworkSuite``. ``told`` makes a stage with further settings of the network."""

    plugin = hansa_irc
    address = ROOM
    other_address = "#second"
    options = {"host": "127.0.0.1"}  # noqa: RUF012  # read only

    more: dict = {}  # noqa: RUF012  # replaced, not changed
    server: IrcServer | None = None

    async def start_peer(self):
        self.server = self.server or IrcServer()
        await self.server.start()
        self.options = {
            "host": "127.0.0.1",
            "port": self.server.port,
            "transport": "tcp",
            "lines_per_second": 0,
            **self.more,
        }

    async def stop_peer(self):
        await self.server.stop()

    def told(self, **more):
        """A stage with further settings."""
        self.more = more
        return self.stage()

    async def inject(self, _net, room, sender, text):
        self.server.person(sender, room)
        self.server.act(sender, "PRIVMSG", room, text)

    def malformed(self, _net):
        return [
            lambda raw=raw: parse_line(raw)
            for raw in (b"", b":only.source", b"@a=b", b"PRIV\0MSG x", b"1234")
        ]

    async def says(self, stage, nick, text):
        """A person of the channel says something, and the other network has it."""
        await self.inject(stage.net, ROOM, nick, text)
        await stage.seen(Message(text=text))

    async def said(self, stage, text):
        """Waits until a line was said in the channel."""
        await stage.until(f"{text!r} was said", lambda: text in self.server.texts(ROOM))

    async def done(self, stage, command, *params):
        """Waits for a command of the bridge."""
        wanted = (command, params)
        await stage.until(
            f"{wanted}", lambda: wanted in [(one.command, one.params) for one in self.server.commands]
        )

    def notices(self, nick):
        """The notices that our connections have sent to a nick, in order."""
        return [
            one.params[1]
            for one in self.server.commands
            if one.command == "NOTICE" and one.params[0].lower() == nick
        ]
