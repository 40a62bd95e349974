"""The limit of lines under a clock that a test moves, and several bridges in one channel."""

from __future__ import annotations

from types import ModuleType

import hansa_irc
import pytest
from hansa import NetworkContext, hookimpl
from hansa.testing import Actor, ManualClock, run_hansa, until
from hansa_irc.echoes import Echoes
from hansa_irc.lines import join_lines
from irc_server import IrcServer
from pydantic import BaseModel

ROOM = "#room"


class Config(BaseModel):
    """No settings."""


@pytest.fixture
async def server():
    running = await IrcServer().start()
    yield running
    await running.stop()


@pytest.fixture
def actors():
    return {}


@pytest.fixture
def scripted(actors) -> ModuleType:
    def open_network(ctx: NetworkContext) -> Actor:
        actors[ctx.id] = Actor(ctx)
        return actors[ctx.id]

    found = ModuleType("hansa_scripted")
    found.api, found.Config, found.open_network = 1, Config, hookimpl(open_network)
    return found


def irc(server: IrcServer, **more):
    settings = {"host": "127.0.0.1", "port": server.port, "transport": "tcp", "lines_per_second": 0}
    return hansa_irc, hansa_irc.Config.model_validate(settings | more)


def paced(server: IrcServer) -> list[str]:
    return [one.command for one in server.commands if one.command in {"JOIN", "MODE", "PRIVMSG"}]


def pongs(server: IrcServer) -> int:
    return sum(one.command == "PONG" for one in server.commands)


async def stays(server: IrcServer, count: int) -> None:
    """No further line comes while the bridge answers five pings."""
    for _ in range(5):
        before = pongs(server)
        server.ping("hansa")
        await until(
            lambda before=before: pongs(server) > before,
            what="an answer",
        )
    assert len(paced(server)) == count


async def test_lines_come_in_a_burst_and_then_as_the_clock_allows(server, scripted, actors):
    clock = ManualClock()
    networks = {
        "irc": irc(server, lines_per_second=100, burst=6),
        "other": (scripted, Config()),
    }
    async with run_hansa(networks, rooms=[("other:lobby", f"irc:{ROOM}")], clock=clock):
        for number in range(20):
            await actors["other"].say("lobby", "zoe@x", f"line {number}")
        await until(lambda: len(paced(server)) == 6, what="the burst")
        await stays(server, 6)
        clock.advance(0.05)
        await until(lambda: len(paced(server)) == 11, what="five more")
        await stays(server, 11)
        clock.advance(3600)
        await until(lambda: len(paced(server)) == 17, what="a burst after an hour, and no more")
        await stays(server, 17)
        while len(server.texts(ROOM)) < 20:
            clock.advance(0.01)
            count = len(paced(server))
            await until(lambda count=count: len(paced(server)) == count + 1, what="one more line")
        assert server.texts(ROOM) == [f"<zoe> line {number}" for number in range(20)]


async def test_two_links_and_two_hansas_in_one_channel_do_not_answer_each_other(server, scripted, actors):
    networks = {"one": irc(server), "two": irc(server), "other": (scripted, Config())}
    rooms = [("other:lobby", f"one:{ROOM}", f"two:{ROOM}")]
    async with run_hansa(networks, rooms=rooms), run_hansa({"far": irc(server)}) as far:
        await far.runners["far"].network.open_room(ROOM, create=True)
        for number in range(10):
            await actors["other"].say("lobby", "zoe@x", f"here {number}")
            server.person("Ann", ROOM)
            server.act("Ann", "PRIVMSG", ROOM, f"there {number}")
        texts = [f"{text} {number}" for text in ("<zoe> here", "<Ann> there") for number in range(10)]
        await until(lambda: set(texts) <= set(server.texts(ROOM)), what="all was said")
        # A line that comes back is heard by both, and answered by neither: a fence through both shows it.
        for fence in ("first", "second"):
            await actors["other"].say("lobby", "zoe@x", fence)
            await until(lambda fence=fence: server.texts(ROOM).count(f"<zoe> {fence}") == 2, what=fence)
        said = server.texts(ROOM)
        assert max(said.count(text) for text in texts) == 2
        assert len(said) <= 2 * len(texts) + 4 + 5, said


def test_an_echo_is_told_from_a_line_of_a_person():
    echoes = Echoes()
    assert not echoes.is_echo(ROOM, "Ann", "hi", 0)
    assert echoes.is_echo(ROOM, "hansa_", "<Ann> hi", 1)
    assert echoes.is_echo(ROOM, "hansa_", "* ANN hi", 1)
    assert not echoes.is_echo(ROOM, "Bob", "hi", 2), "two people say the same"
    assert not echoes.is_echo(ROOM, "Ann", "hi", 3), "a person repeats themselves"
    assert not echoes.is_echo("#other", "hansa_", "<Ann> hi", 4)
    assert not echoes.is_echo(ROOM, "hansa_", "<Ann> hi", 100)
    echoes.say(ROOM, "", "<Zoe> ahoy", 200)
    assert echoes.is_echo(ROOM, "hansa_", "<Zoe> ahoy", 201)
    echoes.say(ROOM, "Zoe", "ahoy", 300)
    assert echoes.is_echo(ROOM, "Zoe_2", "ahoy", 301)
    assert not echoes.is_echo(ROOM, "Max", "ahoy", 301)


def test_channels_are_entered_together_and_every_line_fits():
    names = [f"#{'long' * 10}{number}" for number in range(25)]
    lines = join_lines(names)
    assert len(lines) <= 6
    assert all(len(line) <= 512 and line.count(b",") < 10 for line in lines)
    assert ",".join(line.decode().partition(":")[2].strip() for line in lines) == ",".join(names)
    assert join_lines([]) == []
