"""A Matrix server inside Hansa: one server name, its rooms, its people and ghosts."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from hansa import (
    Delivery,
    Destination,
    Features,
    Inbound,
    Kind,
    Level,
    Link,
    LocalProtocolError,
    Member,
    NativeFacts,
    NetworkContext,
    OpenedRoom,
    Operation,
    Ref,
    Refusal,
    RefusalCode,
    Refused,
    RoomRefused,
    Router,
    Signal,
    Turn,
    ViewChange,
    hookimpl,
)
from hansa import Membership as Standing

from hansa_matrix.bridge import Views, texts
from hansa_matrix.config import Config
from hansa_matrix.federation.answers.entitled import Entitled
from hansa_matrix.federation.answers.handshakes import Handshakes
from hansa_matrix.federation.answers.history import History
from hansa_matrix.federation.answers.invites import Invited
from hansa_matrix.federation.answers.people import People
from hansa_matrix.federation.answers.spaces import Spaces
from hansa_matrix.federation.answers.transactions import Transactions
from hansa_matrix.federation.client import Client, Unreachable
from hansa_matrix.federation.client import Refused as PeerRefused
from hansa_matrix.federation.doctor import Doctor
from hansa_matrix.federation.notary import Notary
from hansa_matrix.federation.routes import Routes
from hansa_matrix.federation.sender import Sender
from hansa_matrix.federation.server import Gate, add_routes
from hansa_matrix.keyring import Keyring
from hansa_matrix.operations import Operations
from hansa_matrix.own_keys import OwnKeys
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.state_keys import CREATE_KEY, POWER_LEVELS_KEY
from hansa_matrix.proto.versions import VERSIONS, version_of
from hansa_matrix.room.administration import Administration
from hansa_matrix.room.care import Care
from hansa_matrix.room.create import create_room
from hansa_matrix.room.directory import Directory
from hansa_matrix.room.events import Events
from hansa_matrix.room.gaps import GapFiller
from hansa_matrix.room.ingest import Ingest
from hansa_matrix.room.invites import Invites
from hansa_matrix.room.membership import Membership
from hansa_matrix.room.native import Arrived, Own
from hansa_matrix.room.pending import Pending, Waiting
from hansa_matrix.room.room import MatrixRoom
from hansa_matrix.room.schema import SCHEMA
from hansa_matrix.room.signals import RoomSignals
from hansa_matrix.room.sweep import sweep
from hansa_matrix.room.turn import RoomTurn
from hansa_matrix.room.upgrade import TOMBSTONE, Upgrades

#: A transaction waits for a room that is being entered, 30 s at most.
_LOOK, _LOOKS = 0.1, 300
#: Seconds between attempts to follow an invite.
_ACCEPT_PAUSES = (0.5, 1.0, 2.0, 4.0)
_PLAIN = frozenset(string.ascii_lowercase + string.digits + "._-/+")
_FEATURES = Features(
    levels={
        Kind.MESSAGE: Level.FULL,
        Kind.MEMBER: Level.FULL,
        Kind.NAME: Level.FULL,
        Kind.TOPIC: Level.FULL,
        Kind.ENCRYPTED: Level.FALLBACK,
        Kind.CUSTOM: Level.FALLBACK,
    },
    max_text=40_000,
)


def escaped(text: str) -> str:
    """Text in the grammar of localparts, injectively: other bytes as ``=hh``."""
    return "".join(c if c in _PLAIN else "".join(f"={b:02x}" for b in c.encode()) for c in text)


def _named(address: str) -> tuple[str, list[str]]:
    """``!id``, ``!id:server`` or ``!id?via=server&via=server``: the room and the servers to ask."""
    room_id, _, query = address.partition("?")
    via = [value for key, value in parse_qsl(query) if key == "via" and ids.valid_server_name(value)]
    own = [ids.domain_of(room_id)] if ":" in room_id else []
    return room_id, list(dict.fromkeys([*via, *own]))


class MatrixNetwork:
    """See ``hansa.Network``; it is an ``Authority``, opens rooms and makes ghosts."""

    def __init__(self, ctx: NetworkContext) -> None:
        config: Config = ctx.config
        self._ctx = ctx
        self._config = config
        self._server = config.server_name
        self._keys = OwnKeys.read(Path(config.signing_key))
        routes = Routes(ctx.http, ctx.clock, ctx.random)
        self._client = Client(self._server, self._keys, ctx.http, routes)
        self._client.check = ctx.check
        self._client.network = ctx.id
        self._keyring = Keyring(ctx, self._server, self._keys, self._client)
        self._sender = Sender(ctx, self._client, self._server)
        self._views = Views(ctx, self._server)
        self._own = Own(ctx, self._server, self._keys, self._sender, self._views)
        self._events = Events(ctx.store)
        self._gaps = GapFiller(ctx, self._client, self._keyring)
        self._ingest = Ingest(self._own, self._keyring, self._gaps, config.max_waiting)
        self._gaps.ingest = self._ingest
        self._ingest.room_of = self.get
        self._ingest.entered = self._entered
        self._entering: set[str] = set()
        self._membership = Membership(self._own, self._client, self._keyring, self._events)
        self._signals = RoomSignals(ctx, self._server, self._sender, self.get)
        self._invites = Invites(self._own, self._client, self._keyring)
        self._pending = Pending(ctx, self._keyring)
        self._ingest.elsewhere = self._pending.elsewhere
        self._rooms: dict[str, MatrixRoom] = {}
        #: Set once the rooms are in memory, or will never be: before, nobody may conclude that we have none.
        self._opening = asyncio.Event()
        self.bridge_user = f"@{config.bridge_user}:{self._server}"
        self._doctor = Doctor(ctx, self._server, self._keys, self._client, routes)
        self._operations = Operations(ctx, self._keys, self._sender, self._ingest)
        self._administration = Administration(ctx, self.bridge_user, self.get)
        self._upgrades = Upgrades(self._own, self._events, self._administration, self.bridge_user)
        self._upgrades.keep = self._keep
        self._ingest.arrived = self._arrived
        self._directory = Directory(ctx, self._administration.room)
        self._care = Care(ctx, self._server, self.get, self._administration, self._gaps)
        self._care.forget = self._forget
        self._ingest.blocked = self.blocked
        ctx.declare(SCHEMA)

    @property
    def features(self) -> Features:
        """See ``hansa.HasFeatures``."""
        return _FEATURES

    @hookimpl
    def register_routes(self, router: Router) -> None:
        """The federation endpoints and our keys."""
        gate = Gate(self._ctx, self._server, self._keyring, self._sender.heard_from)
        gate.opened = self._opening.is_set
        entitled = Entitled(self._own, self)
        answers = (
            Transactions(entitled, self._ingest, self._signals),
            Handshakes(entitled, self._ingest),
            Invited(entitled, self._keyring, self._pending, self._administration),
            History(entitled),
            People(entitled),
            Spaces(entitled, self._directory),
        )
        add_routes(router, gate, answers, self._keyring, self._config.delegate)
        Notary(self._keyring, self._ctx.clock).register(router)

    async def start(self) -> None:
        """See ``hansa.Network.start``. One signed request goes to every server we share a room with, so
        that those who gave us up try again.
        """
        after: str | None = None
        while page := await self._ctx.store.scan("room", after=after, limit=1000):
            for row in page:
                room_id = str(row.key[0])
                room = MatrixRoom.load(room_id, row.body, self._ctx.store, self._events)
                await room.awaited.load(self._ctx.store)
                self._rooms[room_id] = room
            after = str(page[-1].key[0])
        await self._care.load()
        await self._sender.load()
        self._sender.start()
        for room in list(self._rooms.values()):
            if room.resident and self._ctx.link(room.room_id) is None:  # the power failed just before
                opened = await self._opened(room)
                await self._ctx.open_link(room.room_id, authority=True, view=opened.view)
        await self._ingest.load(list(self._rooms.values()))
        self._opening.set()
        self._ctx.spawn(self._greet(), "greet peers")
        self._ctx.spawn(self._signals.expire(), "typing ends")
        self._ctx.spawn(sweep(self._ctx), "sweep")

    async def _greet(self) -> None:
        servers: set[str] = set()
        for link in self._ctx.links():
            view = self._ctx.view(link.native.id)
            if view is not None:
                servers |= {s for n, s in view.joined_servers if n == self._ctx.id}
        for server in sorted(servers - {self._server}):
            target = f"/_matrix/federation/v1/query/profile?user_id=@{self._config.bridge_user}:{server}"
            try:
                await self._client.request("GET", server, target, seconds=10.0)
            except PeerRefused:
                self._sender.heard_from(server)
            except Unreachable as error:
                self._ctx.log.info("%s", error)
            else:
                self._sender.heard_from(server)

    async def stop(self) -> None:
        """See ``hansa.Network.stop``: the context ends every task."""
        self._opening.set()
        await asyncio.sleep(0)

    async def send(self, delivery: Delivery) -> str:
        """See ``hansa.Network.send``. Events reach Matrix in the room's turn: nothing is delivered here."""
        raise Refused(f"{delivery.link.id} is the authority of its room")

    async def signal(self, link: Link, signal: Signal) -> None:
        """See ``hansa.Signals.signal``."""
        await self._signals.send(link, signal)

    def server_of(self, user: str) -> str:
        """See ``hansa.KnowsServers.server_of``."""
        return ids.domain_of(user)

    def facts(self, inbound: Inbound) -> NativeFacts:
        """See ``hansa.KnowsServers.facts``."""
        if not isinstance(inbound.native, Arrived):
            return NativeFacts(sender_server=ids.domain_of(inbound.sender.id))
        pdu = inbound.native.pdu
        return NativeFacts(
            type=pdu.type,
            state_key=pdu.state_key,
            size=len(pdu.wire),
            encrypted=pdu.type == "m.room.encrypted",
            sender_server=ids.domain_of(pdu.sender),
            texts=texts(pdu.content),
        )

    def ghost_id(self, user: Ref) -> str:
        """See ``hansa.MakesGhosts.ghost_id``."""
        local = f"{self._config.ghost_prefix}{escaped(user.network)}_{escaped(user.id)}"
        if len(local) + len(self._server) + 2 > ids.MAX_BYTES:
            raise LocalProtocolError(f"{user} is too long for a user id")
        return f"@{local}:{self._server}"

    def get(self, room_id: str) -> MatrixRoom | None:
        """See ``entitled.Rooms.get``."""
        return self._rooms.get(room_id)

    def blocked(self, room_id: str) -> bool:
        """See ``entitled.Rooms.blocked``."""
        return room_id in self._care.blocked

    def _forget(self, room_id: str) -> None:
        self._rooms.pop(room_id, None)

    async def alias(self, alias: str) -> str | None:
        """See ``entitled.Rooms.alias``."""
        row = await self._ctx.store.get("room_alias", (alias,))
        return str(row.fields["room_id"]) if row else None

    async def ready(self, link: Link, inbound: Inbound) -> Refusal | None:
        """See ``hansa.Authority.ready``: the accounts of everybody concerned exist."""
        await self._opening.wait()
        room = self._rooms.get(link.native.id)
        if room is None or not room.resident:
            return Refusal(code=RefusalCode.NOT_FOUND, text="this server is not in that room")
        content, target = inbound.content, ""
        try:
            await self._ctx.ghost(inbound.sender)
            if isinstance(content, Member):
                target = await self._ctx.ghost(content.user)
        except LocalProtocolError as error:
            return Refusal(code=RefusalCode.INVALID, text=str(error))
        invite = isinstance(content, Member) and content.membership is Standing.INVITE
        if isinstance(content, Member) and invite and ids.domain_of(target) != self._server:
            return await self._invites.allowed(link.native.id, inbound.sender, content, target)
        return None

    async def fetch(self, link: Link, refs: Sequence[str]) -> bool:
        """See ``hansa.Authority.fetch``."""
        room = self._rooms[link.native.id]
        found = await self._events.load(refs, room.version)
        return all(ref in found for ref in refs)

    async def countersign(self, link: Link, draft: Pdu) -> Arrived | Refusal:
        """See ``hansa.Authority.countersign``: an invite of somebody of another server."""
        return await self._invites.countersigned(self._rooms[link.native.id], draft)

    async def turn(self, link: Link, batch: Sequence[Inbound]) -> Turn:
        """See ``hansa.Authority.turn``."""
        await self._opening.wait()
        room = self._rooms.get(link.native.id)
        if room is None:
            raise LocalProtocolError(f"{link.id} is not a room of {self._server}")
        turn = RoomTurn(room, self._own)
        await turn.expect(batch)
        return turn

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """See ``hansa.LinksRooms.open_room``. ``#name`` is ours, ``#name:server`` and ``!id`` anybody's."""
        await self._opening.wait()
        alias = address if ":" in address or address.startswith("!") else f"{address}:{self._server}"
        if alias.startswith("!"):
            room_id, via = _named(alias)
            return await self._enter(room_id, via)
        if not ids.valid_alias(alias):
            refusal = Refusal(code=RefusalCode.INVALID, text=f"{address!r} is no room alias")
            raise RoomRefused(refusal)
        if ids.domain_of(alias) != self._server:
            room_id, via = await self._membership.resolve(alias)
            return await self._enter(room_id, via)
        known = await self.alias(alias)
        if known is not None:
            return await self._opened(self._rooms[known])
        if not create:
            raise RoomRefused(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no room {alias}"))
        return await self._made(alias, self._config.room_version)

    def _keep(self, room: MatrixRoom) -> None:
        self._rooms[room.room_id] = room

    def _arrived(self, pdu: Pdu) -> None:
        """See ``Ingest.arrived``: where somebody replaces a room, what is linked to it follows."""
        replacement = pdu.content.get("replacement_room")
        if pdu.type == TOMBSTONE and pdu.state_key == "" and ids.valid_room_id(replacement):
            self._ctx.spawn(self._follow(pdu, str(replacement)), f"follow {pdu.room_id}")

    async def _follow(self, tombstone: Pdu, replacement: str) -> None:
        old, server = self._rooms.get(tombstone.room_id), ids.domain_of(tombstone.sender)
        if old is None or not self._config.accept_invites:
            return
        for pause in (*_ACCEPT_PAUSES, 0.0):
            try:
                if replacement not in self._rooms:
                    await self._enter(replacement, [server])
                await self._upgrades.follow(old, self._rooms[replacement], server)
                return
            except RoomRefused as error:
                if not pause:
                    text = error.refusal.text
                    self._ctx.log.warning("%s, which replaces %s: %s", replacement, old.room_id, text)
                await asyncio.sleep(pause)
            except LocalProtocolError as error:
                self._ctx.log.warning("%s is not followed: %s", old.room_id, error)
                return

    async def _made(self, alias: str, version: str) -> OpenedRoom:
        room = await create_room(self._own, self._events, self.bridge_user, version, alias)
        self._rooms[room.room_id] = room
        return await self._opened(room)

    async def _enter(self, room_id: str, via: Sequence[str], user: str = "") -> OpenedRoom:
        if self.blocked(room_id):
            text = f"{room_id} is blocked: `hansa matrix rooms unblock` ends that"
            raise RoomRefused(Refusal(code=RefusalCode.FORBIDDEN, text=text))
        user = user or self.bridge_user
        room = self._rooms.get(room_id)
        anew = room is None or not room.resident
        if room is None or anew:
            self._entering.add(room_id)
            try:
                room = await self._membership.join(room_id, user, via)
                self._rooms[room_id] = room
                await self._pending.drop(room_id, user)
            finally:
                self._entering.discard(room_id)
        return await self._opened(room, anew=anew)

    async def _entered(self, room_id: str) -> bool:
        """See ``Ingest.entered``. Others count us in from send_join on, and send; the core knows the room
        from its link on.
        """
        for _ in range(_LOOKS):
            room = self._rooms.get(room_id)
            idle = room is None or not room.resident or self._ctx.link(room_id) is not None
            if idle and room_id not in self._entering:
                return True
            await asyncio.sleep(_LOOK)
        return False

    async def _opened(self, room: MatrixRoom, *, anew: bool = False) -> OpenedRoom:
        native = Ref(self._ctx.id, room.room_id)
        linked = self._ctx.link(room.room_id) is not None
        if linked and not anew:
            return OpenedRoom(native=native, authority=True)
        state = {p.key: p for p in await room.state_events(await room.state()) if p.state_key is not None}
        levels = room.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), room.version)
        view: ViewChange = await self._views.whole(state, room.version.id, levels)
        if linked:  # we had left: what is known of the room's people is from then
            before = self._ctx.view(room.room_id)
            present = {person.user for person in view.people}
            gone = [user for user in (before.people if before else ()) if user not in present]
            await self._ctx.reconcile(room.room_id, replace(view, gone=tuple(gone)))
        return OpenedRoom(native=native, authority=True, view=view)

    async def invited(self, pdu: Pdu, origin: str) -> None:
        """See ``entitled.Rooms.invited``: the bridge user accepts, others wait for their person."""
        if pdu.state_key == self.bridge_user and self._config.accept_invites:
            self._ctx.spawn(self._accept(pdu, origin), f"accept invite to {pdu.room_id}")

    async def _accept(self, pdu: Pdu, origin: str) -> None:
        for pause in (*_ACCEPT_PAUSES, 0.0):
            try:
                opened = await self._enter(pdu.room_id, [origin])
                break
            except RoomRefused as error:
                if error.refusal.code is RefusalCode.INVITE_ONLY and pause:
                    # Their server asks for our signature before the invite is a part of the room.
                    await asyncio.sleep(pause)
                    continue
                self._ctx.log.warning("invite to %s: %s", pdu.room_id, error.refusal.text)
                if error.refusal.code is RefusalCode.POLICY:
                    await self._membership.leave_remote(pdu.room_id, self.bridge_user, [origin])
                    await self._pending.drop(pdu.room_id, self.bridge_user)
                return
        await self._ctx.open_link(opened.native.id, authority=True, view=opened.view)
        self._ctx.log.info("joined %s, invited by %s", pdu.room_id, pdu.sender)

    def operations(self) -> Mapping[str, Operation]:
        """See ``hansa.Operated.operations``; ``commands.py`` declares them."""
        own: dict[str, Operation] = {"rooms ls": self._list_rooms, "rooms create": self._create_room}
        own |= {"rooms upgrade": self._upgrades.upgrade}
        own |= {**self._directory.operations(), **self._care.operations(), **self._doctor.operations()}
        own |= {"invites ls": self._list_invites, "invites accept": self._accept_invite}
        own |= {"invites decline": self._decline_invite, "rooms knock": self._knock}
        return {**own, **self._administration.operations(), **self._operations.table()}

    async def _list_invites(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {"room": w.room_id, "user": w.user, "is": w.membership, "by": w.sender, "server": w.origin}
            for w in await self._pending.every()
        ]

    async def _invite_of(self, arguments: Mapping[str, Any]) -> Waiting:
        user = str(arguments.get("user") or self.bridge_user)
        waiting = await self._pending.get(str(arguments["room"]), user)
        if waiting is None or waiting.membership != "invite":
            raise LocalProtocolError(f"{user} is not invited there: `hansa matrix invites ls` lists invites")
        return waiting

    async def _accept_invite(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        waiting = await self._invite_of(arguments)
        try:
            opened = await self._enter(waiting.room_id, [waiting.origin], waiting.user)
        except RoomRefused as error:
            raise LocalProtocolError(error.refusal.text) from error
        await self._ctx.open_link(opened.native.id, authority=True, view=opened.view)
        return {"room": waiting.room_id, "joined": waiting.user}

    async def _decline_invite(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """An invite that nobody can be told of any more is declined all the same."""
        waiting = await self._invite_of(arguments)
        told = await self._membership.leave_remote(waiting.room_id, waiting.user, [waiting.origin])
        await self._pending.drop(waiting.room_id, waiting.user)
        return {"room": waiting.room_id, "declined": waiting.user, "told": told}

    async def _knock(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        address = str(arguments["room"])
        try:
            room_id, via = (
                _named(address) if address.startswith("!") else await self._membership.resolve(address)
            )
            event, server, version, shown = await self._membership.knock(room_id, self.bridge_user, via)
        except RoomRefused as error:
            raise LocalProtocolError(error.refusal.text) from error
        await self._pending.keep(event, server, shown, version)
        return {"room": room_id, "knocked": self.bridge_user}

    async def _create_room(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        alias, version = f"{arguments['alias']}:{self._server}", str(arguments.get("version") or "")
        if not ids.valid_alias(alias) or alias.count(":") != self._server.count(":") + 1:
            raise LocalProtocolError(f"{arguments['alias']!r} is no name of a room: #name")
        if version_of(version or self._config.room_version) is None:
            raise LocalProtocolError(f"there is no room version {version!r}: {', '.join(VERSIONS)}")
        if await self.alias(alias) is not None:
            raise LocalProtocolError(f"{alias} exists already")
        opened = await self._made(alias, version or self._config.room_version)
        await self._ctx.open_link(opened.native.id, authority=True, view=opened.view)
        return {"room": opened.native.id, "alias": alias}

    async def _list_rooms(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "room": room.room_id,
                "version": room.version.id,
                "resident": room.resident,
                "extremities": len(room.head.extremities),
                "waiting": self._ingest.waiting(room.room_id),
            }
            for room in self._rooms.values()
        ]

    async def where(self, native_id: str) -> list[Destination]:
        """See ``hansa.TracksDelivery.where``."""
        return await self._sender.where(native_id)

    async def destinations(self) -> list[Destination]:
        """See ``hansa.TracksDelivery.destinations``."""
        return await self._sender.destinations()
