"""Commands to the bridge by people of IRC."""

from __future__ import annotations

from contextlib import asynccontextmanager

import hansa_irc
from hansa import NativeId
from hansa.testing import CommandSettings, run_hansa, until
from hansa.testing.actor import Config, module
from irc_server import IrcServer

ROOM = "#room"


@asynccontextmanager
async def commanded(*, enabled: bool = True, puppets: int = 0):
    """A channel that is linked to a room of another network, with Ann in it."""
    server = await IrcServer().start()
    options = {
        "host": "127.0.0.1",
        "port": server.port,
        "transport": "tcp",
        "lines_per_second": 0,
        "puppets": puppets,
    }
    made = {}
    networks = {
        "irc": (hansa_irc, hansa_irc.Config(**options)),
        "other": (module(made), Config()),
    }
    rooms = [[f"irc:{ROOM}", "other:room"]]
    try:
        async with run_hansa(networks, rooms=rooms, commands=CommandSettings(enabled=enabled)) as app:
            ann = server.person("Ann", ROOM)
            view = app.rooms.room_of(NativeId("irc", ROOM)).view
            await until(lambda: view.membership(NativeId("irc", "ann")) is not None)
            yield server, ann, made["other"]
    finally:
        await server.stop()


def notices(ann) -> list[str]:
    return [line.param(1) for line in ann.got if line.command == "NOTICE" and line.param(0).lower() == "ann"]


async def test_a_command_in_a_channel_is_answered_to_the_nick():
    async with commanded() as (server, ann, other):
        await other.join("room", "zoe@x", "Zoe")
        server.act("Ann", "PRIVMSG", ROOM, "!hansa who")
        await until(lambda: len(notices(ann)) == 2)
        assert notices(ann) == ["irc (1): Ann", "other (1): Zoe"]
        server.act("Ann", "PRIVMSG", ROOM, "after")
        assert await other.until("room", 1) == ["after"]
        assert not [text for text in server.texts(ROOM) if "Zoe" in text]


async def test_the_nick_of_the_bridge_answers():
    async with commanded() as (server, ann, _):
        bridge = next(user.nick for user in server.users.values() if user.writer is not None)
        server.act("Ann", "PRIVMSG", bridge, "status")
        await until(lambda: notices(ann) == ["irc: up", "other: up"])
        server.act("Ann", "NOTICE", bridge, "status")
        server.act("Ann", "PRIVMSG", bridge, "sing")
        await until(lambda: len(notices(ann)) == 3)
        assert notices(ann)[2].startswith("There is no command sing")


async def test_without_commands_the_bridge_says_that_it_reads_nothing():
    async with commanded(enabled=False) as (server, ann, _):
        bridge = next(user.nick for user in server.users.values() if user.writer is not None)
        server.act("Ann", "PRIVMSG", bridge, "status")
        await until(lambda: notices(ann) == ["this is a bridge: write to a person's own nick"])


async def test_people_of_other_networks_ask_for_their_nick():
    async with commanded(puppets=1) as (server, ann, other):
        await other.join("room", "zoe@x", "Zoe")
        await other.say("room", "zoe@x", "!hansa irc nick")
        await until(lambda: other.told)
        assert other.told.pop() == ("zoe@x", "The bridge says what you write, with your name before it.")
        await other.say("room", "zoe@x", "ahoy")
        await until(lambda: "ahoy" in server.texts(ROOM))
        await other.say("room", "zoe@x", "!hansa irc nick")
        await until(lambda: other.told)
        assert other.told.pop() == ("zoe@x", "You are Zoe on IRC.")
        server.act("Ann", "PRIVMSG", ROOM, "!hansa irc nick")
        await until(lambda: notices(ann) == ["You are ann on IRC."])
