"""Each check of NetworkSuite is failed by a network that is broken in just this way, and by it alone."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import ClassVar

import pytest
from hansa import (
    Custom,
    Encrypted,
    Features,
    HansaError,
    Kind,
    Level,
    Member,
    Message,
    Name,
    NativeId,
    RemoteProtocolError,
    Style,
    Submission,
    Topic,
    hookimpl,
)
from hansa.testing import NetworkSuite
from pydantic import BaseModel, ConfigDict

from .checks import failing, names


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    greeting: str


class Wire:
    """A network that keeps its contract. ``native`` is what its peer was told, per room."""

    features = Features(
        levels={
            Kind.MESSAGE: Level.FULL,
            Kind.MEMBER: Level.FULL,
            Kind.TOPIC: Level.FULL,
            Kind.NAME: Level.FALLBACK,
            Kind.ENCRYPTED: Level.FALLBACK,
            Kind.CUSTOM: Level.FALLBACK,
        }
    )

    def __init__(self, ctx):
        self.ctx = ctx
        self.native = {}
        self.sent = {}
        self.heard = 0

    async def start(self):
        self.greeting = self.ctx.config.greeting

    async def stop(self):
        await asyncio.sleep(0)

    async def send(self, delivery):
        if delivery.key not in self.sent:
            self.tell(delivery.link.native.id, delivery.content)
            self.sent[delivery.key] = f"sent-{len(self.sent)}"
        return self.sent[delivery.key]

    def tell(self, room, content):
        self.native.setdefault(room, []).append(content)

    def read(self, raw):
        kind, _, text = raw.partition(":")
        if kind != "say":
            raise RemoteProtocolError(f"{kind!r} is no command")
        return text

    async def hear(self, room, sender, content):
        self.heard += 1
        await self.submit(room, sender, content, f"heard-{self.heard}")

    async def submit(self, room, sender, content, origin):
        inbound = Submission(
            origin=NativeId(self.ctx.id, origin),
            room=NativeId(self.ctx.id, room),
            sender=NativeId(self.ctx.id, sender),
            content=content,
            ts=0,
        )
        await self.ctx.submit([inbound])


def suite_of(network, config=Config):
    module = types.ModuleType(f"wire_{network.__name__}_{config.__name__}")
    module.api, module.Config = 1, config
    module.open_network = hookimpl(lambda ctx: network(ctx))
    sys.modules[module.__name__] = module

    class Suite(NetworkSuite):
        plugin = module
        options: ClassVar = {"greeting": "hi"}
        stop_within = 0.2
        within = 1.0

        async def inject(self, net, room, sender, text):
            await net.hear(room, sender, Message(text=net.read(f"say:{text}")))

        async def inject_content(self, net, room, sender, content):
            await net.hear(room, sender, content)

        def shown(self, stage):
            return stage.net.native.get(stage.room, [])

        def malformed(self, net):
            return [lambda: net.read("shout:x"), lambda: net.read("")]

    return Suite


class TestASoundNetwork(suite_of(Wire)):
    pass


class Twice(Wire):
    async def hear(self, room, sender, content):
        await super().hear(room, sender, content)
        if isinstance(content, Message) and content.text == "arrives":
            await super().hear(room, sender, content)


class Deaf(Wire):
    async def hear(self, room, sender, content):
        if not (isinstance(content, Message) and content.text == "arrives"):
            await super().hear(room, sender, content)


class Resounding(Wire):
    """Its peer's echo comes under another id than ``send`` gave."""

    async def send(self, delivery):
        fresh = delivery.key not in self.sent
        native = await super().send(delivery)
        if fresh and isinstance(delivery.content, Message) and delivery.content.text == "resounds":
            await self.submit(delivery.link.native.id, "ann", delivery.content, f"echo-of-{native}")
        return native


class WrongId(Wire):
    """A network that returns the id of nothing for a sent message: an empty alias would be honest."""

    async def send(self, delivery):
        native = await super().send(delivery)
        if isinstance(delivery.content, Message) and delivery.content.text == "resounds":
            await self.submit(delivery.link.native.id, "ann", Message(text="resounds"), "late")
            return ""
        return native


class Forgetful(Wire):
    """Shows a repeated delivery again, under the same id."""

    async def send(self, delivery):
        if delivery.key in self.sent:
            self.tell(delivery.link.native.id, delivery.content)
        return await super().send(delivery)


class Renaming(Wire):
    """Shows it once, but gives the repetition another id."""

    async def send(self, delivery):
        known = delivery.key in self.sent
        return await super().send(delivery) + ("-again" if known else "")


class Scrambled(Wire):
    """A network on which later messages overtake: each message waits less long than the one before."""

    async def hear(self, room, sender, content):
        self.heard += 1
        number = self.heard
        if not isinstance(content, Message):
            await self.submit(room, sender, content, f"heard-{number}")
            return

        async def later():
            await asyncio.sleep(0 if content.text == "fence" else max(0.0, 0.1 - number / 200))
            await self.submit(room, sender, content, f"heard-{number}")

        work = self.ctx.spawn(later(), "later")
        if not content.text.startswith("in "):
            await work


