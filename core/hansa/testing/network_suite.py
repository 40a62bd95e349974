"""The tests that every network must pass. Subclass ``NetworkSuite``, name the plugin's module, write
``inject``.

Each test runs the network in a whole Hansa in memory, under the id ``tested``, in one room with a scripted
network, ``other``. ``shown`` returns what a test has sent. Override it where the native side can be
inspected; otherwise it returns what ``send`` claims to have done. ``network_bench.py`` has the settings,
``network_conduct.py``, ``network_peer.py`` and ``network_relations.py`` have the tests of faults.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from hansa.api.contracts import RetryLater
from hansa.host.plugin_checks import check_module
from hansa.model.content import (
    Content,
    Edit,
    Kind,
    Message,
    PollAnswer,
    PollStart,
    Reaction,
    Retraction,
    Style,
)
from hansa.model.errors import RemoteProtocolError
from hansa.model.events import Delivery, Submission
from hansa.model.fallback_text import fallback_text
from hansa.model.features import Level
from hansa.model.ref import NativeId
from hansa.testing.network_conduct import ConductChecks
from hansa.testing.network_peer import PeerChecks
from hansa.testing.network_relations import RelationChecks
from hansa.testing.network_samples import TARGETED, sample_contents, targeted_contents
from hansa.testing.network_signals import SignalChecks
from hansa.testing.stage import Stage

_MANY = 20


@pytest.mark.asyncio
class NetworkSuite(ConductChecks, PeerChecks, RelationChecks, SignalChecks):
    """The contract of ``hansa.Network`` as tests."""

    async def inject(self, net: Any, room: str, sender: str, text: str) -> None:
        """Make a message arrive from the native side, as its peer would. ``room`` and ``sender`` are native
        ids. The one method that must be written.
        """
        raise NotImplementedError

    async def inject_content(self, net: Any, room: str, sender: str, content: Content) -> None:
        """The same for any content: needed for each kind beyond plain text that is declared FULL."""
        if not isinstance(content, Message) or content.style is not Style.TEXT:
            raise NotImplementedError
        await self.inject(net, room, sender, content.text)

    def shown(self, stage: Stage) -> Sequence[Content]:
        """Returns the contents that the native side got in the room, in order. The default returns what
        ``send`` returned for, once per native id (or per key, where there is no id).
        """
        found: dict[str, Content] = {}
        for delivery, native in stage.sends:
            if delivery.link.native.id == stage.room:
                found.setdefault(native or delivery.key, delivery.content)
        return list(found.values())

    def malformed(self, net: Any) -> Iterable[Callable[[], Any]]:
        """Calls (sync or async), each of which feeds the network one thing that its protocol forbids."""
        del net
        return ()

    def _has_more(self, stage: Stage, than: int) -> bool:
        return len(self.shown(stage)) > than

    async def test_what_arrives_reaches_the_other_network_once(self) -> None:
        """A message from the native side is shown on the other side, one time."""
        async with self.stage() as stage:
            for text in ("arrives", "fence"):
                await self.inject(stage.net, stage.room, self.sender, text)
            seen = await stage.seen(Message(text="fence"))
            assert seen.count(Message(text="arrives")) == 1

    async def test_an_echo_is_no_new_event(self) -> None:
        """The echo of a sent message is not submitted as a new event, under whatever id the network gives
        it.
        """
        async with self.stage() as stage:
            await self._says(stage, Message(text="resounds"))
            delivery, native = stage.sends[0]
            if native and not delivery.link.hosted:
                echo = Submission(
                    origin=NativeId("tested", native),
                    room=delivery.link.native,
                    sender=NativeId("tested", self.sender),
                    content=Message(text="resounds"),
                    ts=0,
                )
                outcome = (await stage.app.contexts["tested"].submit([echo]))[0]
                assert outcome.duplicate, "send did not return the native id of what it sent"
            await self.inject(stage.net, stage.room, self.sender, "fence")
            await stage.seen(Message(text="fence"))
            texts = [e.content.text for e in await stage.log() if isinstance(e.content, Message)]
            assert texts.count("resounds") == 1

    async def test_the_same_key_twice_is_sent_once(self) -> None:
        """A repeated delivery is a no-op that gives the same native id."""
        async with self.stage() as stage:
            await self._says(stage, Message(text="repeated"))
            delivery, native = stage.sends[0]
            assert await stage.net.send(delivery) == native
            await self._says(stage, Message(text="fence"))
            await stage.until("the fence was shown", lambda: Message(text="fence") in self.shown(stage))
            assert list(self.shown(stage)).count(Message(text="repeated")) == 1

    async def test_order_is_kept_in_a_room(self) -> None:
        """Both ways, also when much is said at once."""
        async with self.stage() as stage:
            come = [Message(text=f"in {n}") for n in range(_MANY)]
            for one in come:
                await self.inject(stage.net, stage.room, self.sender, one.text)
            await stage.other.until_shown("other", lambda found: set(come) <= set(found), self.within)
            assert [c for c in stage.other.contents("other") if c in come] == come
            gone = [Message(text=f"out {n}") for n in range(_MANY)]
            await self._says(stage, *gone)
            await stage.until("all was shown", lambda: set(gone) <= set(self.shown(stage)))
            assert [c for c in self.shown(stage) if c in gone] == gone

    async def test_a_raised_send_is_sent_again(self) -> None:
        """After ``RetryLater`` the same delivery comes again with a higher ``attempt``, and is shown then."""
        async with self.stage() as stage:
            failing: list[Exception] = [RetryLater("away", after=0.01), RetryLater("still away", after=0.01)]
            with pytest.MonkeyPatch.context() as patch:
                _fail_sends(patch, stage, failing)
                await self._says(stage, Message(text="at last"), Message(text="fence"))
            assert not failing
            await stage.until("the fence was shown", lambda: Message(text="fence") in self.shown(stage))
            assert list(self.shown(stage)) == [Message(text="at last"), Message(text="fence")]

    async def test_stop_is_bounded_and_leaves_no_task(self) -> None:
        """After ``stop``, and the end of what it spawned by ``ctx``, none of its tasks runs, in whatever
        state it was.
        """
        before = asyncio.all_tasks()
        async with self.stage() as stage:
            await self.inject(stage.net, stage.room, self.sender, "last words")
            await self._says(stage, Message(text="goodbye"))
            stopping = asyncio.ensure_future(stage.net.stop())
            done, _ = await asyncio.wait({stopping}, timeout=self.stop_within)
            stopping.cancel()
            assert done, f"stop took longer than {self.stop_within:g} s"
            stopping.result()
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert not left, f"still running: {[task.get_coro() for task in left]}"

    async def test_the_plugin_is_one_that_loads(self) -> None:
        """It says ``api``, and its Config refuses a key that it does not know."""
        check_module("tested", self.plugin)
        with pytest.raises(ValidationError, match="extra_forbidden"):
            self.plugin.Config.model_validate({**self.options, "no_such_setting": 1})

    async def test_what_is_declared_full_survives_both_ways(self) -> None:
        """Each kind declared FULL arrives as it was: from the native side, and on the native side."""
        async with self.stage() as stage:
            own = NativeId("tested", self.sender)
            for content in sample_contents(own):
                await self._inject_full(stage, content)
            await self._inject_about_a_message(stage)
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            for content in await self._outward_contents(stage, Level.FULL):
                if await self._may_say(stage, content):
                    await stage.until(
                        f"{content} was shown as it is", partial(self._is_shown, stage, content)
                    )

    async def test_what_is_degraded_carries_text(self) -> None:
        """Each kind declared FALLBACK is shown as a message that says something."""
        async with self.stage() as stage:
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            for content in await self._outward_contents(stage, Level.FALLBACK):
                before = len(self.shown(stage))
                if not await self._may_say(stage, content):
                    continue
                await stage.until(
                    f"something was shown for {content.kind}",
                    partial(self._has_more, stage, before),
                )
                told = self.shown(stage)[-1]
                assert isinstance(told, Message), f"{content.kind} was shown as {told}"
                assert told.text.strip(), f"{content.kind} was shown without a text"

    async def _inject_full(self, stage: Stage, content: Content) -> None:
        """Injects a content that is declared FULL, and waits for it on the other side."""
        if stage.features.level(content.kind) is not Level.FULL:
            return
        try:
            await self.inject_content(stage.net, stage.room, self.sender, content)
        except NotImplementedError:
            plain = isinstance(content, Message)
            assert plain, f"{content.kind} is declared FULL: write inject_content for it"
            return
        await stage.seen(content)

    async def _inject_about_a_message(self, stage: Stage) -> None:
        """Injects what concerns an earlier message: its target is the core's id of that message."""
        about = (Kind.EDIT, Kind.REACTION, Kind.RETRACTION)
        if all(stage.features.level(kind) is not Level.FULL for kind in about):
            return
        await self.inject(stage.net, stage.room, self.sender, "a first try")
        await stage.seen(Message(text="a first try"))
        target = next(e.id for e in await stage.log() if e.content == Message(text="a first try"))
        await self._inject_full(stage, Edit(target=target, message=Message(text="a better one")))
        await self._inject_full(stage, Reaction(target=target, key="👍"))
        await self._inject_full(stage, Retraction(target=target))

    async def _outward_contents(self, stage: Stage, level: Level) -> list[Content]:
        """Returns contents of the scripted network's person that the network declares at this level."""
        zoe = NativeId("other", "zoe@elsewhere")
        wanted = {kind for kind in Kind if stage.features.level(kind) is level}
        found = [content for content in sample_contents(zoe) if content.kind in wanted]
        if wanted & TARGETED:
            message = await self._event_by_zoe(stage, Message(text="to be spoken about"), level)
            reaction = await self._event_by_zoe(stage, Reaction(target=message, key="🎉"), level)
            answers = (PollAnswer(id="a", text="Tea"), PollAnswer(id="b", text="Coffee"))
            poll = await self._event_by_zoe(stage, PollStart(question="What?", answers=answers), level)
            about = targeted_contents(message, reaction, poll)
            found += [c for c in about if c.kind in wanted and fallback_text(c)]
        return found

    async def _event_by_zoe(self, stage: Stage, content: Content, wanted: Level) -> str:
        """Returns the id of a new event. If its level is the wanted one, it is shown before the next one."""
        before = len(self.shown(stage))
        outcome = await stage.other.do("other", "zoe@elsewhere", content)
        assert outcome.event is not None, f"the core refused {content}: {outcome.refusal}"
        event, level = outcome.event.id, stage.features.level(content.kind)
        if level >= Level.FALLBACK:
            await stage.until(f"send returned for {content}", lambda: stage.has_returned(event))
        if level in {wanted, Level.FULL}:
            await stage.until(f"{content} was shown", partial(self._has_more, stage, before))
        return event

    async def _may_say(self, stage: Stage, content: Content) -> bool:
        """Sends a content, if the rules of the room allow it: False if not."""
        outcome = await stage.other.do("other", "zoe@elsewhere", content)
        event = outcome.event
        if event is None:
            return False
        await stage.until(f"send returned for {content}", lambda: stage.has_returned(event.id))
        return True

    async def test_bad_input_is_the_peers_fault(self) -> None:
        """Everything of ``malformed`` raises RemoteProtocolError, never anything else."""
        async with self.stage() as stage:
            calls = list(self.malformed(stage.net))
            if not calls:
                pytest.skip("this network gives no malformed()")
            for number, call in enumerate(calls):
                error = await _raised_by(call)
                assert isinstance(error, RemoteProtocolError), f"malformed()[{number}] raised {error!r}"


async def _raised_by(call: Callable[[], Any]) -> Exception | None:
    try:
        found = call()
        if inspect.isawaitable(found):
            await found
    except Exception as error:  # noqa: BLE001  # its kind is what is tested
        return error
    return None


def _fail_sends(patch: pytest.MonkeyPatch, stage: Stage, failing: list[Exception]) -> None:
    real = type(stage.net).send

    async def send(network: Any, delivery: Delivery) -> str:
        if failing:
            raise failing.pop(0)
        native: str = await real(network, delivery)
        return native

    patch.setattr(type(stage.net), "send", send)
