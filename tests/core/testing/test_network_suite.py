"""Each check of NetworkSuite is failed by a network that is broken in just this way, and by it alone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import ClassVar

import pytest
from hansa import (
    Edit,
    Features,
    HansaError,
    Kind,
    Level,
    Message,
    NativeId,
    RemoteProtocolError,
    RetryLater,
    Style,
    Topic,
)
from hansa.testing import NetworkSuite
from hansa.testing.network_samples import TARGETED, sample_contents, targeted_contents
from pydantic import BaseModel

from .broken_relations import BROKEN_RELATIONS, RELATION_SENTENCES
from .broken_signals import BROKEN_SIGNALS, SIGNAL_SENTENCES
from .checks import failing, names
from .wire import Wire, suite_of


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
        self.peer.heard += 1
        number = self.peer.heard
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


class Unaware(Wire):
    """Does not notice that its peer is away before it sends."""

    async def stay_connected(self):
        await asyncio.Event().wait()


class Swallowing(Unaware):
    """Logs the exception of its connection."""

    async def send(self, delivery):
        try:
            return await super().send(delivery)
        except RetryLater:
            return f"sent-{delivery.key}"


class Remembering(Unaware):
    """Remembers a key before the message is sent."""

    def __init__(self, ctx):
        super().__init__(ctx)
        self.tried = set()

    async def send(self, delivery):
        if delivery.key in self.tried and delivery.key not in self.sent:
            return f"sent-{delivery.key}"
        self.tried.add(delivery.key)
        return await super().send(delivery)


class Hermit(Wire):
    """Connects once."""

    async def stay_connected(self):
        await self.peer.lost.wait()
        self.ctx.report_status("connecting", "the peer is gone")


class Queueing(Wire):
    """Takes a message into a queue, and says that it was sent."""

    async def start(self):
        self.queue = asyncio.Queue()
        await super().start()
        self.ctx.spawn(self.write(), "writer")

    async def write(self):
        while True:
            room, content = await self.queue.get()
            await asyncio.sleep(0.005)
            super().tell(room, content)

    def tell(self, room, content):
        self.queue.put_nowait((room, content))


class Hasty(Wire):
    """Tells its peer that a message is taken, and submits it later."""

    async def hear(self, room, sender, content):
        self.ctx.spawn(super().hear(room, sender, content), "later")


class Dropping(Wire):
    """Drops what a busy room does not take."""

    async def submit(self, room, sender, content, origin):
        with contextlib.suppress(TimeoutError):
            await super().submit(room, sender, content, origin)

    async def wait_busy(self, busy):
        raise TimeoutError


class Impatient(Wire):
    async def wait_busy(self, busy):
        await asyncio.sleep(0)


class Spokesman(Wire):
    """Everybody's messages are those of the bot."""

    async def submit(self, room, sender, content, origin):
        await super().submit(room, "bot" if isinstance(content, Message) else sender, content, origin)


class Fickle(Wire):
    """A person has another id in each message."""

    async def submit(self, room, sender, content, origin):
        name = f"{sender}-{origin}" if isinstance(content, Message) and "by" in content.text else sender
        await super().submit(room, name, content, origin)


class OneRoom(Wire):
    """Hears everything in the room that it was linked to first."""

    async def submit(self, room, sender, content, origin):
        await super().submit("room", sender, content, origin)


class OneChannel(Wire):
    """Says everything in the room that it was linked to first."""

    def tell(self, room, content):
        super().tell("room", content)


class Cutting(Wire):
    """Its lines have 400 characters, and what is longer is cut."""

    features = Features(levels={**Wire.features.levels, Kind.MESSAGE: Level.PARTIAL})

    def tell(self, room, content):
        super().tell(room, Message(text=content.text[:400]) if isinstance(content, Message) else content)


class Sleeping(Wire):
    """Waits for its peer in the event loop."""

    def tell(self, room, content):
        if isinstance(content, Message) and content.text == "out of the door":
            time.sleep(0.6)
        super().tell(room, content)


class Threaded(Wire):
    """Leaves a thread at its end."""

    ends: ClassVar = []

    async def start(self):
        await super().start()
        self.ends.append(threading.Event())
        threading.Thread(target=self.ends[-1].wait, name="reader", daemon=True).start()


class Undying(Wire):
    """Its task swallows every cancellation."""

    async def stay_connected(self):
        self.ctx.report_status("up")
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