class Stack(Wire):
    """A network that shows messages newest first if they arrive close together."""

    def tell(self, room, content):
        if isinstance(content, Message) and content.text.startswith("out "):
            self.native.setdefault(room, []).insert(0, content)
        else:
            super().tell(room, content)


class OnlyOnce(Wire):
    """Takes a second attempt for a repetition."""

    async def send(self, delivery):
        if delivery.attempt > 1:
            return "sent-already"
        return await super().send(delivery)


class Lingering(Wire):
    """Its stop waits for a peer that is slow to say goodbye."""

    async def stop(self):
        await asyncio.sleep(0.4)


class Leaking(Wire):
    #: Without them nobody would know of a task that waits for nothing, and it would be collected as garbage.
    leaked: ClassVar[list[asyncio.Task]] = []

    async def start(self):
        await super().start()
        self.leaked.append(asyncio.get_running_loop().create_task(self.listen()))

    async def listen(self):
        await asyncio.Event().wait()


class Flat(Wire):
    """Declares messages FULL and loses their lines."""

    async def hear(self, room, sender, content):
        if isinstance(content, Message):
            content = Message(text=content.text.replace("\n", " "), style=content.style)
        await super().hear(room, sender, content)


class TopicAsText(Wire):
    """Declares topics FULL and shows them as messages."""

    def tell(self, room, content):
        super().tell(room, Message(text=content.text) if isinstance(content, Topic) else content)


def degraded(content):
    return isinstance(content, Message) and content.style is Style.NOTICE and content.text != "is told"


class Mute(Wire):
    """Drops what came degraded."""

    def tell(self, room, content):
        if not degraded(content):
            super().tell(room, content)


class Blank(Wire):
    def tell(self, room, content):
        super().tell(room, Message(text=" ") if degraded(content) else content)


class Careless(Wire):
    def read(self, raw):
        return {"say": raw.partition(":")[2]}[raw.partition(":")[0]]


class Lenient(Wire):
    def read(self, raw):
        return raw.partition(":")[2]


class Vague(Wire):
    def read(self, raw):
        try:
            return super().read(raw)
        except RemoteProtocolError as error:
            raise HansaError("?") from error


class Permissive(BaseModel):
    greeting: str


BROKEN = {
    Twice: "test_what_arrives_reaches_the_other_network_once",
    Deaf: "test_what_arrives_reaches_the_other_network_once",
    Resounding: "test_an_echo_is_no_new_event",
    WrongId: "test_an_echo_is_no_new_event",
    Forgetful: "test_the_same_key_twice_is_sent_once",
    Renaming: "test_the_same_key_twice_is_sent_once",
    Scrambled: "test_order_is_kept_in_a_room",
    Stack: "test_order_is_kept_in_a_room",
    OnlyOnce: "test_a_raised_send_is_sent_again",
    Lingering: "test_stop_is_bounded_and_leaves_no_task",
    Leaking: "test_stop_is_bounded_and_leaves_no_task",
    Flat: "test_what_is_declared_full_survives_both_ways",
    TopicAsText: "test_what_is_declared_full_survives_both_ways",
    Mute: "test_what_is_degraded_carries_text",
    Blank: "test_what_is_degraded_carries_text",
    Careless: "test_bad_input_is_the_peers_fault",
    Lenient: "test_bad_input_is_the_peers_fault",
    Vague: "test_bad_input_is_the_peers_fault",
}


@pytest.mark.parametrize("network", BROKEN, ids=lambda network: network.__name__)
async def test_a_broken_network_fails_exactly_its_check(network):
    assert await failing(suite_of(network)) == {BROKEN[network]}


async def test_a_config_that_takes_any_key_fails_exactly_its_check():
    assert await failing(suite_of(Wire, Permissive)) == {"test_the_plugin_is_one_that_loads"}


def test_every_check_has_a_network_that_fails_it():
    assert {*BROKEN.values(), "test_the_plugin_is_one_that_loads"} == set(names(NetworkSuite))


async def test_a_kind_declared_full_needs_a_way_to_be_injected():
    class OnlyText(suite_of(Wire)):
        async def inject_content(self, net, room, sender, content):
            await NetworkSuite.inject_content(self, net, room, sender, content)

    assert await failing(OnlyText) == {"test_what_is_declared_full_survives_both_ways"}


async def test_without_shown_a_repeated_delivery_under_a_new_id_is_seen():
    class Blind(suite_of(Renaming)):
        def shown(self, stage):
            return NetworkSuite.shown(self, stage)

    assert await failing(Blind) == {"test_the_same_key_twice_is_sent_once"}


async def test_a_network_without_malformed_is_not_judged_by_it():
    class Silent(suite_of(Careless)):
        def malformed(self, net):
            return ()

    with pytest.raises(pytest.skip.Exception):
        await Silent().test_bad_input_is_the_peers_fault()


def test_the_samples_hold_every_kind():
    from hansa.testing.network_suite import _sample_contents

    kinds = {type(content) for content in _sample_contents(NativeId("a", "b"))}
    assert kinds == {Message, Member, Name, Topic, Encrypted, Custom}
