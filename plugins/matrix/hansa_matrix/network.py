"""A Matrix server inside Hansa: one server name, its rooms, its people and ghosts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from hansa import (
    AdminCommand,
    Delivery,
    DeliveryRejected,
    DestinationStatus,
    EphemeralEvent,
    Features,
    Kind,
    Level,
    Link,
    LocalProtocolError,
    NativeFacts,
    NativeId,
    NetworkContext,
    OpenedRoom,
    Refusal,
    RoomWish,
    Router,
    StoreFault,
    Submission,
    Turn,
    hookimpl,
    scan_all,
)

from hansa_matrix.admin.doctor import Doctor
from hansa_matrix.admin.events import EventCommands
from hansa_matrix.admin.media import MediaCommands
from hansa_matrix.admin.membership import MembershipCommands
from hansa_matrix.admin.server import ServerCommands
from hansa_matrix.client_api.endpoints import ClientApi
from hansa_matrix.conversion import EventDraft
from hansa_matrix.federation.announce import announce_to_peers
from hansa_matrix.homeserver import build_homeserver
from hansa_matrix.local.ghosts import localpart
from hansa_matrix.old_rows import OldRows
from hansa_matrix.proto import ids
from hansa_matrix.proto.edus import RECEIPT, TYPING
from hansa_matrix.proto.event import Pdu
from hansa_matrix.retention import ExpiringRows, run_retention
from hansa_matrix.rooms.native_events import JoinThenSend, ReceivedPdu
from hansa_matrix.rooms.pdu_receipt import PduBatch
from hansa_matrix.rooms.policy.policy_facts import facts_of_native
from hansa_matrix.rooms.relations import Relations
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.state.depth_migration import count_anew
from hansa_matrix.schema import SCHEMA
from hansa_matrix.server_api.auth import FederationAuth
from hansa_matrix.server_api.edus import EduDispatcher
from hansa_matrix.server_api.endpoints import add_routes
from hansa_matrix.server_api.events import EventEndpoints
from hansa_matrix.server_api.invite import InviteEndpoints
from hansa_matrix.server_api.key_notary import Notary
from hansa_matrix.server_api.media import FederationMedia
from hansa_matrix.server_api.membership import MembershipEndpoints
from hansa_matrix.server_api.query import QueryEndpoints, add_openid_userinfo
from hansa_matrix.server_api.send import TransactionEndpoint
from hansa_matrix.server_api.spaces import SpaceEndpoints
from hansa_matrix.server_api.unproven_work import UnprovenWork
from hansa_matrix.users.edu_handler import EduHandler

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


class MatrixNetwork:
    """See ``hansa.Network``; it is an ``Authority``, opens rooms and makes ghosts."""

    def __init__(self, ctx: NetworkContext) -> None:
        self.homeserver = home = build_homeserver(ctx)
        self._ctx = ctx
        self._server = home.own.server
        self._own = home.own
        self._client, self._keyring = home.federation.client, home.federation.keyring
        self._sender = home.federation.sender
        self._attendance = home.local.memberships
        self._known = home.users
        self._library = home.media.repository
        self._rooms, self._events = home.rooms.registry, home.rooms.events
        self._ingest, self._gaps = home.rooms.inbound.staging, home.rooms.inbound.missing_events
        self._filler, self._policing = home.rooms.inbound.hole_filler, home.rooms.inbound.policy_server
        self._administration = home.rooms.local_events
        self._membership, self._pending = home.rooms.remote_membership, home.rooms.invites
        self._entrance, self._upgrades = home.rooms.joiner, home.rooms.upgrades
        self._signals = home.rooms.typing_and_receipts
        self._addresses = home.rooms.addresses
        #: Set once the rooms are in memory, or will never be: before, nobody may conclude that we have none.
        self._opening = asyncio.Event()
        self.bridge_user = home.own.bridge_user
        self._clients = ClientApi(home)
        self._doctor = Doctor(home.own, home.federation)
        ctx.declare(SCHEMA)

    @property
    def features(self) -> Features:
        """See ``hansa.HasFeatures``."""
        return _FEATURES

    @hookimpl
    def register_routes(self, router: Router) -> None:
        """The federation endpoints and our keys."""
        strangers = UnprovenWork(self._ctx.clock)
        gate = FederationAuth(self._own, self._keyring, strangers, self._opening.is_set)
        rooms, media = self.homeserver.rooms, self.homeserver.media
        entitled = rooms.access
        takers: dict[str, EduHandler] = {
            TYPING: self._signals.take_typing,
            RECEIPT: self._signals.take_receipts,
            **self._known.takers(),
        }
        answers = (
            TransactionEndpoint(self._ctx, rooms.inbound.intake, EduDispatcher(self._ctx, takers)),
            MembershipEndpoints(entitled, rooms.inbound),
            InviteEndpoints(entitled, self._keyring, self._entrance, self._administration),
            EventEndpoints(entitled),
            QueryEndpoints(entitled, self._known),
            SpaceEndpoints(entitled, rooms.directory),
            FederationMedia(self._ctx, self._server, media.repository, media.thumbnails),
        )
        add_routes(router, gate, answers, self._keyring, self._ctx.config.well_known_server)
        Notary(self._keyring, self._ctx.clock, strangers).register(router)
        add_openid_userinfo(router, self._known.openid)
        self._clients.register(router, self._opening.is_set)

    async def start(self) -> None:
        """See ``hansa.Network.start``. One signed request goes to every server we share a room with, so
        that those who gave us up try again.
        """
        await OldRows(self._ctx, self._server).complete()
        async for row in scan_all(self._ctx.store, "room"):
            room_id = str(row.key[0])
            room = MatrixRoom.load(room_id, row.body, self._ctx.store, self._events)
            await room.awaited.load(self._ctx.store)
            await room.holes.load(self._ctx.store)
            self._rooms.add(room)
            if await count_anew(self._ctx, room, self._server):
                self._ctx.log.info("the events of %s are in an order of our own now", room_id)
        await Relations(self._ctx.store).move()
        await self._rooms.load_blocked()
        await self._attendance.load()
        await self._sender.load()
        self._sender.start()
        await self.homeserver.rooms.linker.link_unlinked()
        for room in list(self._rooms.values()):
            await self._gaps.unverified.settle(room)
        await self._ingest.load(list(self._rooms.values()))
        self._opening.set()
        self._clients.start()
        greeting = partial(announce_to_peers, self._ctx, self._client, self._sender, self.bridge_user)
        self._ctx.spawn(greeting, "greet peers")
        self._ctx.spawn(self._signals.expire, "typing ends")
        self._ctx.spawn(self._filler.run, "fill holes")
        self._ctx.spawn(self._upgrades.resume, "upgrades that were cut off")
        kept: Sequence[ExpiringRows] = (
            self._sender,
            self._library,
            self._pending,
            self._keyring,
            *self._known.kept(),
        )
        self._ctx.spawn(partial(run_retention, self._ctx, kept), "sweep")

    async def stop(self) -> None:
        """See ``hansa.Network.stop``: the context ends every task."""
        self._opening.set()
        try:
            await self._sender.keep()
            await self._clients.accounts.last_seen.keep()
        except (
            StoreFault
        ) as fault:  # servers are sent again what they know, devices were seen a little earlier
            self._ctx.log.warning("not kept at the end: %s", fault)

    async def send(self, delivery: Delivery) -> str:
        """See ``hansa.Network.send``. Events reach Matrix in the room's turn: nothing is delivered here."""
        raise DeliveryRejected(f"{delivery.link.id} is the authority of its room")

    async def show_ephemeral(self, link: Link, signal: EphemeralEvent) -> None:
        """See ``hansa.CarriesEphemeral.show_ephemeral``."""
        await self._signals.send(link, signal)

    def server_of(self, user: str) -> str:
        """See ``hansa.KnowsServers.server_of``."""
        return ids.domain_of(user)

    def policy_facts(self, inbound: Submission) -> NativeFacts:
        """See ``hansa.KnowsServers.policy_facts``."""
        return facts_of_native(inbound, self._server)

    def ghost_id(self, user: NativeId) -> str:
        """See ``hansa.MakesGhosts.ghost_id``."""
        local = localpart(user, self._ctx.config.ghost_prefix)
        if len(local) + len(self._server) + 2 > ids.MAX_BYTES:
            raise LocalProtocolError(f"{user} is too long for a user id")
        return f"@{local}:{self._server}"

    def get(self, room_id: str) -> MatrixRoom | None:
        """A room that this server is or was in."""
        return self._rooms.get(room_id)

    async def before_turn(self, link: Link, inbound: Submission) -> Refusal | None:
        """See ``hansa.Authority.before_turn``: the accounts of everybody concerned exist."""
        await self._opening.wait()
        return await self.homeserver.rooms.countersigning.ready(link, inbound)

    async def fetch_missing(self, link: Link, refs: Sequence[str]) -> bool:
        """See ``hansa.Authority.fetch_missing``."""
        room = self._rooms[link.native.id]
        found = await room.events.load(refs, room.version)
        return all(ref in found for ref in refs)

    async def countersign(self, link: Link, draft: Pdu | JoinThenSend) -> ReceivedPdu | EventDraft | Refusal:
        """See ``hansa.Authority.countersign``."""
        return await self.homeserver.rooms.countersigning.countersign(link, draft)

    async def begin_turn(self, link: Link, batch: Sequence[Submission]) -> Turn:
        """See ``hansa.Authority.begin_turn``."""
        await self._opening.wait()
        room = self._rooms.get(link.native.id)
        if room is None:
            raise LocalProtocolError(f"{link.id} is not a room of {self._server}")
        await self._rooms.refresh(room)
        turn = PduBatch(room, self._own, self._policing)
        await turn.expect(batch)
        return turn

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """See ``hansa.LinksRooms.open_room``. ``#name`` is an alias of this server, ``#name:server`` and
        ``!id`` of any server.
        """
        await self._opening.wait()
        return await self.homeserver.rooms.opener.open_room(address, create=create)

    async def found_room(self, address: str, wish: RoomWish) -> OpenedRoom:
        """See ``hansa.FoundsRooms.found_room``."""
        await self._opening.wait()
        return await self.homeserver.rooms.opener.found_room(address, wish)

    async def room_at(self, address: str) -> str | None:
        """See ``hansa.NamesRooms.room_at``."""
        return await self._addresses.find(address)

    async def addresses_of(self, natives: Collection[str]) -> Mapping[str, Sequence[str]]:
        """See ``hansa.NamesRooms.addresses_of``."""
        return await self._addresses.of(natives)

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``; ``admin/commands.py`` declares them."""
        home = self.homeserver
        return self._addresses.addressed(
            {
                **ServerCommands(home.own, self._ingest).table(),
                **EventCommands(self._administration).operations(),
                **MembershipCommands(home.own, home.rooms).operations(),
                **home.rooms.directory.operations(),
                **home.rooms.care.operations(),
                **self._clients.operations(),
                **self._doctor.operations(),
                **MediaCommands(home.media.repository, home.media.remote).table(),
                "rooms upgrade": self._upgrades.upgrade,
                "rooms backfill": home.rooms.backfill.backfill,
            }
        )

    async def delivery_status(self, native_id: str) -> list[DestinationStatus]:
        """See ``hansa.TracksDelivery.delivery_status``."""
        return await self._sender.where(native_id)

    async def list_destinations(self) -> list[DestinationStatus]:
        """See ``hansa.TracksDelivery.list_destinations``."""
        return await self._sender.destinations()
