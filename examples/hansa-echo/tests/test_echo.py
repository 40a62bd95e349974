"""The echo keeps the contract of networks, and repeats."""

from __future__ import annotations

from itertools import count

import hansa_echo
from hansa import DeliveryRejected, Message, Style
from hansa.testing import NetworkSuite

_NUMBERS = count()


class TestEcho(NetworkSuite):
    plugin = hansa_echo

    async def inject(self, net, room, sender, text):
        await net.say(room, sender, Message(text=text), f"said-{next(_NUMBERS)}")

    async def test_it_repeats_each_message_once(self):
        async with self.stage() as stage:
            await stage.other.say("other", "zoe@elsewhere", "ahoy")
            answer = Message(text="echo: ahoy", style=Style.NOTICE)
            await stage.seen(answer)
            delivery, _ = stage.sends[0]
            await stage.net.send(delivery)
            await stage.other.say("other", "zoe@elsewhere", "fence")
            seen = await stage.seen(Message(text="echo: fence", style=Style.NOTICE))
            assert seen.count(answer) == 1

    async def test_it_does_not_answer_notices(self):
        async with self.stage() as stage:
            await stage.other.do("other", "bot@elsewhere", Message(text="beep", style=Style.NOTICE))
            await stage.other.say("other", "zoe@elsewhere", "fence")
            seen = await stage.seen(Message(text="echo: fence", style=Style.NOTICE))
            assert seen == [Message(text="echo: fence", style=Style.NOTICE)]

    async def test_it_says_what_never_arrived(self, caplog):
        async with self.stage() as stage:

            def refuse(_):
                raise DeliveryRejected("too loud")

            stage.other.before_send = refuse
            await self.inject(stage.net, stage.room, "echo", "AHOY")
            await stage.until("it is logged", lambda: "did not reach other:other: too loud" in caplog.text)
