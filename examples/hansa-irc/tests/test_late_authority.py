"""A channel that decides what people of other networks may say in it, beside a small server."""

from __future__ import annotations

from hansa import Message
from hansa.testing import LateAuthoritySuite, until
from irc_stage import ROOM, IrcStage


class TestChannelsThatDecide(IrcStage, LateAuthoritySuite):
    """The contract of late authorities."""

    more = {"decides": True}  # noqa: RUF012  # read only

    def shown(self, _stage):
        return [Message(text=text.removeprefix("<zoe> ")) for text in self.server.texts(ROOM)]

    async def make_refuse(self, _net, _room):
        self.server.refuse["PRIVMSG"] = "404"

    async def test_the_reason_of_the_channel_reaches_the_sender(self):
        async with self.stage() as stage:
            await self.make_refuse(stage.net, stage.room)
            outcome = await stage.other.say("other", "zoe@elsewhere", "not here")
            assert outcome.refusal.text == "it is refused"

    async def test_a_slow_server_is_reflected_late_and_its_answers_are_not_mixed_up(self, monkeypatch):
        monkeypatch.setattr("hansa.bus.late_authority.PROPOSE_TIMEOUT_S", 0.1)
        async with self.stage() as stage:
            self.server.deaf = True
            outcome = await stage.other.say("other", "zoe@elsewhere", "slowly")
            assert outcome.refusal is not None
            self.server.deaf = False
            for user in self.server.users.values():
                self.server.pong(user)

            async def is_said():
                return await self._said(stage) == ["slowly"]

            await until(is_said, 10)
            monkeypatch.setattr("hansa.bus.late_authority.PROPOSE_TIMEOUT_S", 10.0)
            assert (await stage.other.say("other", "zoe@elsewhere", "quickly")).event is not None
            assert await self._said(stage) == ["slowly", "quickly"]
