"""Every function of the core by which something comes in or goes out asks the policies, or says why not."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest
from hansa import (
    AccountLogin,
    Action,
    AnswersCommands,
    Attachment,
    CannotOpenRoom,
    CarriesEphemeral,
    CarriesPresence,
    Confirms,
    DeliveryRejected,
    DirectoryQuery,
    EarlierEvent,
    EarlierPage,
    EphemeralIn,
    EphemeralOut,
    EventIn,
    EventOut,
    FetchesHistory,
    FoundsRooms,
    Invite,
    KeepsMedia,
    KnowsPeople,
    LinksRooms,
    Login,
    LogsIn,
    LooksUp,
    LooksUpRooms,
    MediaService,
    MediaTransfer,
    MediaUnavailable,
    MediaUpload,
    Member,
    Membership,
    Message,
    NamesRooms,
    NativeId,
    Network,
    NetworkContext,
    OpensDirectChats,
    PeerConnect,
    PersonMatch,
    PluginContext,
    PresenceState,
    ProfileQuery,
    ProvesPeople,
    Reason,
    RoomMatch,
    ShowsPresent,
    Verdict,
    ViewDelta,
)
from hansa.app import App
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.model.chat_commands import CommandSettings
from hansa.model.crossing import Crossing
from hansa.model.view import RoomMember, unread
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module
from hansa.testing.policy_samples import samples

ASKS, FREE = "asks", "free: "
#: What a network calls, and what is called of it. One more needs a line, and a check below if it asks.
POINTS = {
    "NetworkContext.submit": ASKS,
    "NetworkContext.read_history": ASKS,
    "NetworkContext.read_history_for": ASKS,
    "NetworkContext.read_earlier_for": ASKS,
    "FetchesHistory.fetch_before": FREE + "the core asks about each event before it shows it",
    "NetworkContext.was_joined": FREE + "a membership is looked up",
    "NetworkContext.send_ephemeral": ASKS,
    "NetworkContext.send_presence": ASKS,
    "NetworkContext.native_ids": FREE + "ids are looked up",
    "NetworkContext.event_with_id": FREE
    + "by an id that the network has, of an event that may pass the link",
    "NetworkContext.event_by_chosen_id": FREE + "by an id of the network's own people",
    "NetworkContext.related": FREE + "to answer or take back, never to show",
    "NetworkContext.open_address": ASKS,
    "NetworkContext.find_people": ASKS,
    "NetworkContext.answer_command": ASKS,
    "AnswersCommands.answer_command": FREE + "it answers a person whose message the policies let in",
    "NetworkContext.list_logins": ASKS,
    "NetworkContext.end_login": FREE + "a login ends, and its person is told",
    "NetworkContext.end_logins_of": FREE + "logins end",
    "LogsIn.login_server": FREE + "a name",
    "LogsIn.begin_login": FREE + "PeerConnect and Login were asked before",
    "LogsIn.use_login": FREE + "Login was asked before, with the account",
    "LogsIn.drop_login": FREE + "nothing comes or goes any more",
    "ProvesPeople.is_proven_person": FREE + "whether a person may log in",
    "ProvesPeople.has_private_chat": FREE + "whether a secret may be asked for",
    "NetworkContext.find_rooms": ASKS,
    "LooksUpRooms.find_rooms": FREE + "the core asks about each of them before it tells",
    "LooksUp.find_people": FREE + "the core asks about each of them before it tells",
    "NetworkContext.require_direct_chat": ASKS,
    "NetworkContext.connect_direct_chat": ASKS,
    "NetworkContext.open_direct_chat": ASKS,
    "OpensDirectChats.require_direct_chat": FREE + "Invite was asked before",
    "OpensDirectChats.open_direct_chat": FREE
    + "Invite was asked before; a room that is made asks RoomCreate",
    "NetworkContext.check": FREE + "it is the question",
    "NetworkContext.has_policies": FREE + "whether there is anybody to ask",
    "NetworkContext.policy_generation": FREE + "a number",
    "NetworkContext.get_link": FREE + "a room of the network's own",
    "NetworkContext.list_links": FREE + "rooms of the network's own",
    "NetworkContext.open_link": FREE + "a room of the network's own, which it joined or made by a crossing",
    "NetworkContext.supersede_room": FREE + "the network asks about RoomUpgrade before",
    "NetworkContext.close_link": FREE + "nothing comes or goes any more",
    "NetworkContext.get_judged_view": FREE + "what stands in the view, after it was asked about again",
    "NetworkContext.get_view": FREE + "what withheld events left out of it is not in it",
    "NetworkContext.reconcile_view": FREE + "a state whose events were judged one by one",
    "NetworkContext.set_suspected_servers": FREE + "servers that are reckoned with at the next question",
    "NetworkContext.delivered_seq": FREE + "a number",
    "NetworkContext.confirm_sent": FREE + "a number",
    "Confirms.request_confirmation": FREE + "about what was sent",
    "NetworkContext.get_ghost_id": FREE + "an id is made; its person is judged at every act",
    "NetworkContext.home_of": FREE + "an id is looked up",
    "NetworkContext.check_password": FREE + "a person proves who they are, to us alone",
    "NetworkContext.is_nonexistent_user": FREE
    + "whether there is somebody to invite; the invite is judged by itself",
    "KnowsPeople.is_nonexistent_user": FREE + "the network asks about ProfileQuery before it asks others",
    "NetworkContext.native_id": FREE + "an id is looked up",
    "NetworkContext.event_by": FREE + "by an id that the network has: to answer or take back, never to show",
    "NetworkContext.report_status": FREE + "for the operator",
    "MediaService.store": ASKS,
    "MediaService.open": ASKS,
    "MediaService.fetch": ASKS,
    "MediaService.link": FREE + "an address; the file is asked about when somebody opens it",
    "MediaService.name_source": FREE + "a name; the file is asked about when it is opened",
    "MediaService.find_source": FREE + "the file that a name stands for is looked up",
    "KeepsMedia.open_media": FREE + "the core asks before it opens a file for others",
    "Network.send": ASKS,
    "CarriesEphemeral.show_ephemeral": ASKS,
    "CarriesPresence.show_presence": ASKS,
    "Network.start": FREE + "the network asks about PeerConnect before it calls anybody",
    "Network.stop": FREE + "nothing comes or goes any more",
    "ShowsPresent.show_present": FREE + "what stands in the view, after it was asked about again",
    "FoundsRooms.found_room": FREE + "asked as AdminChange, or written in the configuration",
    "NamesRooms.room_at": FREE
    + "for the operator; the network asks about DirectoryQuery before it asks others",
    "NamesRooms.addresses_of": FREE + "for the operator",
    "LinksRooms.open_room": FREE + "asked by open_address, as AdminChange, or written in the configuration",
}
_OWN = set(dir(PluginContext))


class Strict:
    """Denies everything that is not a membership, once it is told to."""

    def __init__(self) -> None:
        self.denies = False
        self.asked: list[Any] = []

    async def check(self, crossing: Any) -> Verdict | None:
        self.asked.append(crossing)
        verdict = Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="r", text="no"),))
        return verdict if self.denies else None


def test_every_point_is_in_the_table():
    found = {
        f"{kind.__name__}.{name}"
        for kind in (
            NetworkContext,
            Network,
            CarriesEphemeral,
            CarriesPresence,
            ShowsPresent,
            Confirms,
            LinksRooms,
            FoundsRooms,
            NamesRooms,
            KnowsPeople,
            KeepsMedia,
            MediaService,
            OpensDirectChats,
            LooksUp,
            AnswersCommands,
            LooksUpRooms,
            FetchesHistory,
            LogsIn,
            ProvesPeople,
        )
        for name, _ in inspect.getmembers(kind)
        if not name.startswith("_") and (kind is not NetworkContext or name not in _OWN)
    }
    assert found == set(POINTS)
    assert all(said == ASKS or (said.startswith(FREE) and len(said) > len(FREE)) for said in POINTS.values())


async def _submit(_: App, made: dict[str, Actor]) -> bool:
    return (await made["left"].say("a", "ann@x", "no")).refusal is None


async def _history(_: App, made: dict[str, Actor]) -> bool:
    return bool(await made["right"].ctx.read_history("b", limit=5))


async def _history_for(_: App, made: dict[str, Actor]) -> bool:
    user = NativeId("right", "bob@y")
    row = RoomMember(user=user, membership=Membership.JOIN)
    await made["right"].ctx.reconcile_view("b", ViewDelta(upserts=(row,)))
    return bool((await made["right"].ctx.read_history_for("b", user, limit=5)).events)


async def _earlier_for(_: App, made: dict[str, Actor]) -> bool:
    event = EarlierEvent(
        native="e",
        sender=NativeId("left", "ann@x"),
        content=Message(text="no"),
        ts=0,
        visibility="world_readable",
    )

    async def fetch_before(*_: Any, **__: Any) -> EarlierPage:
        return EarlierPage(events=[event])

    made["left"].fetch_before = fetch_before  # type: ignore[attr-defined]
    found = await made["right"].ctx.read_earlier_for("b", NativeId("right", "bob@y"), limit=5)
    return bool(found and found.events)


async def _signal(_: App, made: dict[str, Actor]) -> bool:
    await made["left"].typing("a", "ann@x")
    return bool(made["right"].signals)


async def _presence(_: App, made: dict[str, Actor]) -> bool:
    """Ann is in the room. What a policy lets in is shown a little later."""
    if not await made["left"].set_presence("ann@x", PresenceState.AWAY, "no", room="a"):
        return False
    await until(lambda: made["right"].presences)
    return True


async def _open_address(_: App, made: dict[str, Actor]) -> bool:
    try:
        await made["right"].ctx.open_address("left", "z@far.example", "c")
    except CannotOpenRoom as error:
        return not error.refusal.decision
    return True


async def _direct_chat(made: dict[str, Actor], act: str, *args: Any) -> bool:
    """Networks in this test have no direct chats, which is not a denial."""
    try:
        await getattr(made["left"].ctx, act)(*args)
    except CannotOpenRoom as error:
        return not error.refusal.decision
    return True


async def _find_people(_: App, made: dict[str, Actor]) -> bool:
    async def find_people(text: str, *, limit: int) -> list[PersonMatch]:
        return [PersonMatch(user=NativeId("right", text))][:limit]

    made["right"].find_people = find_people  # type: ignore[attr-defined]
    return bool(await made["left"].ctx.find_people("bob@y", limit=3))


async def _list_logins(app: App, made: dict[str, Actor]) -> bool:
    async def nothing(*_: Any) -> None: ...

    for name in ("begin_login", "use_login", "drop_login"):
        setattr(made["left"], name, nothing)
    made["left"].login_server = "left.example"  # type: ignore[attr-defined]
    await app.logins.rows.insert("left", AccountLogin(person=NativeId("right", "bob@y"), account="bob"))
    return bool(await made["left"].ctx.list_logins())


async def _find_rooms(_: App, made: dict[str, Actor]) -> bool:
    async def find_rooms(text: str, *, limit: int) -> list[RoomMatch]:
        return [RoomMatch(network="right", address=text)][:limit]

    made["right"].find_rooms = find_rooms  # type: ignore[attr-defined]
    return bool(await made["left"].ctx.find_rooms("lobby", limit=3))


async def _answer_command(_: App, made: dict[str, Actor]) -> bool:
    return await made["left"].ctx.answer_command("ann@x", "help") is not None


async def _require_direct_chat(_: App, made: dict[str, Actor]) -> bool:
    return await _direct_chat(made, "require_direct_chat", "c", NativeId("right", "bob@y"), "ann@x")


async def _connect_direct_chat(_: App, made: dict[str, Actor]) -> bool:
    return await _direct_chat(made, "connect_direct_chat", "a", NativeId("right", "bob@y"), "ann@x")


async def _open_direct_chat(_: App, made: dict[str, Actor]) -> bool:
    return await _direct_chat(made, "open_direct_chat", "c", "ann@x", NativeId("right", "bob@y"))


async def _send(app: App, made: dict[str, Actor]) -> bool:
    return (await app.retry_dead_letters("right:b", None))["sent"] > 0


async def _media(work: Awaitable[object]) -> bool:
    """Nothing is reachable in this test, which is not a denial."""
    try:
        await work
    except MediaUnavailable as error:
        return not error.refusal.decision
    return True


async def _store_media(_: App, made: dict[str, Actor]) -> bool:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"words"

    return await _media(made["left"].ctx.media.store(chunks(), name="a.txt", sender="ann@x"))


async def _open_media(_: App, made: dict[str, Actor]) -> bool:
    attachment = Attachment(name="a", source=NativeId("left", "https://files.example/a"))
    return await _media(made["right"].ctx.media.open(attachment))


async def _fetch_media(_: App, made: dict[str, Actor]) -> bool:
    return await _media(made["left"].ctx.media.fetch("https://files.example/a", sender="ann@x"))


CHECKS: dict[str, tuple[Callable[[App, dict[str, Actor]], Awaitable[bool]], set[type]]] = {
    "NetworkContext.submit": (_submit, {EventIn, EventOut}),
    "NetworkContext.read_history": (_history, {EventIn}),
    "NetworkContext.read_history_for": (_history_for, {EventIn}),
    "NetworkContext.read_earlier_for": (_earlier_for, {EventIn}),
    "NetworkContext.send_ephemeral": (_signal, {EphemeralIn}),
    "NetworkContext.send_presence": (_presence, {EphemeralIn}),
    "NetworkContext.open_address": (_open_address, {DirectoryQuery}),
    "NetworkContext.find_people": (_find_people, {ProfileQuery}),
    "NetworkContext.find_rooms": (_find_rooms, {DirectoryQuery}),
    "NetworkContext.list_logins": (_list_logins, {PeerConnect, Login}),
    "NetworkContext.answer_command": (_answer_command, {EventIn}),
    "NetworkContext.require_direct_chat": (_require_direct_chat, {Invite}),
    "NetworkContext.connect_direct_chat": (_connect_direct_chat, {Invite}),
    "NetworkContext.open_direct_chat": (_open_direct_chat, {Invite}),
    "MediaService.store": (_store_media, {MediaUpload}),
    "MediaService.open": (_open_media, {MediaTransfer}),
    "MediaService.fetch": (_fetch_media, {PeerConnect}),
    "Network.send": (_send, {EventIn}),
    "CarriesEphemeral.show_ephemeral": (_signal, {EphemeralIn}),
    "CarriesPresence.show_presence": (_presence, {EphemeralIn}),
}


def test_every_point_that_asks_has_a_check():
    assert set(CHECKS) == {point for point, said in POINTS.items() if said == ASKS}


@asynccontextmanager
async def with_dead_letter() -> AsyncIterator[tuple[App, dict[str, Actor]]]:
    """Two networks in one room, whose first event one of them refused."""
    made: dict[str, Actor] = {}
    plugin = module(made)
    networks = {name: (plugin, Config()) for name in ("left", "right")}
    commands = CommandSettings(enabled=True, logins=frozenset({"left"}))
    async with run_hansa(
        networks, rooms=[("left:a", "right:b")], commands=commands, login_key=bytes(32)
    ) as app:

        def refuse(_: object) -> None:
            raise DeliveryRejected("not now")

        made["right"].before_send = refuse
        await made["left"].say("a", "ann@x", "said before")
        ann = RoomMember(user=NativeId("left", "ann@x"), membership=Membership.JOIN, server="x")
        await made["left"].ctx.reconcile_view("a", ViewDelta(upserts=(ann,)))
        await until(lambda: app.consumers["right:b"].position >= 1)
        made["right"].before_send = lambda _: None
        yield app, made


@pytest.mark.parametrize("point", CHECKS)
@pytest.mark.parametrize("denies", [False, True])
async def test_a_point_asks_and_lets_nothing_through_that_is_denied(point: str, denies: bool) -> None:
    act, asked = CHECKS[point]
    async with with_dead_letter() as (app, made):
        strict = Strict()
        strict.denies = denies
        app.decisions.replace([InstalledPolicy(name="strict", policy=strict)])
        assert await act(app, made) is not denies
        kinds = {type(crossing) for crossing in strict.asked}
        assert asked & kinds, f"{point} asked about {kinds}"


async def _raises(_: Any) -> Verdict | None:
    raise RuntimeError("a fault")


async def _never(_: Any) -> Verdict | None:
    await asyncio.Event().wait()
    return None


async def _odd(_: Any) -> Any:
    return True


async def _gives_up(_: Any) -> Verdict | None:
    raise asyncio.CancelledError


#: What a policy can do but answer.
FAULTS = {"raises": _raises, "never answers": _never, "says something else": _odd, "gives up": _gives_up}


class Faulty:
    """Has no opinion until it breaks."""

    def __init__(self, fault: Callable[[Any], Awaitable[Any]]) -> None:
        self.fault = fault
        self.broken = False

    async def check(self, crossing: Any) -> Verdict | None:
        return await self.fault(crossing) if self.broken else None


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("point", CHECKS)
async def test_a_policy_that_fails_lets_nothing_through_at_any_point(point: str, fault: str) -> None:
    async with with_dead_letter() as (app, made):
        faulty = Faulty(FAULTS[fault])
        app.decisions.replace([InstalledPolicy(name="faulty", policy=faulty, timeout=0.01)])
        act, _ = CHECKS[point]
        faulty.broken = True
        assert not await act(app, made)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_policy_that_fails_denies_every_crossing(fault: str) -> None:
    async with run_hansa({}) as app:
        faulty = Faulty(FAULTS[fault])
        faulty.broken = True
        app.decisions.replace([InstalledPolicy(name="faulty", policy=faulty, timeout=0.01)])
        asked = {type(crossing): crossing for crossing in samples()}
        assert set(asked) == set(get_args(Crossing))
        for kind, crossing in asked.items():
            verdict = await app.decisions.judge_and_store(crossing)
            assert not verdict.allowed, kind
            assert [reason.code for reason in verdict.reasons] == ["GOV_ENGINE_ERROR"], kind
            assert not (await app.decisions.judge_unrecorded(crossing)).allowed, kind


async def test_what_goes_out_is_asked_link_by_link():
    made: dict[str, Actor] = {}
    plugin = module(made, hosted=True)
    async with run_hansa(
        {name: (plugin, Config()) for name in ("left", "right")}, rooms=[("left:a", "right:b")]
    ) as app:
        strict = Strict()
        app.decisions.replace([InstalledPolicy(name="strict", policy=strict)])
        await made["left"].say("a", "ann@x", "hello")
        out = {c.link.id for c in strict.asked if isinstance(c, EventOut)}
        assert out == {"left:a", "right:b"}
        await made["left"].typing("a", "ann@x")
        assert [c.link.id for c in strict.asked if isinstance(c, EphemeralOut)] == ["right:b"]


def test_a_withheld_member_is_there_without_a_name():
    ann, bob = NativeId("m", "ann"), NativeId("m", "bob")
    people = tuple(
        RoomMember(user=user, membership=Membership.JOIN, server="x", name="Classified")
        for user in (ann, bob)
    )
    member = Member(user=ann, membership=Membership.JOIN, name="Classified")
    shown = {p.user: p.name for p in unread(ViewDelta(upserts=people), member).upserts}
    assert shown == {ann: None, bob: "Classified"}
    assert unread(ViewDelta(upserts=people), Message(text="x")) == ViewDelta(upserts=people)
