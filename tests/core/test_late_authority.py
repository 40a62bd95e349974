"""A room that another service decides by reflecting: what it does not reflect is not said in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hansa import (
    Action,
    Busy,
    Delivery,
    DeliveryRejected,
    Direction,
    EventIn,
    Features,
    HansaError,
    Kind,
    Level,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkStatus,
    OpenedRoom,
    Reaction,
    Reason,
    RefusalCode,
    Retraction,
    RetryLater,
    Role,
    RoomMember,
    Standing,
    Submission,
    SubmitResult,
    Topic,
    Verdict,
    ViewDelta,
    texts_of,
)
from hansa.app import App
from hansa.bus import late_authority
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ZOE = "zoe@elsewhere"


class Elsewhere(Actor):
    """Its rooms are at another service, which answers to a proposal as a test says."""

    def __init__(self, ctx: Any, *, hosted: bool = False) -> None:
        super().__init__(ctx, hosted=hosted)
        self.proposed: list[Delivery] = []
        self.answer: Callable[[Delivery], Any] = lambda delivery: f"there-{len(self.proposed)}"
        self.known = Features(levels=dict.fromkeys(Kind, Level.FULL), max_text=1000)

    @property
    def features(self) -> Features:
        return self.known

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        del create
        return OpenedRoom(native=NativeId(self.ctx.id, address), authority=True)

    async def send(self, delivery: Delivery) -> str:
        raise AssertionError(f"{delivery} is not for the room's authority")

    async def propose(self, delivery: Delivery) -> str:
        self.proposed.append(delivery)
        answer = self.answer(delivery)
        if asyncio.iscoroutine(answer) or asyncio.isfuture(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def reflect(self, key: str, native: str) -> SubmitResult:
        """A reflection that no call waits for."""
        inbound = Submission(
            origin=NativeId("late", native),
            room=NativeId("late", "a"),
            sender=NativeId("late", "bridge@there"),
            content=Message(text="as the service shows it"),
            ts=0,
            reflects=key,
        )
        return (await self.ctx.submit([inbound]))[0]


@asynccontextmanager
async def running(disk: MemoryDisk | None = None) -> AsyncIterator[tuple[App, Elsewhere, Actor]]:
    made: dict[str, Any] = {}
    networks = {"late": (module(made, Elsewhere), Config()), "right": (module(made), Config())}
    store = MemoryStore(disk) if disk is not None else None
    async with run_hansa(networks, rooms=[("late:a", "right:b")], store=store) as app:
        await until(lambda: len(app.rooms.links("late")) == len(app.rooms.links("right")) == 1)
        yield app, made["late"], made["right"]


async def logged(app: App) -> list[tuple[str, str]]:
    """``(sender, text)`` of the messages in the log."""
    room = app.rooms.room_of(NativeId("right", "b"))
    found = [await app.names.read(str(row.fields["id"])) for row in await app.core.scan("event")]
    in_room = sorted((one for one in found if one and one.room == room.id), key=lambda one: one.seq)
    return [(one.sender.id, one.content.text) for one in in_room if isinstance(one.content, Message)]


async def test_what_is_reflected_enters_the_log_under_both_names():
    async with running() as (app, late, right):
        outcome = await right.say("b", ZOE, "hello")
        assert outcome.event is not None and outcome.event.content == Message(text="hello")
        assert await logged(app) == [(ZOE, "hello")]
        named = await app.names.find(NativeId("late", "there-1"))
        assert named is not None and named.id == outcome.event.id
        assert [one.content for one in late.proposed] == [Message(text="hello")]
        assert [row.body for row in await app.core.scan("draft")] == [b""], "the words are in the log alone"
        assert (await late.reflect(late.proposed[0].key, "there-1")).duplicate, "it may be seen again"
        # Its echo, which comes as any message does, is known.
        assert (await late.say("a", "bridge@there", "hello", origin="there-1")).duplicate


async def test_what_is_refused_is_not_said_and_the_reason_is_the_rooms():
    async with running() as (app, late, right):
        late.answer = lambda _: DeliveryRejected("the channel is moderated")
        outcome = await right.say("b", ZOE, "hello")
        assert outcome.event is None and outcome.refusal is not None
        assert (outcome.refusal.code, outcome.refusal.text) == (
            RefusalCode.FORBIDDEN,
            "the channel is moderated",
        )
        assert await logged(app) == []
        assert await app.core.scan("draft") == []


async def test_the_log_has_the_order_of_the_reflections_and_calls_begin_in_order():
    async with running() as (app, late, right):
        answers: dict[str, asyncio.Future[str]] = {}

        def answer(delivery: Delivery) -> asyncio.Future[str]:
            assert isinstance(delivery.content, Message)
            answers[delivery.content.text] = asyncio.get_running_loop().create_future()
            return answers[delivery.content.text]

        late.answer = answer
        said = [asyncio.ensure_future(right.say("b", f"zoe{n}@x", f"{n}")) for n in range(3)]
        await until(lambda: len(answers) == 3)
        assert list(answers) == ["0", "1", "2"]
        # The room itself goes on meanwhile.
        assert (await late.say("a", "ann@there", "between")).event is not None
        for text in ("2", "0", "1"):
            answers[text].set_result(f"there {text}")
            await said[int(text)]
        assert [text for _, text in await logged(app)] == ["between", "2", "0", "1"]


async def test_silence_is_unreachable_and_a_late_reflection_is_the_event(monkeypatch):
    monkeypatch.setattr(late_authority, "PROPOSE_TIMEOUT_S", 0.05)
    async with running() as (app, late, right):
        late.answer = lambda _: asyncio.Event().wait()
        outcome = await right.say("b", ZOE, "hello")
        assert outcome.refusal is not None and outcome.refusal.code is RefusalCode.UNREACHABLE
        assert await logged(app) == []
        found = await late.reflect(late.proposed[0].key, "there-late")
        assert found.event is not None and found.event.sender == NativeId("right", ZOE)
        assert (await late.reflect(late.proposed[0].key, "there-late")).duplicate
        assert await logged(app) == [(ZOE, "hello")]
        assert [row.body for row in await app.core.scan("draft")] == [b""]


async def test_a_reflection_after_a_restart_is_the_event_and_a_repeat_has_the_same_key():
    disk = MemoryDisk()
    async with running(disk) as (_, late, right):
        late.answer = lambda _: asyncio.Event().wait()
        saying = [
            asyncio.ensure_future(right.say("b", f"{t}@elsewhere", t, origin=f"zoe-{t}"))
            for t in ("one", "two")
        ]
        await until(lambda: len(late.proposed) == 2)
        keys = [delivery.key for delivery in late.proposed]
    outcomes = await asyncio.gather(*saying, return_exceptions=True)
    assert all(isinstance(one, BaseException) for one in outcomes)
    async with running(disk) as (app, late, right):
        found = await late.reflect(keys[0], "there-0")
        assert found.event is not None and found.event.sender.id == "one@elsewhere"
        again = await right.say("b", "two@elsewhere", "two", origin="zoe-two")
        assert again.event is not None and [one.key for one in late.proposed] == keys[1:]
        assert (await right.say("b", "one@elsewhere", "one", origin="zoe-one")).duplicate
        assert await logged(app) == [("one@elsewhere", "one"), ("two@elsewhere", "two")]


async def test_a_reflection_of_nothing_known_is_a_message_like_any_other():
    async with running() as (app, late, _):
        assert (await late.reflect("draft-of-nobody", "there-1")).event is not None
        assert await logged(app) == [("bridge@there", "as the service shows it")]


async def test_a_sender_has_a_share_of_the_drafts_and_others_are_not_kept_waiting():
    async with running() as (app, late, right):
        held = asyncio.Event()

        async def answer(delivery: Delivery) -> str:
            if delivery.event.sender.id == ZOE:
                await held.wait()
            return f"there {delivery.key}"

        late.answer = answer
        many = [
            asyncio.ensure_future(right.say("b", ZOE, f"{n}")) for n in range(late_authority.MAX_OF_SENDER)
        ]
        await until(lambda: len(late.proposed) == 1)
        with pytest.raises(Busy):
            await right.say("b", ZOE, "one too many")
        assert (await right.say("b", "max@elsewhere", "not kept waiting")).event is not None
        held.set()
        assert all(outcome.event is not None for outcome in await asyncio.gather(*many))
        assert (await right.say("b", ZOE, "one more")).event is not None
        said = [text for sender, text in await logged(app) if sender == ZOE]
        assert said == [*map(str, range(late_authority.MAX_OF_SENDER)), "one more"]


async def test_what_was_certainly_not_sent_is_tried_again_by_who_said_it():
    async with running() as (_, late, right):
        late.answer = lambda _: RetryLater("there is no connection", after=3.0)
        with pytest.raises(Busy) as caught:
            await right.say("b", ZOE, "hello")
        assert caught.value.after == 3.0


async def test_a_fault_of_the_network_is_an_answer(caplog):
    async with running() as (_, late, right):
        late.answer = lambda _: ValueError("broken")
        outcome = await right.say("b", ZOE, "hello")
        assert outcome.refusal is not None and outcome.refusal.code is RefusalCode.UNREACHABLE
    assert "could not be proposed" in caplog.text


async def test_a_person_may_leave_whatever_the_room_answers():
    async with running() as (app, late, right):
        await right.join("b", ZOE)
        late.answer = lambda _: DeliveryRejected("nobody leaves")
        user = NativeId("right", ZOE)
        outcome = await right.do("b", ZOE, Member(user=user, membership=Membership.LEAVE))
        assert outcome.event is not None
        assert app.rooms.room_of(NativeId("right", "b")).view.membership(user) is Membership.LEAVE


async def test_a_kind_without_a_form_there_is_not_proposed_and_one_that_is_rejected_is_refused():
    async with running() as (_, late, right):
        late.known = Features(levels={Kind.MESSAGE: Level.FULL, Kind.TOPIC: Level.REJECTED})
        said = await right.say("b", ZOE, "hello")
        assert said.event is not None
        late.proposed.clear()
        assert (await right.do("b", ZOE, Reaction(target=said.event.id, key="x"))).event is not None
        assert late.proposed == []
        topic = await right.do("b", ZOE, Topic(text="of the day"))
        assert topic.refusal is not None and topic.refusal.code is RefusalCode.UNSUPPORTED


async def test_a_long_text_is_proposed_in_parts_and_each_is_known():
    async with running() as (app, late, right):
        outcome = await right.say("b", ZOE, "word " * 500)
        assert outcome.event is not None and len(late.proposed) > 1
        for number in range(1, len(late.proposed) + 1):
            named = await app.names.find(NativeId("late", f"there-{number}"))
            assert named is not None and named.id == outcome.event.id


@pytest.mark.parametrize("answer", [DeliveryRejected("too much"), RetryLater("not now")])
async def test_who_sent_a_text_whose_rest_is_refused_is_told(answer):
    async with running() as (app, late, right):
        late.answer = lambda _: answer if len(late.proposed) == 2 else f"there-{len(late.proposed)}"
        outcome = await right.say("b", ZOE, "word " * 500)
        assert outcome.event is not None, "the room shows its beginning"
        assert await logged(app) == [(ZOE, "word " * 500)]
        await until(lambda: right.told)
        text = "late shows only the beginning of your message: it did not take the rest."
        assert right.told == [(ZOE, text)]
        await right.say("b", ZOE, "short")
        assert len(right.told) == 1


class Censor:
    async def check(self, crossing: Any) -> Verdict | None:
        if isinstance(crossing, EventIn) and any("classified" in text for text in texts_of(crossing)):
            return Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="r", text="no"),))
        return None


async def test_what_a_policy_denies_is_never_proposed():
    async with running() as (app, late, right):
        app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
        outcome = await right.say("b", ZOE, "classified")
        assert outcome.event is None and outcome.verdict.action is Action.DENY
        assert late.proposed == []


async def test_what_is_denied_after_it_was_reflected_is_withheld():
    async with running() as (app, late, right):

        async def answer(_: Delivery) -> str:
            app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
            return "there-1"

        late.answer = answer
        outcome = await right.say("b", ZOE, "classified")
        assert outcome.event is None and outcome.verdict.action is Action.WITHHOLD
        assert await logged(app) == []


async def test_drafts_are_forgotten_after_a_day(monkeypatch):
    monkeypatch.setattr(late_authority, "PROPOSE_TIMEOUT_S", 0.05)
    async with running() as (app, late, right):
        late.answer = lambda _: asyncio.Event().wait()
        await right.say("b", ZOE, "hello")
        late.answer = lambda _: f"there-{len(late.proposed)}"
        for number in range(5):
            await right.say("b", ZOE, f"{number}")
        old = {row.key for row in await app.core.scan("draft")}
        monkeypatch.setattr(late_authority, "_KEPT_MS", -1)
        monkeypatch.setattr(late_authority, "_SWEEP_EVERY_S", 0.0)
        monkeypatch.setattr(late_authority, "_SWEPT", 2)
        await right.say("b", ZOE, "hello again")
        assert len(old) == 6 and not old & {one.key for one in await app.core.scan("draft")}


async def test_the_rules_of_the_view_judge_before_anything_is_proposed():
    async with running() as (app, late, right):
        for user in (ZOE, "ann@elsewhere"):
            await right.join("b", user)
        late.proposed.clear()
        zoe, ann = NativeId("right", ZOE), NativeId("right", "ann@elsewhere")
        for outcome in (
            await right.do("b", ZOE, Standing(user=zoe, role=Role.OWNER)),
            await right.ban("b", "stranger@elsewhere", ann),
            await right.say("b", "stranger@elsewhere", "not in the room"),
        ):
            assert outcome.event is None and outcome.refusal is not None
        assert late.proposed == []
        banned = RoomMember(user=zoe, membership=Membership.BAN)
        await app.pipeline.correct(app.rooms.room_of(NativeId("right", "b")).id, ViewDelta(upserts=(banned,)))
        assert (await right.say("b", ZOE, "banned")).refusal is not None
        assert late.proposed == []


async def test_nothing_is_proposed_over_a_link_that_only_listens():
    async with running() as (app, late, right):
        (link,) = app.rooms.links("late")
        listening = replace(link, direction=Direction.IN)
        app.rooms.room_of(link.native).links[link.id] = listening
        assert (await right.say("b", ZOE, "among us")).event is not None
        assert late.proposed == []


async def test_what_is_reflected_is_in_the_log_also_if_its_sender_waits_no_more():
    async with running() as (app, late, right):
        reflected = asyncio.Event()

        async def answer(_: Delivery) -> str:
            await reflected.wait()
            return "there-1"

        late.answer = answer
        saying = asyncio.ensure_future(right.say("b", ZOE, "hello"))
        await until(lambda: len(late.proposed) == 1)
        saying.cancel()
        await asyncio.wait({saying})
        reflected.set()

        async def there() -> bool:
            return await logged(app) == [(ZOE, "hello")]

        await until(there)


async def test_what_waited_too_long_to_be_sent_is_not_sent_any_more(monkeypatch):
    monkeypatch.setattr(late_authority, "PROPOSE_TIMEOUT_S", 0.1)
    async with running() as (_, late, right):
        late.answer = lambda _: asyncio.Event().wait()
        first = asyncio.ensure_future(right.say("b", ZOE, "first"))
        second = asyncio.ensure_future(right.say("b", ZOE, "second"))
        assert (await first).refusal is not None
        with pytest.raises(Busy):
            await second
        assert [one.content for one in late.proposed] == [Message(text="first")]


async def test_a_reflection_that_comes_while_the_call_waits_is_the_answer():
    async with running() as (app, late, right):
        late.answer = lambda _: asyncio.Event().wait()
        saying = asyncio.ensure_future(right.say("b", ZOE, "hello"))
        await until(lambda: len(late.proposed) == 1)
        assert (await late.reflect(late.proposed[0].key, "there-9")).duplicate
        outcome = await saying
        named = await app.names.find(NativeId("late", "there-9"))
        assert outcome.event is not None and named is not None and named.id == outcome.event.id


async def test_the_parts_of_a_text_that_are_reflected_late_are_one_event(monkeypatch):
    monkeypatch.setattr(late_authority, "PROPOSE_TIMEOUT_S", 0.05)
    async with running() as (app, late, right):
        late.answer = lambda _: asyncio.Event().wait()
        await right.say("b", ZOE, "word " * 300)
        (first,) = late.proposed
        assert (await late.reflect(first.key, "there-1")).event is not None
        assert (await late.reflect(f"{first.key}.1", "there-2")).duplicate
        assert [sender for sender, _ in await logged(app)] == [ZOE]


async def test_a_retraction_holds_whatever_the_room_answers():
    async with running() as (_, late, right):
        await right.join("b", ZOE)
        said = await right.say("b", ZOE, "a slip")
        assert said.event is not None
        late.answer = lambda _: DeliveryRejected("nothing is taken back")
        assert (await right.do("b", ZOE, Retraction(target=said.event.id))).event is not None


async def test_an_echo_that_comes_before_the_answer_holds_up_nobody():
    async with running() as (_, late, right):

        async def answer(_: Delivery) -> str:
            await late.say("a", "bridge@there", "hello", origin="there-1")
            return "there-1"

        late.answer = answer
        assert (await right.say("b", ZOE, "hello")).event is not None
        late.answer = lambda _: "\ud800" * 3
        assert (await right.say("b", ZOE, "again")).event is not None


async def test_a_network_that_fails_before_the_call_fails_one_draft_alone(caplog):
    async with running() as (_, late, right):
        known, late.known = late.known, None
        with pytest.raises(HansaError):
            await right.say("b", ZOE, "hello")
        late.known = known
        assert (await right.say("b", ZOE, "hello again")).event is not None
    assert "could not be proposed" in caplog.text


async def test_a_network_that_is_not_up_is_not_asked():
    async with running() as (_, late, right):
        late.ctx.report_status(NetworkStatus.CONNECTING, "to the service")
        with pytest.raises(Busy):
            await right.say("b", ZOE, "hello")
        assert late.proposed == []


async def test_the_end_of_hansa_leaves_nobody_waiting():
    async with running() as (_, late, right):
        late.answer = lambda _: asyncio.Event().wait()
        saying = [asyncio.ensure_future(right.say("b", f"{n}@x", "hello")) for n in range(55)]
        await until(lambda: len(late.proposed) == 20)
    _, left = await asyncio.wait(saying, timeout=10)
    assert not left
