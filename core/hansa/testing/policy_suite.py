"""The tests that every policy must pass. Subclass ``PolicySuite`` and name the plugin's module and its
options.

A policy gets a clock that stands still, and an HTTP client to which no server ever answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from types import ModuleType
from typing import Any, Never, get_args

import pytest
from pydantic import ValidationError

from hansa.api.contracts import Policy
from hansa.api.hookspecs import hookimpl
from hansa.bus.policy_dispatch import InstalledPolicy, PolicyAnswer, ask_policy
from hansa.environment import Environment, HttpRequest
from hansa.host.plugin_checks import check_module
from hansa.model.content import Custom, Encrypted, Member, Membership, Message, Name, Topic
from hansa.model.crossing import (
    AdminChange,
    Crossing,
    DirectoryPublish,
    DirectoryQuery,
    EphemeralIn,
    EphemeralOut,
    EventIn,
    EventOut,
    Invite,
    Join,
    KeysQuery,
    Knock,
    MediaTransfer,
    MediaUpload,
    PeerConnect,
    Presence,
    ProfileChange,
    ProfileQuery,
    RoomCreate,
    RoomUpgrade,
    ToDevice,
)
from hansa.model.events import Link, NativeFacts
from hansa.model.ref import NativeId
from hansa.model.verdict import Action, Verdict, strictest
from hansa.model.view import RoomInfo, RoomMember, RoomView, ViewDelta
from hansa.setup import PolicySetup
from hansa.testing.clock import ManualClock
from hansa.testing.harness import run_hansa
from hansa.testing.http import BufferedHttp


class _Silence(BufferedHttp):
    """An ``Http`` on which no answer ever comes."""

    async def request(self, request: HttpRequest) -> Never:
        """See ``Http.request``."""
        del request
        await asyncio.Event().wait()
        raise AssertionError

    async def srv(self, name: str) -> Never:
        """See ``Http.srv``."""
        del name
        await asyncio.Event().wait()
        raise AssertionError


class _Numbers:
    """Randomness that every instance sees alike."""

    def __init__(self) -> None:
        self._next = 0

    def bytes(self, count: int) -> bytes:
        """See ``Random.bytes``."""
        self._next += 1
        return self._next.to_bytes(8, "big").rjust(count, b"\0")[-count:]

    def uniform(self) -> float:
        """See ``Random.uniform``."""
        self._next = (self._next * 1103515245 + 12345) % 2**31
        return self._next / 2**31


class _CountsPeople:
    """A policy that denies by the view of the room: a change of the view changes its verdict."""

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        """See ``hansa.Policy.check``."""
        if isinstance(crossing, EventIn | EventOut) and len(crossing.view.people) == len(_sample_people()):
            return Verdict(Action.DENY)
        return None


def _sample_people() -> tuple[RoomMember, ...]:
    return (
        RoomMember(user=NativeId("one", "ann@x.example"), membership=Membership.JOIN, server="x.example"),
        RoomMember(user=NativeId("two", "bob@y.example"), membership=Membership.JOIN, server="y.example"),
        RoomMember(user=NativeId("two", "cat@z.example"), membership=Membership.BAN, server="z.example"),
    )


def samples() -> list[Crossing]:
    """Returns crossings of every kind, new ones at each call: usual ones and ones at the edge of their
    type.
    """
    view = RoomView("r1", RoomInfo(name="Room", topic="", encrypted=True))
    view.apply(ViewDelta(upserts=_sample_people()))
    empty = RoomView("r2")
    here, there = Link(room="r1", native=NativeId("one", "a")), Link(room="r1", native=NativeId("two", "b"))
    ann, bob, nobody = NativeId("one", "ann@x.example"), NativeId("two", "bob@y.example"), NativeId("two", "")
    contents = (
        Message(text="hello"),
        Message(text=""),
        Message(text="\0 \ufffe ﷺ " + "é" * 10_000),
        Member(user=ann, membership=Membership.JOIN, name="Ann"),
        Member(user=ann, membership=Membership.LEAVE),
        Member(user=bob, membership=Membership.BAN, reason="spam"),
        Member(user=nobody, membership=Membership.KNOCK),
        Member(user=bob, membership=Membership.INVITE),
        Name(text="A name"),
        Topic(text=""),
        Encrypted(),
        Custom(type="org.example.poll"),
    )
    facts = NativeFacts(
        type="m.room.message",
        state_key="",
        size=70_000,
        sender_server="x.example",
        room_servers=frozenset({"x.example", "y.example"}),
        texts=("hello", ""),
    )
    found: list[Crossing] = []
    for content in contents:
        found.append(EventIn(link=here, sender=ann, content=content, view=view, facts=facts))
        found.append(EventIn(link=here, sender=nobody, content=content, view=empty, immutable=True))
        found.append(EventOut(link=there, sender=ann, content=content, view=view, facts=facts))
        found.append(EventOut(link=there, sender=nobody, content=content, view=empty))
    servers = frozenset({"x.example", "[2001:db8::1]:8448", ""})
    for outbound in (False, True):
        for server in ("x.example", "127.0.0.1:8448", "[2001:db8::1]", "", "X" * 2000):
            found += [PeerConnect(network="one", server=server, outbound=outbound)]
            found += [ProfileQuery(network="one", server=server, user=ann, outbound=outbound)]
            found += [DirectoryQuery(network="one", server=server, address=server, outbound=outbound)]
            told = ("A room", "")
            found += [DirectoryQuery(network="one", server=server, address="", outbound=True, texts=told)]
            found += [KeysQuery(network="one", server=server, users=(ann, nobody), outbound=outbound)]
        for user, home in ((ann, "x.example"), (nobody, "")):
            found += _entering_crossings(user, home, servers, outbound=outbound)
        for size in (0, 10**12):
            media = MediaTransfer(
                network="one",
                server="x.example",
                media="mxc://x.example/a",
                outbound=outbound,
                type="image/png" if size else "",
                size=size,
                name="cat.png" if size else "",
            )
            found.append(media)
    for user, home in ((ann, "x.example"), (nobody, "")):
        found += _user_crossings(user, home, servers)
    found.append(AdminChange(command="rooms close", arguments=(("room", "r1"),)))
    found.append(AdminChange(command=""))
    for kind in ("typing", "receipt"):
        for sender, shown in ((ann, view), (nobody, empty)):
            server = "x.example" if shown is view else ""
            found.append(EphemeralIn(link=here, sender=sender, sender_server=server, kind=kind, view=shown))
            found.append(
                EphemeralIn(
                    link=here, sender=sender, sender_server=server, kind=kind, view=shown, texts=("$a b",)
                )
            )
            found.append(EphemeralOut(link=there, sender=sender, kind=kind, view=shown))
    return found


def _entering_crossings(
    user: NativeId, home: str, servers: frozenset[str], *, outbound: bool
) -> list[Crossing]:
    """Crossings with a direction: into a room, and from device to device."""
    texts = ("A name", "") if home else ()
    of_user: dict[str, Any] = {"network": "one", "user": user, "user_server": home, "texts": texts}
    of_room: dict[str, Any] = {"room": "a", "servers": servers, "outbound": outbound}
    invite = Invite(
        network="one",
        room="a",
        sender=NativeId("two", "bob@y.example"),
        sender_server=home,
        user=user,
        outbound=outbound,
        servers=servers,
        texts=texts,
    )
    device = ToDevice(
        network="one",
        sender=user,
        sender_server=home,
        users=(user,),
        servers=servers,
        type="m.room_key_request" if home else "",
        outbound=outbound,
        texts=texts,
    )
    presence = Presence(**of_user, servers=servers, outbound=outbound)
    return [Join(**of_user, **of_room), Knock(**of_user, **of_room), invite, device, presence]


def _user_crossings(user: NativeId, home: str, servers: frozenset[str]) -> list[Crossing]:
    """Returns the crossings that a local person causes."""
    by: dict[str, Any] = {"network": "one", "user": user, "user_server": home}
    return [
        RoomCreate(**by),
        RoomCreate(**by, version="12", invited=(user,), servers=servers, federated=False, texts=("n", "")),
        RoomUpgrade(**by, room="a", version="12", servers=servers),
        ProfileChange(**by, texts=("Ann", "")),
        DirectoryPublish(**by, room="a"),
        DirectoryPublish(**by, room="a", address="#a:x.example", texts=("A name",)),
        MediaUpload(**by),
        MediaUpload(**by, media="mxc://x.example/b", name="b.txt", type="text/plain", size=3),
    ]


@pytest.mark.asyncio
class PolicySuite:
    """The contract of ``hansa.Policy`` as tests."""

    #: The plugin's module, as the entry point names it.
    plugin: ModuleType
    #: Its table without ``plugin``: what ``plugin.Config`` is validated from.
    options: dict[str, Any] = {}  # noqa: RUF012  # read only; pydantic makes its own copy
    #: The wall clock of the tests, in ms since 1970.
    now = 1_700_000_000_000
    #: Seconds that a policy is given here before its ``on_error`` counts.
    timeout = 0.2

    def crossings(self) -> list[Crossing]:
        """Returns the crossings that are asked about. Add those that your policy is about; each call makes
        new ones.
        """
        return samples()

    @asynccontextmanager
    async def opened(self, *names: str) -> AsyncIterator[list[InstalledPolicy]]:
        """Fresh instances under these names."""
        setups = [
            PolicySetup(name=name, module=self.plugin, options=self._make_config(), timeout=self.timeout)
            for name in names
        ]
        seams = Environment(ManualClock(self.now), _Numbers())
        async with run_hansa({}, policies=setups, seams=seams, http=_Silence()) as app:
            yield list(app.decisions.policies)

    def _make_config(self) -> Any:
        return self.plugin.Config.model_validate(self.options)

    async def _ask_about_all(self) -> list[Verdict]:
        async with self.opened("mine") as installed:
            return [
                (await self._ask_installed(installed[0], crossing)).verdict for crossing in self.crossings()
            ]

    async def _ask_installed(self, installed: InstalledPolicy, crossing: Crossing) -> PolicyAnswer:
        """Returns the answer of a policy, even of one that cannot be stopped, which one test is about."""
        asking = asyncio.ensure_future(ask_policy(installed, crossing))
        await asyncio.wait({asking}, timeout=self.timeout * 3)
        if not asking.done():
            await _end_task(asking)
            return PolicyAnswer(name=installed.name, verdict=Verdict(installed.on_error), shadow=False)
        return asking.result()

    async def _merge_answers(self, asked: Sequence[InstalledPolicy], crossing: Crossing) -> Verdict:
        before = deepcopy(crossing)
        merged = strictest([(await self._ask_installed(installed, crossing)).verdict for installed in asked])
        assert crossing == before, "a policy changed what it was asked about"
        return merged

    async def test_the_plugin_is_one_that_loads(self) -> None:
        """It says ``api``, and its Config refuses a key that it does not know."""
        check_module("mine", self.plugin)
        with pytest.raises(ValidationError, match="extra_forbidden"):
            self.plugin.Config.model_validate({**self.options, "no_such_setting": 1})

    async def test_every_crossing_has_an_answer(self) -> None:
        """Of each member of the union; a Verdict or None, and nothing is raised."""
        crossings = self.crossings()
        missing = set(get_args(Crossing)) - {type(crossing) for crossing in crossings}
        assert not missing, f"crossings() lacks {missing}"
        async with self.opened("mine") as installed:
            for crossing in crossings:
                answer = await self._ask_installed(installed[0], crossing)
                if "no answer within" not in answer.failed:  # the way out is silent here
                    assert not answer.failed, f"{crossing}: {answer.failed}"

    async def test_the_same_facts_have_the_same_verdicts(self) -> None:
        """Two instances that are asked the same in the same order say the same."""
        assert await self._ask_about_all() == await self._ask_about_all()

    async def test_the_order_of_policies_changes_nothing(self) -> None:
        """Asked before or after others, the merged verdict is the same; nobody changes what is asked."""
        merged: list[list[Verdict]] = []
        for reverse in (False, True):
            async with self.opened("first", "second") as installed:
                witness: Policy = _CountsPeople()
                asked = [*installed, InstalledPolicy(name="witness", policy=witness)]
                if reverse:
                    asked.reverse()
                merged.append([await self._merge_answers(asked, crossing) for crossing in self.crossings()])
        assert merged[0] == merged[1]

    async def test_a_time_out_is_kept(self) -> None:
        """When nobody answers the policy, it ends within its time-out, and its ``on_error`` counts."""
        async with self.opened("mine") as installed:
            for crossing in self.crossings():
                asking = asyncio.ensure_future(ask_policy(installed[0], crossing))
                began = asyncio.get_running_loop().time()
                done, _ = await asyncio.wait({asking}, timeout=self.timeout * 3)
                took = asyncio.get_running_loop().time() - began
                await _end_task(asking)
                assert done, f"{crossing}: it goes on after its time-out"
                assert took < self.timeout * 3, f"{crossing}: it kept everybody waiting for {took:.1f} s"


async def _end_task(task: asyncio.Future[Any]) -> None:
    """Cancel until it ends: one that swallows a cancellation may need several."""
    for _ in range(10):
        if task.done():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=0.05)
