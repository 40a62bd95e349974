"""A whole core in memory with the XMPP network on a scripted link, and a second, scripted network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from xml.etree.ElementTree import Element

from hansa import (
    CannotOpenRoom,
    Content,
    Delivery,
    EphemeralEvent,
    Event,
    Features,
    Kind,
    Level,
    Link,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkContext,
    NetworkStatus,
    OpenedRoom,
    PersonPresence,
    Refusal,
    RefusalCode,
    Role,
    RoomView,
    Submission,
    SubmitResult,
    hookimpl,
)
from hansa.app import App
from hansa.environment import Environment, SystemClock, SystemRandom
from hansa.model.chat_commands import CommandSettings
from hansa.setup import NetworkSetup, PolicySetup, RoomSetup, Setup
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import until
from hansa_xmpp import Config
from hansa_xmpp.network import XmppNetwork
from hansa_xmpp.proto.jid import domain_of
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.transport import NotConnected, StanzaListener
from peers.waiting import came
from xmpp.scripted_transport import ScriptedTransport
from xmpp.stanzas import GW, ROOM, element, groupchat, join, line, local_name

SOON = 5.0


class ScriptedLink(ScriptedTransport):
    """A link whose other end is the test. ``online`` are the full JIDs that answer pings; those in ``silent``
    never answer, everybody else's server says that they are not there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Element] = []
        self.online: set[str] = set()
        self.silent: set[str] = set()
        #: Bare JIDs of which their server says that there is nobody; of all others it says nothing.
        self.absent: set[str] = set()
        #: Pings of the component to itself, and whether they come back.
        self.link_pings, self.is_echoing = 0, True
        #: True for a link that loses every stanza but pings of the component to itself.
        self.is_hole = False
        #: Why the component ended its connections.
        self.ended: list[str] = []
        self._news = asyncio.Event()

    async def run(self, listener: StanzaListener) -> None:
        self.listener = listener
        self._tell()
        await asyncio.Event().wait()

    def end_connection(self, reason: str) -> None:
        assert self.listener is not None
        self.is_up = False
        self.ended.append(reason)
        self.listener.on_state(False, reason)

    def send(self, stanzas: Iterable[OutboundStanza]) -> None:
        if not self.is_up:
            raise NotConnected("down")
        for stanza in stanzas:
            assert domain_of(stanza.sender) == GW
            for text in stanza.texts():
                self._sent(element(text))
        self._tell()

    def _sent(self, e: Element) -> None:
        if e.get("to") == GW:  # the component's own ping, which comes back
            self.link_pings += 1
            if self.is_echoing:
                asyncio.get_running_loop().call_soon(self.receive_element, e)
            return
        if self.is_hole:
            return
        self.sent.append(e)
        if e.find("{urn:xmpp:ping}ping") is not None and e.get("type") == "get":
            to = e.get("to", "")
            if to not in self.silent:
                answer = "result" if to in self.online else "error"
                text = f"<iq from='{to}' to='{e.get('from')}' id='{e.get('id')}' type='{answer}'/>"
                asyncio.get_running_loop().call_soon(self.receive, text)

        query = e.find("{http://jabber.org/protocol/disco#info}query")
        if query is not None and e.get("type") == "get" and e.get("to") not in self.silent:
            to = e.get("to", "")
            condition = "item-not-found" if to in self.absent else "service-unavailable"
            text = (
                f"<iq from='{to}' to='{e.get('from')}' id='{e.get('id')}' type='error'><error type='cancel'>"
                f"<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            )
            asyncio.get_running_loop().call_soon(self.receive, text)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def receive(self, text: str) -> None:
        self.receive_element(element(text))

    def receive_element(self, e: Element) -> None:
        assert self.listener is not None
        if self.is_up:
            self.listener.on_stanza(e)

    def lines(self, to: str = "") -> list[str]:
        return [line(e) for e in self.sent if e.get("to", "").startswith(to) and not _is_ping(e)]

    def bodies(self, to: str) -> list[str]:
        return [
            e.findtext("{*}body") or ""
            for e in self.sent
            if e.get("to") == to and e.find("{*}body") is not None
        ]

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something sent makes ``condition`` true."""
        async with asyncio.timeout(SOON):
            while not came(found := condition()):
                await self._news.wait()
        return found

    async def line(self, wanted: str) -> None:
        try:
            await self.until(lambda: wanted in self.lines())
        except TimeoutError:
            raise AssertionError("\n".join([f"not sent: {wanted}", *self.lines()])) from None


def _is_ping(e: Element) -> bool:
    return local_name(e.tag) == "iq" and e.get("type") == "get"


class ScriptedAuthority:
    """A network called ``matrix`` that says what it is told and keeps what it is sent."""

    features = Features(levels=dict.fromkeys(Kind, Level.FULL))

    def __init__(self, ctx: NetworkContext) -> None:
        self.ctx = ctx
        self.got: list[Event] = []
        self.signals: list[EphemeralEvent] = []
        self.presences: list[PersonPresence] = []
        self._life, self._count = ctx.random.bytes(6).hex(), 0

    async def start(self) -> None:
        self.ctx.report_status(NetworkStatus.UP)

    async def stop(self) -> None:
        pass

    async def send(self, delivery: Delivery) -> str:
        self.got.append(delivery.event)
        return f"sent-{delivery.event.id}"

    async def show_ephemeral(self, link: Link, signal: EphemeralEvent) -> None:
        self.signals.append(signal)

    async def show_presence(self, link: Link, presence: PersonPresence) -> None:
        self.presences.append(presence)

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        return OpenedRoom(native=NativeId("matrix", address))

    async def require_direct_chat(self, user: str, other: NativeId) -> None:
        del other
        if user.startswith("@nobody:"):
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no {user}"))

    async def open_direct_chat(self, user: str, other: NativeId) -> OpenedRoom:
        await self.require_direct_chat(user, other)
        return OpenedRoom(native=NativeId("matrix", f"!dm {user} {other.id}"))

    async def submit(self, *items: tuple[NativeId, Content], room_id: str = "#lobby") -> list[SubmitResult]:
        made = []
        for sender, content in items:
            self._count += 1
            origin, room = NativeId("matrix", f"${self._life}-{self._count}"), NativeId("matrix", room_id)
            made.append(Submission(origin=origin, room=room, sender=sender, content=content, ts=0))
        return await self.ctx.submit(made)

    async def say(self, who: str, *texts: str) -> None:
        await self.submit(*((mx(who), Message(text=text)) for text in texts))

    async def member(
        self, user: NativeId, membership: Membership, by: NativeId | None = None, name: str | None = None
    ) -> None:
        content = Member(user=user, membership=membership, name=name, reason="so")
        (outcome,) = await self.submit((by or user, content))
        assert outcome.refusal is None, outcome


def mx(name: str) -> NativeId:
    return NativeId("matrix", f"@{name}:m.example")


def xm(name: str, server: str = "x.example") -> NativeId:
    return NativeId("xmpp", f"{name}@{server}")


def _setup(policy: Any) -> PolicySetup:
    module: Any = SimpleNamespace(__name__="p", open_policy=_hook(lambda ctx: policy, "open_policy"))
    return PolicySetup(name="p", module=module, options=policy)  # another object is another configuration


class XmppServer:
    """One running core. ``link`` is the scripted link of its XMPP network."""

    def __init__(
        self,
        disk: MemoryDisk,
        policy: Any = None,
        commands: CommandSettings | None = None,
        owners: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.link = ScriptedLink()
        self.networks: list[XmppNetwork] = []
        config = Config(component=GW, secret="s", **options)
        setups = [
            NetworkSetup(id="xmpp", module=self._module("x", self._xmpp), options=config),
            NetworkSetup(id="matrix", module=self._module("m", self._other), options=None),
        ]
        policies = [] if policy is None else [_setup(policy)]
        self.app = App(
            Setup(
                store=MemoryStore(disk),
                http=None,  # type: ignore[arg-type]
                seams=Environment(clock=SystemClock(), random=SystemRandom()),
                networks=setups,
                policies=policies,
                rooms=[RoomSetup(links=["xmpp:lobby", "matrix:#lobby"], owners=owners)],
                commands=commands or CommandSettings(),
            )
        )

    def _module(self, name: str, make: Callable[[Any], Any]) -> Any:
        return SimpleNamespace(__name__=name, open_network=_hook(make, "open_network"))

    def _xmpp(self, ctx: NetworkContext) -> XmppNetwork:
        network = XmppNetwork(ctx, self.link)
        self.networks.append(network)
        return network

    def _other(self, ctx: NetworkContext) -> ScriptedAuthority:
        self.other = ScriptedAuthority(ctx)
        return self.other

    async def govern(self, policy: Any) -> None:
        """Another policy judges from now on."""
        await self.app.reload_policies([_setup(policy)])

    @property
    def xmpp(self) -> XmppNetwork:
        return self.networks[-1]

    @property
    def ctx(self) -> NetworkContext:
        return self.app.contexts["xmpp"]

    @property
    def view(self) -> RoomView:
        view = self.ctx.get_view(ROOM)
        assert view is not None
        return view

    def membership(self, user: NativeId) -> Membership | None:
        view = self.ctx.get_view(ROOM)
        assert view is not None
        return view.membership(user)

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for something that the core does."""
        return (await until(lambda: [found] if came(found := condition()) else None, SOON))[0]

    async def enter(self, full: str, nick: str, **more: str) -> None:
        self.link.online.add(full)
        short = f"{full.split('@', maxsplit=1)[0]}/{full.partition('/')[2]}"
        before = len(
            [x for x in self.link.lines() if x.startswith(f"{short} < * message groupchat: subject=")]
        )
        self.link.receive(join(full, nick, **more))
        await self.link.until(
            lambda: (
                len(
                    [x for x in self.link.lines() if x.startswith(f"{short} < * message groupchat: subject=")]
                )
                > before
            )
        )

    async def confirmed(self) -> None:
        """Wait until the server has confirmed what the room was sent."""
        consumer = self.app.consumers[f"xmpp:{ROOM}"]
        await self.until(lambda: consumer.confirmed == consumer.position == consumer.room.head)

    def leave(self, full: str) -> None:
        self.link.receive(f"<presence from='{full}' to='{ROOM}/x' type='unavailable'/>")

    def say(self, full: str, *texts: str) -> None:
        for n, text in enumerate(texts):
            self.link.receive(groupchat(full, f"<body>{text}</body>", id_=f"m{n}"))

    def counted(self, name: str) -> dict[str, int]:
        return {
            dict(labels).get("why", ""): n
            for (counter, labels), n in self.app.counters.items()
            if counter == name
        }


def _hook(act: Callable[[Any], Any], name: str) -> Any:
    def open_network(ctx: Any) -> Any:
        return act(ctx)

    def open_policy(ctx: Any) -> Any:
        return act(ctx)

    return hookimpl({"open_network": open_network, "open_policy": open_policy}[name])


@asynccontextmanager
async def xmpp_server(
    disk: MemoryDisk | None = None, *, up: bool = True, **options: Any
) -> AsyncIterator[XmppServer]:
    """A house whose room is linked; stopped at the end, unless it was killed (``app`` is then None)."""
    made = XmppServer(disk or MemoryDisk(), **options)
    await made.app.start()
    try:
        await made.link.until(lambda: made.link.listener)
        if up:
            made.link.up()
        else:
            made.link.is_up = False
        await made.until(lambda: made.ctx.get_link(ROOM) is not None or not up)
        await made.until(lambda: not up or len(made.app.rooms.room_of(NativeId("xmpp", ROOM)).links) == 2)
        if up and options.get("owners"):
            await made.until(lambda: any(p.role is Role.OWNER for p in made.view.people.values()))
        yield made
    finally:
        await made.app.stop()
