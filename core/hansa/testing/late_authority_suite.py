"""The tests that every late authority must pass. Subclass ``LateAuthoritySuite``, name the plugin's module
with options that make its rooms decide, and write ``shown`` and ``make_refuse``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hansa.api.contracts import LateAuthority
from hansa.model.content import Content, Message
from hansa.model.errors import Busy
from hansa.model.events import Delivery, RefusalCode
from hansa.testing.network_bench import NetworkBench
from hansa.testing.stage import Stage


@pytest.mark.asyncio
class LateAuthoritySuite(NetworkBench):
    """The contract of ``hansa.LateAuthority`` as tests."""

    def shown(self, stage: Stage) -> Sequence[Content]:
        """Returns the contents that the native side got in the room, in order. It must be written."""
        raise NotImplementedError

    async def make_refuse(self, net: Any, room: str) -> None:
        """Make the native side refuse what is said in a room from now on. It must be written."""
        raise NotImplementedError

    async def test_its_rooms_decide(self) -> None:
        """It is a late authority, and opens its rooms as one."""
        async with self.stage() as stage:
            assert isinstance(stage.net, LateAuthority), "write ``propose``: see hansa.LateAuthority"
            (link,) = stage.app.rooms.links("tested")
            assert link.authority, "open_room returns a room without ``authority=True``: it does not decide"

    async def test_what_is_reflected_is_said_once_and_in_order(self) -> None:
        """What is said on another network is shown on the native side and enters the log, both once."""
        async with self.stage() as stage:
            texts = [f"proposed {number}" for number in range(10)]
            for text in texts:
                outcome = await stage.other.say("other", "zoe@elsewhere", text)
                assert outcome.event is not None, f"{text!r} was refused: {outcome.refusal}"
            assert await self._said(stage) == texts, "the echo of a reflection is not a new event"
            told = [c.text for c in self.shown(stage) if isinstance(c, Message)]
            assert [text for text in told if text in texts] == texts, f"{told} was shown"

    async def test_what_is_refused_is_not_said(self) -> None:
        """A refusal of the native side is the sender's, with its reason, and the log has nothing of it."""
        async with self.stage() as stage:
            await self.make_refuse(stage.net, stage.room)
            outcome = await stage.other.say("other", "zoe@elsewhere", "not here")
            assert outcome.event is None, (
                "propose returned for what the native side refuses: return when it is reflected, and raise "
                "DeliveryRejected with the reason if it is refused"
            )
            assert outcome.refusal is not None, "neither an event nor a refusal"
            assert outcome.refusal.code is RefusalCode.FORBIDDEN, (
                f"the refusal is {outcome.refusal}: raise DeliveryRejected with the native side's reason"
            )
            assert await self._said(stage) == [], "what was refused is in the log"

    async def test_the_same_key_is_proposed_once(self) -> None:
        """A repeated draft is a no-op that gives the same native id."""
        async with self.stage() as stage:
            calls = await self._recorded(stage)
            await stage.other.say("other", "zoe@elsewhere", "repeated")
            delivery, native = calls[0]
            assert await stage.net.propose(delivery) == native, "the repetition has another native id"
            told = [c.text for c in self.shown(stage) if isinstance(c, Message)]
            assert told.count("repeated") == 1, "a repeated draft was shown twice"

    async def test_without_a_peer_nothing_is_said(self) -> None:
        """While the peer is away, a sender is told to try again, or that it cannot be reached."""
        if not self._has_peer():
            pytest.skip("this network's peer cannot be taken away: see stop_peer")
        async with self.stage() as stage:
            await self.stop_peer()
            try:
                async with asyncio.timeout(self.within):
                    outcome = await stage.other.say("other", "zoe@elsewhere", "into the void")
            except Busy:
                pass
            else:
                assert outcome.event is None, "propose returned, and nobody has reflected anything"
            finally:
                await self.start_peer()
            assert await self._said(stage) == []

    async def _said(self, stage: Stage) -> list[str]:
        return [e.content.text for e in await stage.log() if isinstance(e.content, Message)]

    async def _recorded(self, stage: Stage) -> list[tuple[Delivery, str]]:
        """The calls of ``propose`` that return from now on."""
        found: list[tuple[Delivery, str]] = []
        real = stage.net.propose

        async def propose(delivery: Delivery) -> str:
            native: str = await real(delivery)
            found.append((delivery, native))
            return native

        stage.net.propose = propose
        return found
