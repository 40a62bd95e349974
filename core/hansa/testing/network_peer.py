"""Tests of ``NetworkSuite`` that take the peer away and give it back, and that crash the network."""

from __future__ import annotations

import asyncio

import pytest

from hansa.model.content import Message
from hansa.testing.loop_watch import count_steps
from hansa.testing.network_bench import NetworkBench
from hansa.testing.stage import Stage

#: Messages of a burst.
_BURST = 20
#: Attempts to send, and steps of the loop, in a second without a peer.
_MAX_ATTEMPTS_PER_S, _MAX_STEPS_PER_S = 20, 2000


class PeerChecks(NetworkBench):
    """The tests of what happens when the peer or the network fails."""

    async def test_nothing_is_lost_while_the_peer_is_away(self) -> None:
        """What is said meanwhile is shown when the peer is back, and the network connects again by itself."""
        self._require_peer()
        async with self.stage() as stage:
            await self._says(stage, Message(text="before"))
            await self.stop_peer()
            event = await self._say_meanwhile(stage)
            early = stage.has_returned(event)
            await self.start_peer()
            await self._wait_connected(stage)
            try:
                await stage.until("", lambda: Message(text="meanwhile") in self.shown(stage))
            except AssertionError:
                raise AssertionError(_describe_loss(stage, event, early=early, seconds=self.within)) from None

    async def test_it_does_not_retry_busily(self) -> None:
        """Without a peer the network waits between its attempts, and uses no time of the event loop."""
        self._require_peer()
        async with self.stage() as stage:
            await self._says(stage, Message(text="before"))
            await self.stop_peer()
            await self._say_meanwhile(stage)
            attempts = len(stage.failures)
            with count_steps() as steps:
                await asyncio.sleep(self.away_s)
            attempts = len(stage.failures) - attempts
            await self.start_peer()
        assert attempts <= max(3, _MAX_ATTEMPTS_PER_S * self.away_s), (
            f"send was tried {attempts} times in {self.away_s:g} s without a peer: leave RetryLater.after at "
            "0 for the backoff of the core, and report_status that the network is connecting"
        )
        busy = max(steps, key=lambda name: steps[name], default="")
        assert steps.total() <= max(500, _MAX_STEPS_PER_S * self.away_s), (
            f"without a peer, the event loop made {steps.total()} steps in {self.away_s:g} s, most of them "
            f"for the task {busy!r}: wait between two attempts, with a growing delay (hansa.Backoff)"
        )

    async def test_what_was_sent_is_not_lost(self) -> None:
        """What ``send`` has returned for is at the peer, although the network crashes or the peer goes away
        in the middle of a burst.
        """
        async with self.stage() as stage:
            await self._says(stage, Message(text="before"))
            await self._burst(stage, "crash")
            await self._wait_connected(stage)
            await self._expect_all(stage, "crash", "the network crashed")
            if self._has_peer():
                await self._burst(stage, "loss")
                await self._wait_connected(stage)
                await self._expect_all(stage, "loss", "the peer went away")

    def _require_peer(self) -> None:
        if not self._has_peer():
            pytest.skip("this suite has no peer to take away: see NetworkSuite.stop_peer")

    async def _say_meanwhile(self, stage: Stage) -> str:
        """Says something that cannot be sent, and returns the id of the event when that was noticed."""
        outcome = await stage.other.say("other", "zoe@elsewhere", "meanwhile")
        assert outcome.event is not None, f"the core refused a message: {outcome.refusal}"
        event, runner = outcome.event.id, stage.app.runners["tested"]
        await stage.until(
            "the peer is away, and the network neither says so nor fails to send",
            lambda: runner.state != "up" or bool(stage.failures) or stage.has_returned(event),
        )
        return event

    async def _wait_connected(self, stage: Stage) -> None:
        runner = stage.app.runners["tested"]
        try:
            await stage.until("", lambda: runner.state == "up" and stage.net is not None)
        except AssertionError:
            raise AssertionError(
                f"the peer is back since {self.within:g} s, and the network is {runner.state} "
                f"({runner.text or 'it does not say why'}): it never connects again. Try again for as long "
                "as the network runs, with a growing delay (hansa.Backoff)"
            ) from None

    async def _burst(self, stage: Stage, what: str) -> None:
        """Much is said, and after the first of it the network crashes, or the peer goes away for a moment."""
        before = len(stage.sends)
        texts = [f"{what} {number}" for number in range(_BURST)]
        await asyncio.gather(*(stage.other.say("other", "zoe@elsewhere", text) for text in texts))
        await stage.until("the first of a burst was sent", lambda: len(stage.sends) > before)
        if what == "loss":
            await self.stop_peer()
            await self.start_peer()
            return
        restarts = stage.app.runners["tested"].restarts
        stage.app.contexts["tested"].spawn(_crash(), "crash of the suite")
        await stage.until(
            "the network was started again", lambda: stage.app.runners["tested"].restarts > restarts
        )

    async def _expect_all(self, stage: Stage, what: str, cause: str) -> None:
        wanted = {Message(text=f"{what} {number}") for number in range(_BURST)}
        try:
            await stage.until("", lambda: wanted <= set(self.shown(stage)))
        except AssertionError:
            lost = wanted - set(self.shown(stage))
            returned = [d.content for d, _ in stage.sends if d.content in lost]
            raise AssertionError(
                f"{cause}, and {len(lost)} of {_BURST} messages were not shown within {self.within:g} s; "
                f"send had returned for {len(returned)} of them. Return from send when the peer has the "
                "message, and not when it is in a queue; or confirm later what the peer has (hansa.Confirms)"
            ) from None


async def _crash() -> None:
    """The end of a task that the core takes for a crash of the network."""
    raise RuntimeError("the suite crashes the network")


def _describe_loss(stage: Stage, event: str, *, early: bool, seconds: float) -> str:
    """Returns the finding about an event that was not shown after the peer came back."""
    said = f"the peer is back, and what was said meanwhile was not shown within {seconds:g} s: "
    raised = [error for delivery, error in stage.failures if delivery.event.id == event]
    if early:
        return (
            said
            + "send returned although the peer was away, so an exception of the connection was swallowed. "
            "Let it pass, or raise RetryLater"
        )
    if raised and stage.has_returned(event):
        return (
            said
            + f"send first raised {raised[0]!r}, and a later attempt returned without sending. It remembers "
            "the key of a message that failed: remember a key when the peer has the message"
        )
    if raised:
        return said + f"send raised {raised[-1]!r} at its last attempt"
    return said + "send was not called again, or has not returned"
