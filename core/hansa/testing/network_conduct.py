"""Tests of ``NetworkSuite`` about faults that show without a peer: rooms, senders, texts, loops, threads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from hansa.api.contracts import OpenedRoom
from hansa.model.content import Message
from hansa.model.errors import Busy
from hansa.model.events import Submission, SubmitResult
from hansa.model.features import Level
from hansa.model.ref import NativeId
from hansa.store.base import Insert
from hansa.testing.loop_watch import LoopWatch
from hansa.testing.network_bench import NetworkBench
from hansa.testing.stage import Stage
from hansa.testing.task_watch import describe_tasks

#: Seconds after which a busy room wants to be asked again, and how often it is busy.
_BUSY_AFTER_S, _BUSY_TIMES = 0.1, 2
#: Bytes of the long text, and how many messages of the greatest length it would fill.
_MAX_LONG_TEXT, _LONG_PARTS = 24_000, 6


class ConductChecks(NetworkBench):
    """The tests of conduct."""

    async def test_rooms_are_kept_apart(self) -> None:
        """What is said in one room arrives in this room alone, in both directions."""
        if not self.other_address:
            pytest.skip("this network has one room only")
        async with self.stage() as stage:
            opened = await self._open_room(stage.net, self.other_address)
            link = await stage.app.link_opened(opened, None)
            await stage.app.link_opened(OpenedRoom(native=NativeId("other", "second")), link.room)
            second = replace(stage, room=link.native.id)
            rooms = ((stage, "other", "first"), (second, "second", "second"))
            for place, _, text in rooms:
                await self.inject(stage.net, place.room, self.sender, f"into the {text}")
            for place, room, text in rooms:
                await self._expect_alone(place, room, text)
            for _, room, text in rooms:
                await stage.other.say(room, "zoe@elsewhere", f"out of the {text}")
            for place, _, text in rooms:
                told = Message(text=f"out of the {text}")
                await stage.until(
                    f"{told.text!r} was shown in {place.room}", partial(self._is_shown, place, told)
                )
            for place, _, text in rooms:
                wrong = [c.text for c in self.shown(place) if isinstance(c, Message) and text not in c.text]
                assert not wrong, (
                    f"{wrong} was shown in the wrong room, {place.room}: send to delivery.link.native, and "
                    "to no other room"
                )

    async def _expect_alone(self, stage: Stage, room: str, text: str) -> None:
        want = f"into the {text}"
        try:
            await stage.other.until_shown(room, lambda found: Message(text=want) in found, self.within)
        except TimeoutError:
            raise AssertionError(
                f"{want!r} did not arrive in its room, {stage.room}: the wrong room was submitted, or none. "
                "Submission.room is the native id of the room in which it was said"
            ) from None
        wrong = [said for said in stage.other.texts(room) if said != want]
        assert not wrong, f"{wrong} arrived in the wrong room, {stage.room}: see Submission.room"

    async def test_senders_are_kept_apart(self) -> None:
        """Each person of the native side is a sender of their own, and the same one each time."""
        async with self.stage() as stage:
            people = (self.sender, self.other_sender, self.sender)
            for number, person in enumerate(people):
                await self.inject(stage.net, stage.room, person, f"by {number}")
                await stage.seen(Message(text=f"by {number}"))
            events = {e.content.text: e for e in await stage.log() if isinstance(e.content, Message)}
            senders = [events[f"by {number}"].sender.id for number in range(len(people))]
            assert senders[0] != senders[1], (
                f"{people[0]} and {people[1]} have the same sender, {senders[0]}: Submission.sender is the "
                "native id of the person who spoke, and not of the connection or of the bot"
            )
            assert senders[0] == senders[2], (
                f"{people[0]} has the sender {senders[0]} once and {senders[2]} later: a native id does not "
                "change from message to message"
            )
            for person, sender in zip(people, senders, strict=True):
                assert sender == person, f"{person} arrived as {sender}: they are another person there"

    async def test_a_long_text_is_whole(self) -> None:
        """No word of a long text is lost: it is shown in one message or in several, or a link leads to it."""
        async with self.stage() as stage:
            level = stage.features.level(Message.kind)
            if level < Level.FALLBACK:
                pytest.skip("this network shows no messages")
            size = min(_MAX_LONG_TEXT, stage.features.max_text * _LONG_PARTS)
            words = [f"word{number:04d}" for number in range(size // 9)]
            await self._says(stage, Message(text=" ".join(words)), Message(text="fence"))
            await stage.until("a message after a long one was shown", lambda: self._ends_with_fence(stage))
            texts = [c.text for c in self.shown(stage) if isinstance(c, Message)]
            spaced, joined = " ".join(texts), "".join(texts)
            lost = [word for word in words if word not in spaced and word not in joined]
            assert not lost or "://" in spaced, (
                f"{len(lost)} of {len(words)} words of a long text were lost, from {lost[0]} to {lost[-1]}: "
                f"messages are declared {level.name}, which may lose formatting and never words. Declare "
                "max_text, and the core splits the text; or split it, or link to it"
            )

    def _ends_with_fence(self, stage: Stage) -> bool:
        shown = self.shown(stage)
        return bool(shown) and isinstance(shown[-1], Message) and "fence" in shown[-1].text

    async def test_a_busy_room_is_tried_again_later(self) -> None:
        """Where ``submit`` raises ``Busy``, nothing is lost and the order is kept; the next attempt comes
        when ``after`` has passed.
        """
        async with self.stage() as stage:
            tries: dict[str, list[float]] = {}
            with pytest.MonkeyPatch.context() as patch:
                _make_busy(patch, stage, tries)
                for number in range(3):
                    await self._inject_patiently(stage, f"busy {number}")
                for number in range(3):
                    try:
                        await stage.seen(Message(text=f"busy {number}"))
                    except TimeoutError:
                        raise AssertionError(
                            f"message {number} was lost when submit raised Busy: wait for its ``after`` and "
                            "submit again, or have the peer send again"
                        ) from None
            texts = [text for text in stage.other.texts("other") if text.startswith("busy ")]
            assert texts == [f"busy {number}" for number in range(3)], f"after Busy, the order is {texts}"
            for times in tries.values():
                for first, second in pairwise(times):
                    assert second - first > _BUSY_AFTER_S / 2, (
                        f"submit was tried again {second - first:.3f} s after Busy asked for "
                        f"{_BUSY_AFTER_S} s: wait for ``after`` of the exception"
                    )

    async def _inject_patiently(self, stage: Stage, text: str) -> None:
        """Injects a message, again where the peer is asked to try again."""
        for _ in range(_BUSY_TIMES + 1):
            try:
                await self.inject(stage.net, stage.room, self.sender, text)
            except Busy as busy:
                await asyncio.sleep(busy.after)
            else:
                return

    async def test_the_peer_is_acknowledged_after_submit(self) -> None:
        """The peer is told that a message is taken only when ``submit`` has returned."""
        if not self.acknowledges:
            pytest.skip("inject does not wait for an acknowledgement: see NetworkSuite.acknowledges")
        async with self.stage() as stage:
            held, asked = asyncio.Event(), asyncio.Event()
            context = stage.app.contexts["tested"]
            real = context.submit

            async def submit(items: list[Submission], *, receipt: Insert | None = None) -> list[SubmitResult]:
                asked.set()
                await held.wait()
                return await real(items, receipt=receipt)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(context, "submit", submit)
                telling = asyncio.ensure_future(self.inject(stage.net, stage.room, self.sender, "precious"))
                async with asyncio.timeout(self.within):
                    await asked.wait()
                await asyncio.wait({telling}, timeout=self.away_s)
                early = telling.done()
                held.set()
                await telling
            assert not early, (
                "the peer was acknowledged before submit returned: a crash in between loses the message. "
                "Acknowledge after submit"
            )

    async def test_the_loop_is_not_blocked(self) -> None:
        """The network never keeps the event loop for long: everything else in the process would stand."""
        watch = LoopWatch(self.block_within)
        with watch.run():
            async with self.stage() as stage:
                await self.inject(stage.net, stage.room, self.sender, "in passing")
                await stage.seen(Message(text="in passing"))
                await self._says(stage, Message(text="out of the door"))
        assert not watch.blocked, (
            f"the event loop stood for {self.block_within:g} s at {watch.blocked}: await instead, or use "
            "asyncio.to_thread"
        )

    async def test_it_leaves_no_thread(self) -> None:
        """After ``stop``, none of its threads runs."""
        async with self.stage() as stage:
            await self._says(stage, Message(text="by thread"))
        names = ", ".join(sorted(thread.name for thread in self.threads))
        assert not self.threads, f"stop left threads running: {names}. End and join them in stop"

    async def test_its_tasks_end_when_they_are_cancelled(self) -> None:
        """No task of the network, and not ``stop``, swallows its cancellation."""
        async with self.stage() as stage:
            await self._says(stage, Message(text="to the end"))
        assert not self.stubborn, (
            f"the network swallows the cancellation of {describe_tasks(self.stubborn)}: Hansa cannot stop. "
            "Let CancelledError pass"
        )


def _make_busy(patch: pytest.MonkeyPatch, stage: Stage, tries: dict[str, list[float]]) -> None:
    """``submit`` of the network raises ``Busy`` twice for each message. ``tries`` gets the times by text."""
    context = stage.app.contexts["tested"]
    real, loop = context.submit, asyncio.get_running_loop()

    async def submit(items: list[Submission], *, receipt: Insert | None = None) -> list[SubmitResult]:
        content = items[0].content
        times = tries.setdefault(content.text if isinstance(content, Message) else "", [])
        times.append(loop.time())
        if len(times) <= _BUSY_TIMES:
            raise Busy("the suite keeps this room busy", after=_BUSY_AFTER_S)
        return await real(items, receipt=receipt)

    patch.setattr(context, "submit", submit)