class Restless(Wire):
    """Tries to connect again and again, without a pause."""

    async def stay_connected(self):
        while True:
            self.ctx.report_status("up" if self.peer.listening else "connecting")
            await asyncio.sleep(0 if not self.peer.listening else 0.02)


class Hammering(Unaware):
    """Wants to be asked again at once."""

    async def send(self, delivery):
        if not self.peer.listening:
            raise RetryLater("away", after=0.001)
        return await super().send(delivery)


class ByteWise(Wire):
    """Takes a formatted edit for a new message."""

    def tell(self, room, content):
        super().tell(room, content.message if isinstance(content, Edit) else content)


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
    Swallowing: "test_nothing_is_lost_while_the_peer_is_away",
    Remembering: "test_nothing_is_lost_while_the_peer_is_away",
    Hermit: "test_nothing_is_lost_while_the_peer_is_away",
    Queueing: "test_what_was_sent_is_not_lost",
    Hasty: "test_the_peer_is_acknowledged_after_submit",
    Dropping: "test_a_busy_room_is_tried_again_later",
    Impatient: "test_a_busy_room_is_tried_again_later",
    Spokesman: "test_senders_are_kept_apart",
    Fickle: "test_senders_are_kept_apart",
    OneRoom: "test_rooms_are_kept_apart",
    OneChannel: "test_rooms_are_kept_apart",
    Cutting: "test_a_long_text_is_whole",
    Sleeping: "test_the_loop_is_not_blocked",
    Threaded: "test_it_leaves_no_thread",
    Undying: "test_its_tasks_end_when_they_are_cancelled",
    Restless: "test_it_does_not_retry_busily",
    Hammering: "test_it_does_not_retry_busily",
    ByteWise: "test_what_is_declared_full_survives_both_ways",
    **BROKEN_RELATIONS,
    **BROKEN_SIGNALS,
}
#: Networks whose fault can show in a second check too.
ALSO = {
    OnlyOnce: {"test_what_was_sent_is_not_lost"},
    Hermit: {"test_what_was_sent_is_not_lost"},
    Undying: {"test_what_was_sent_is_not_lost"},
    Spokesman: {"test_what_is_declared_full_survives_both_ways"},
}

#: Parts of the sentence with which the suite says what is wrong and what to do.
SENTENCES = {
    Swallowing: "an exception of the connection was swallowed. Let it pass, or raise RetryLater",
    Remembering: "remember a key when the peer has the message",
    Hermit: r"the network is connecting \(the peer is gone\): it never connects again",
    Queueing: "Return from send when the peer has the message, and not when it is in a queue",
    Hasty: "Acknowledge after submit",
    Dropping: "message 0 was lost when submit raised Busy",
    Impatient: "wait for ``after`` of the exception",
    Spokesman: "ann and bob have the same sender, bot",
    Fickle: "a native id does not change from message to message",
    OneRoom: "arrived in the wrong room, room: see Submission.room",
    OneChannel: "was shown in",
    Cutting: "messages are declared PARTIAL, which may lose formatting and never words",
    Sleeping: r"the event loop stood for 0.2 s at .*test_network_suite.py:\d+ \(Sleeping.tell\)",
    Threaded: "stop left threads running: reader",
    Undying: "swallows the cancellation of tested: connection .* Let CancelledError pass",
    Restless: "most of them for the task 'tested: connection': wait between two attempts",
    Hammering: r"send was tried \d+ times in 0.2 s without a peer: leave RetryLater.after at 0",
    **RELATION_SENTENCES,
    **SIGNAL_SENTENCES,
}


@pytest.mark.parametrize("network", BROKEN, ids=lambda network: network.__name__)
async def test_a_broken_network_fails_exactly_its_check(network):
    try:
        assert await failing(suite_of(network)) - ALSO.get(network, set()) == {BROKEN[network]}
    finally:
        for end in Threaded.ends:
            end.set()


@pytest.mark.parametrize("network", SENTENCES, ids=lambda network: network.__name__)
async def test_a_finding_says_what_is_wrong_and_what_to_do(network):
    with pytest.raises(AssertionError, match=SENTENCES[network]):
        await getattr(suite_of(network)(), BROKEN[network])()
    for end in Threaded.ends:
        end.set()


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
    person = NativeId("a", "b")
    kinds = {c.kind for c in [*sample_contents(person), *targeted_contents("1", "2", "3")]}
    assert kinds == set(Kind)
    assert {c.kind for c in targeted_contents("1", "2", "3")} == TARGETED
