"""The tests that every network must pass. Subclass ``NetworkSuite``, name the plugin's module, write
``inject``.

Each test runs the network in a whole Hansa in memory, under the id ``tested``, in one room with a scripted
network, ``other``. ``shown`` returns what a test has sent. Override it where the native side can be
inspected; otherwise it returns what ``send`` claims to have done.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from hansa.api.contracts import LinksRooms, OpenedRoom, RetryLater, features_of
from hansa.app import App
from hansa.bus.schema import event_of
from hansa.host.plugin_checks import check_module
from hansa.model.content import (
    Content,
    Custom,
    Encrypted,
    Member,
    Membership,
    Message,
    Name,
    Style,
    Topic,
)
from hansa.model.errors import RemoteProtocolError
from hansa.model.events import Delivery, Event, Submission
from hansa.model.features import Features, Level
from hansa.model.ref import NativeId
from hansa.testing.actor import Actor, module
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.harness import run_hansa
from hansa.testing.waiting import until

_MANY = 20


@dataclass(slots=True)
class Stage:
    """One running test: the network under test, the scripted one beside it, the room they share.

    ``sends`` are the calls of ``send`` that returned, each with the native id it gave. ``within`` is how many
    seconds anything may take.
    """

    app: App
    net: Any
    other: Actor
    room: str
    within: float
    sends: list[tuple[Delivery, str]] = field(default_factory=list)

    @property
    def features(self) -> Features:
        """The features of the network under test."""
        return features_of(self.net)

    async def log(self) -> list[Event]:
        """Everything that happened in the room, in order."""
        room = self.app.rooms.room_of(NativeId("tested", self.room))
        return [event_of(row) for row in await self.app.core.scan("event", equal=(room.id,), limit=10_000)]

    async def seen(self, content: Content) -> list[Content]:
        """Returns the contents that the scripted network got, once ``content`` is among them. Raises
        TimeoutError.
        """
        await self.other.until_shown("other", lambda found: content in found, self.within)
        return self.other.contents("other")

    async def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for a condition. Raises AssertionError, naming it, when it does not come."""
        try:
            await until(holds, self.within)
        except TimeoutError:
            raise AssertionError(f"not within {self.within:g} s: {what}") from None


@pytest.mark.asyncio
class NetworkSuite:
    """The contract of ``hansa.Network`` as tests."""

    #: The plugin's module, as the entry point names it.
    plugin: ModuleType
    #: Its table without ``plugin``: what ``plugin.Config`` is validated from.
    options: dict[str, Any] = {}  # noqa: RUF012  # read only; pydantic makes its own copy
    #: An address that the network opens, or the native id of a room where it opens none.
    address = "room"
    #: A user of the network, as a native id.
    sender = "ann"
    #: Seconds that ``stop`` may take.
    stop_within = 5.0
    #: Seconds that anything else may take.
    within = 10.0

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
            found.setdefault(native or delivery.key, delivery.content)
        return list(found.values())

    def malformed(self, net: Any) -> Iterable[Callable[[], Any]]:
        """Calls (sync or async), each of which feeds the network one thing that its protocol forbids."""
        del net
        return ()

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        """The network, up, in a room with the scripted one."""
        made: dict[str, Actor] = {}
        networks = {
            "tested": (self.plugin, self.plugin.Config.model_validate(self.options)),
            "other": (module(made), ActorConfig()),
        }
        async with run_hansa(networks) as app:
            async with asyncio.timeout(self.within):
                await app.runners["tested"].up()
                await app.runners["other"].up()
            net = app.runners["tested"].network
            if isinstance(net, LinksRooms):
                opened = await net.open_room(self.address, create=True)
            else:
                opened = OpenedRoom(native=NativeId("tested", self.address))
            link = await app.link_opened(opened, None)
            await app.link_opened(OpenedRoom(native=NativeId("other", "other")), link.room)
            stage = Stage(app, net, made["other"], link.native.id, self.within)
            with pytest.MonkeyPatch.context() as patch:
                _record_sends(patch, stage)
                yield stage

    async def _says(self, stage: Stage, *contents: Content) -> None:
        """The scripted network's person does this, and it was sent."""
        said: set[str] = set()
        for content in contents:
            outcome = await stage.other.do("other", "zoe@elsewhere", content)
            assert outcome.event is not None, f"the core refused {content}: {outcome.refusal}"
            said.add(outcome.event.id)
        await stage.until(
            f"send returned for {contents[-1]}",
            lambda: said <= {delivery.event.id for delivery, _ in stage.sends},
        )

    def _is_shown(self, stage: Stage, content: Content) -> bool:
        return content in self.shown(stage)

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
            for content in _sample_contents(own):
                if stage.features.level(content.kind) is not Level.FULL:
                    continue
                try:
                    await self.inject_content(stage.net, stage.room, self.sender, content)
                except NotImplementedError:
                    plain = isinstance(content, Message)
                    assert plain, f"{content.kind} is declared FULL: write inject_content for it"
                    continue
                await stage.seen(content)
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            for content in _sample_contents(NativeId("other", "zoe@elsewhere")):
                if stage.features.level(content.kind) is Level.FULL:
                    await self._says(stage, content)
                    await stage.until(
                        f"{content} was shown as it is", partial(self._is_shown, stage, content)
                    )

    async def test_what_is_degraded_carries_text(self) -> None:
        """Each kind declared FALLBACK is shown as a message that says something."""
        async with self.stage() as stage:
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            for content in _sample_contents(NativeId("other", "zoe@elsewhere")):
                if stage.features.level(content.kind) is not Level.FALLBACK:
                    continue
                before = len(self.shown(stage))
                await self._says(stage, content)
                await stage.until(
                    f"something was shown for {content.kind}",
                    partial(self._has_more, stage, before),
                )
                told = self.shown(stage)[-1]
                assert isinstance(told, Message), f"{content.kind} was shown as {told}"
                assert told.text.strip(), f"{content.kind} was shown without a text"

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


def _record_sends(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    real = type(stage.net).send

    async def send(self: Any, delivery: Delivery) -> str:
        native: str = await real(self, delivery)
        if self is stage.net:
            stage.sends.append((delivery, native))
        return native

    patch.setattr(type(stage.net), "send", send)


def _fail_sends(patch: pytest.MonkeyPatch, stage: Stage, failing: list[Exception]) -> None:
    real = type(stage.net).send

    async def send(self: Any, delivery: Delivery) -> str:
        if self is stage.net and failing:
            raise failing.pop(0)
        native: str = await real(self, delivery)
        return native

    patch.setattr(type(stage.net), "send", send)


def _sample_contents(person: NativeId) -> list[Content]:
    """One content or more of each kind, by ``person``, in an order that a room allows."""
    found: list[Content] = [
        Member(user=person, membership=Membership.JOIN, name="Known As"),
        Message(text="two\nlines,  é, 😀 <b>&amp;</b>"),
        Message(text="waves", style=Style.EMOTE),
        Message(text="is told", style=Style.NOTICE),
        Name(text="A room & its name"),
        Topic(text="What we\ntalk about"),
        Encrypted(),
        Custom(type="org.example.poll", text="Tea or coffee?"),
    ]
    return found
