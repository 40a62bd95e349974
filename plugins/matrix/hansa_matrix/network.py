"""A Matrix server inside Hansa: one server name, its rooms, its people and ghosts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

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
from hansa_matrix.admin.server import ServerCommands
from hansa_matrix.client_api.endpoints import ClientApi
from hansa_matrix.config import Config
from hansa_matrix.conversion import EventDraft, RoomViewBuilder
from hansa_matrix.federation.announce import announce_to_peers
from hansa_matrix.federation.client import FederationClient
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.federation.server_discovery import ServerDiscovery
from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.local.ghosts import localpart
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.media.remote import RemoteMedia
from hansa_matrix.media.repository import MediaRepository
from hansa_matrix.media.thumbnails import Thumbnails
from hansa_matrix.old_rows import OldRows
from hansa_matrix.proto import ids
from hansa_matrix.proto.edus import RECEIPT, TYPING
from hansa_matrix.proto.event import Pdu
from hansa_matrix.retention import ExpiringRows, run_retention
from hansa_matrix.rooms.access.outbound_pdus import StoredPdus
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.care import Care
from hansa_matrix.rooms.countersigning import Countersigning
from hansa_matrix.rooms.create_room import RoomCreator
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.directory.room_addresses import RoomAddresses
from hansa_matrix.rooms.event_store import EventStore
from hansa_matrix.rooms.inbound.backfill import Backfill
from hansa_matrix.rooms.inbound.extremity_merge import ExtremityMerger
from hansa_matrix.rooms.inbound.hole_filler import HoleFiller
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.inbound.pdu_staging import PduStaging
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.inbound.staging_shares import StagingShares
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.membership.join_by_resident import JoinByResident
from hansa_matrix.rooms.membership.join_rooms import RoomJoiner
from hansa_matrix.rooms.membership.pending_invites import PendingInvites
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership
from hansa_matrix.rooms.membership.send_invite import OutboundInvites
from hansa_matrix.rooms.native_events import JoinThenSend, LocalServer, ReceivedPdu
from hansa_matrix.rooms.pdu_receipt import PduBatch
from hansa_matrix.rooms.policy.policy_checks import PolicyChecks
from hansa_matrix.rooms.policy.policy_facts import facts_of_native
from hansa_matrix.rooms.policy.policy_rechecks import PolicyRechecks
from hansa_matrix.rooms.relations import Relations
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.state.depth_migration import count_anew
from hansa_matrix.rooms.typing_and_receipts import TypingAndReceipts
from hansa_matrix.rooms.upgrade.upgrade_room import RoomUpgrades
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
from hansa_matrix.users.user_services import Users

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
        config: Config = ctx.config
        self._ctx = ctx
        self._config = config
        self._server = config.server_name
        self._keys = SigningKeys.read(Path(config.signing_key))
        routes = ServerDiscovery(ctx.http, ctx.clock, ctx.random)
        self._client = FederationClient(self._server, self._keys, ctx.http, routes)
        self._client.check = ctx.check
        self._client.network = ctx.id
        self._keyring = Keyring(ctx, self._server, self._keys, self._client)
        self._events = EventStore(ctx.store)
        self._sender = FederationSender(
            ctx, self._client, self._server, StoredPdus(ctx, self._events, self.get)
        )
        self._views = RoomViewBuilder(ctx, self._server)
        self._attendance = LocalMemberships(ctx)
        self._own = LocalServer(
            ctx, self._server, self._keys, self._sender, self._views, self._attendance, self._stale
        )
        #: Rooms that are being read again.
        self._rereading: set[str] = set()
        self._gaps = MissingEvents(ctx, self._client, self._keyring)
        self._backfill = Backfill(ctx, self._gaps, self.get)
        self._policing = PolicyServerClient(self._own, self._client)
        shares = StagingShares(config.max_staged_pdus_per_room, config.max_staged_pdus)
        self._ingest = PduStaging(self._own, self._keyring, self._gaps, self._policing, shares)
        self._gaps.ingest = self._ingest
        self._ingest.room_of = self.get
        self._ingest.unverified = self._gaps.unverified.note
        self._events.judge = PolicyRechecks(ctx, self._views.home_of, self.facts)
        self._rooms: dict[str, MatrixRoom] = {}
        self._filler = HoleFiller(ctx, self._keyring, self._gaps, self._rooms.values)
        self._keyring.learned = self._filler.learned
        self._membership = RemoteMembership(self._own, self._client, self._keyring, self._events)
        self._signals = TypingAndReceipts(ctx, self._server, self._sender, self.get)
        self._known = Users(ctx, self._client, self._sender)
        self._library = MediaRepository(ctx, self._server)
        self._fetcher = RemoteMedia(ctx, self._client, self._library)
        self._thumbnails = Thumbnails(ctx, self._library)
        invites = OutboundInvites(self._own, self._client, self._keyring)
        self._consent = Countersigning(self._own, self._policing, invites, self.get)
        self._pending = PendingInvites(ctx, self._keyring, self._attendance)
        self._ingest.elsewhere = self._pending.elsewhere
        #: Set once the rooms are in memory, or will never be: before, nobody may conclude that we have none.
        self._opening = asyncio.Event()
        self.bridge_user = f"@{config.bridge_user}:{self._server}"
        self._doctor = Doctor(ctx, self._server, self._keys, self._client, routes)
        self._operations = ServerCommands(ctx, self._keys, self._sender, self._ingest)
        self._administration = LocalEvents(ctx, self.bridge_user, self.get)
        judging = PolicyChecks(ctx, self._views)
        founder = RoomCreator(self._own, self._events, judging, self._rooms)
        self._upgrades = RoomUpgrades(self._own, founder, judging, self._administration, self.bridge_user)
        self._directory = PublicRoomList(ctx, self._administration.require_room)
        self._addresses = RoomAddresses(ctx, self._server, self._membership, self._rooms)
        self._entrance = RoomJoiner(
            self._own,
            founder,
            self._membership,
            self._pending,
            self._upgrades,
            self._administration,
            self._directory,
            self._rooms,
        )
        self._ingest.wait_until_joined = self._entrance.entered
        self._ingest.on_accepted = self._entrance.arrived
        self._ingest.settled = ExtremityMerger(self._own, self._administration, self.bridge_user).heal
        self._care = Care(ctx, self._server, self.get, self._administration, self._gaps)
        self._care.forget = self._forget
        self._care.restore = self._restore
        self._care.forgotten = self._attendance.purge
        self._ingest.blocked = self.blocked
        self._entrance.blocked = self.blocked
        self._entrance.waiting = self._ingest.waiting
        self._known.profiles.known = self._attendance.accounts.__contains__
        self._known.profiles.erased = self._attendance.erased
        self._entitled = ServerAccess(self._own, self)
        self._clients = ClientApi(
            self._own,
            founder,
            self._client,
            self._known,
            self._entrance,
            self._membership,
            self._pending,
            self._signals,
            self._directory,
            self._backfill,
            self._upgrades,
            self._library,
            self._fetcher,
            self._thumbnails,
            self._entitled,
            JoinByResident(self._own, self._membership, self._ingest, self._gaps),
            self._rooms,
        )
        ctx.declare(SCHEMA)

    @property
    def features(self) -> Features:
        """See ``hansa.HasFeatures``."""
        return _FEATURES

    @hookimpl
    def register_routes(self, router: Router) -> None:
        """The federation endpoints and our keys."""
        strangers = UnprovenWork(self._ctx.clock)
        gate = FederationAuth(self._ctx, self._server, self._keyring, self._sender.heard_from, strangers)
        gate.opened = self._opening.is_set
        entitled = self._entitled
        takers: dict[str, EduHandler] = {
            TYPING: self._signals.take_typing,
            RECEIPT: self._signals.take_receipts,
            **self._known.takers(),
        }
        answers = (
            TransactionEndpoint(self._ctx, self._ingest, EduDispatcher(self._ctx, takers)),
            MembershipEndpoints(entitled, self._ingest, self._policing),
            InviteEndpoints(entitled, self._keyring, self._pending, self._administration),
            EventEndpoints(entitled),
            QueryEndpoints(entitled, self._known),
            SpaceEndpoints(entitled, self._directory),
            FederationMedia(self._ctx, self._server, self._library, self._thumbnails),
        )
        add_routes(router, gate, answers, self._keyring, self._config.well_known_server)
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
            self._rooms[room_id] = room
            if await count_anew(self._ctx, room, self._server):
                self._ctx.log.info("the events of %s are in an order of our own now", room_id)
        await Relations(self._ctx.store).move()
        await self._care.load()
        await self._attendance.load()
        await self._sender.load()
        self._sender.start()
        successors = await self._upgrades.waiting()
        for room in list(self._rooms.values()):
            unlinked = room.resident and self._ctx.link(room.room_id) is None
            if unlinked and room.room_id not in successors:  # the power failed just before
                opened = await self._entrance.opened(room)
                await self._ctx.open_link(room.room_id, authority=True, view=opened.view)
        for room in list(self._rooms.values()):
            await self._entrance.complete(room)
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

    async def signal(self, link: Link, signal: EphemeralEvent) -> None:
        """See ``hansa.CarriesEphemeral.signal``."""
        await self._signals.send(link, signal)

    def server_of(self, user: str) -> str:
        """See ``hansa.KnowsServers.server_of``."""
        return ids.domain_of(user)

    def facts(self, inbound: Submission) -> NativeFacts:
        """See ``hansa.KnowsServers.facts``."""
        return facts_of_native(inbound, self._server)

    def ghost_id(self, user: NativeId) -> str:
        """See ``hansa.MakesGhosts.ghost_id``."""
        local = localpart(user, self._config.ghost_prefix)
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

    def _restore(self, room: MatrixRoom) -> None:
        self._rooms.setdefault(room.room_id, room)

    async def alias(self, alias: str) -> str | None:
        """See ``entitled.Rooms.alias``."""
        return await self._entrance.alias(alias)

    async def ready(self, link: Link, inbound: Submission) -> Refusal | None:
        """See ``hansa.Authority.ready``: the accounts of everybody concerned exist."""
        await self._opening.wait()
        return await self._consent.ready(link, inbound)

    async def fetch(self, link: Link, refs: Sequence[str]) -> bool:
        """See ``hansa.Authority.fetch``."""
        room = self._rooms[link.native.id]
        found = await room.events.load(refs, room.version)
        return all(ref in found for ref in refs)

    async def countersign(self, link: Link, draft: Pdu | JoinThenSend) -> ReceivedPdu | EventDraft | Refusal:
        """See ``hansa.Authority.countersign``."""
        return await self._consent.countersign(link, draft)

    async def turn(self, link: Link, batch: Sequence[Submission]) -> Turn:
        """See ``hansa.Authority.turn``."""
        await self._opening.wait()
        room = self._rooms.get(link.native.id)
        if room is None:
            raise LocalProtocolError(f"{link.id} is not a room of {self._server}")
        await self._own.fresh(room)
        turn = PduBatch(room, self._own, self._policing)
        await turn.expect(batch)
        return turn

    def _stale(self, room: MatrixRoom) -> None:
        """A room is read again as soon as the store says what it holds, before its next turn or in it."""
        if room.room_id not in self._rereading and self._rooms.get(room.room_id) is room:
            self._rereading.add(room.room_id)
            self._ctx.spawn(partial(self._read_again, room), f"read {room.room_id} again")

    async def _read_again(self, room: MatrixRoom) -> None:
        try:
            await self._own.fresh(room)
        except LocalProtocolError as problem:  # it was never kept, or is removed
            self._ctx.log.warning("not read again: %s", problem)
        self._rereading.discard(room.room_id)

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """See ``hansa.LinksRooms.open_room``. ``#name`` is ours, ``#name:server`` and ``!id`` anybody's."""
        await self._opening.wait()
        return await self._entrance.open(address, create=create)

    async def found_room(self, address: str, wish: RoomWish) -> OpenedRoom:
        """See ``hansa.FoundsRooms.found_room``."""
        await self._opening.wait()
        return await self._entrance.found(address, wish)

    async def room_at(self, address: str) -> str | None:
        """See ``hansa.NamesRooms.room_at``."""
        return await self._addresses.find(address)

    async def addresses_of(self, natives: Collection[str]) -> Mapping[str, Sequence[str]]:
        """See ``hansa.NamesRooms.addresses_of``."""
        return await self._addresses.of(natives)

    async def invited(self, pdu: Pdu, origin: str) -> None:
        """See ``entitled.Rooms.invited``."""
        self._entrance.invited(pdu, origin)

    def operations(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.operations``; ``admin/commands.py`` declares them."""
        return self._addresses.addressed(
            {
                **self._operations.table(),
                **EventCommands(self._administration).operations(),
                **self._entrance.operations(),
                **self._directory.operations(),
                **self._care.operations(),
                **self._clients.operations(),
                **self._doctor.operations(),
                **MediaCommands(self._library, self._fetcher).table(),
                "rooms upgrade": self._upgrades.upgrade,
                "rooms backfill": self._backfill.backfill,
            }
        )

    async def where(self, native_id: str) -> list[DestinationStatus]:
        """See ``hansa.TracksDelivery.where``."""
        return await self._sender.where(native_id)

    async def destinations(self) -> list[DestinationStatus]:
        """See ``hansa.TracksDelivery.destinations``."""
        return await self._sender.destinations()
