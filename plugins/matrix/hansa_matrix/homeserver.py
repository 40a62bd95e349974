"""The parts of one homeserver, built once and in the order of their layers: no part is changed afterwards.

The endpoints for clients, for servers and for operators stand on the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hansa import NetworkContext

from hansa_matrix.conversion.room_views import RoomViewBuilder
from hansa_matrix.federation.client import FederationClient
from hansa_matrix.federation.federation_services import Federation
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.federation.server_discovery import ServerDiscovery
from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.local.client_notifier import ClientNotifier
from hansa_matrix.local.local_services import Local
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.media.media_services import Media
from hansa_matrix.media.remote import RemoteMedia
from hansa_matrix.media.repository import MediaRepository
from hansa_matrix.media.thumbnails import Thumbnails
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.access.stored_pdus import StoredPdus
from hansa_matrix.rooms.countersigning import Countersigning
from hansa_matrix.rooms.create_room import RoomCreator
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.directory.room_addresses import RoomAddresses
from hansa_matrix.rooms.event_store import EventStore
from hansa_matrix.rooms.inbound.backfill import Backfill
from hansa_matrix.rooms.inbound.extremity_merge import ExtremityMerger
from hansa_matrix.rooms.inbound.hole_filler import HoleFiller
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.inbound.pdu_intake import PduIntake
from hansa_matrix.rooms.inbound.pdu_staging import PduStaging
from hansa_matrix.rooms.inbound.pdu_submission import PduSubmitter
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.direct_chats import DirectChatRooms
from hansa_matrix.rooms.membership.join_by_resident import JoinByResident
from hansa_matrix.rooms.membership.join_rooms import RoomJoiner
from hansa_matrix.rooms.membership.notice_rooms import NoticeRooms
from hansa_matrix.rooms.membership.open_rooms import RoomOpener
from hansa_matrix.rooms.membership.pending_invites import PendingInvites
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership
from hansa_matrix.rooms.membership.room_linker import RoomLinker
from hansa_matrix.rooms.membership.send_invite import OutboundInvites
from hansa_matrix.rooms.membership.unlinked_rooms import UnlinkedRooms
from hansa_matrix.rooms.policy.policy_checks import PolicyChecks
from hansa_matrix.rooms.policy.policy_facts import facts_of_native
from hansa_matrix.rooms.policy.policy_rechecks import PolicyRechecks
from hansa_matrix.rooms.room_registry import RoomRegistry
from hansa_matrix.rooms.room_services import InboundServices, RoomServices
from hansa_matrix.rooms.typing_and_receipts import TypingAndReceipts
from hansa_matrix.rooms.upgrade.follow_upgrade import UpgradeFollower
from hansa_matrix.rooms.upgrade.upgrade_room import RoomUpgrades
from hansa_matrix.users.user_services import Users


@dataclass(frozen=True, slots=True, kw_only=True)
class Homeserver:
    """Everything below the endpoints."""

    own: LocalServer
    federation: Federation
    local: Local
    users: Users
    media: Media
    rooms: RoomServices


def build_homeserver(ctx: NetworkContext) -> Homeserver:
    """The parts of the server that ``ctx.config`` describes. Nothing is read from the store yet."""
    server = ctx.config.server_name
    keys = SigningKeys.read(Path(ctx.config.signing_key))
    discovery = ServerDiscovery(ctx.http, ctx.clock, ctx.random)
    client = FederationClient(ctx, server, keys, discovery)
    keyring = Keyring(ctx, server, keys, client)
    memberships = LocalMemberships(ctx)
    notifier = ClientNotifier(ctx, memberships)
    local = Local(memberships, memberships.news, memberships.sent, notifier)
    views = RoomViewBuilder(ctx, server)
    events = EventStore(
        ctx.store, PolicyRechecks(ctx, views.ids, lambda inbound: facts_of_native(inbound, server))
    )
    registry = RoomRegistry(ctx, memberships)
    registry.listeners.on_purged(memberships.purge_room)
    sender = FederationSender(ctx, client, server, StoredPdus(ctx, events, registry))
    federation = Federation(discovery, client, keyring, sender)
    own = LocalServer(ctx, server, keys, sender, views, memberships, registry, notifier)
    users = Users(ctx, federation, local)
    repository = MediaRepository(ctx, server)
    media = Media(repository, RemoteMedia(ctx, client, repository), Thumbnails(ctx, repository))
    return Homeserver(
        own=own,
        federation=federation,
        local=local,
        users=users,
        media=media,
        rooms=_build_rooms(own, federation, events, users),
    )


def _build_rooms(own: LocalServer, federation: Federation, events: EventStore, users: Users) -> RoomServices:
    """The room engine, from what receives events to the ways into rooms."""
    ctx, client, keyring = own.ctx, federation.client, federation.keyring
    submitter = PduSubmitter(own)
    gaps = MissingEvents(ctx, client, keyring, submitter)
    policing = PolicyServerClient(own, client)
    staging = PduStaging(own, keyring, gaps, policing)
    filler = HoleFiller(ctx, keyring, gaps, own.rooms)
    keyring.on_learned(filler.on_keys_learned)
    local_events = LocalEvents(own)
    own.rooms.listeners.on_idle(ExtremityMerger(own, local_events).merge_extremities)
    linker = RoomLinker(own)
    invites = PendingInvites(ctx, keyring, own.memberships)
    remote = RemoteMembership(own, federation, events, users.profiles.member_content)
    joiner = RoomJoiner(own, remote, invites, linker)
    judging = PolicyChecks(ctx, own.views)
    creator = RoomCreator(own, events, judging)
    upgrades = RoomUpgrades(own, creator, judging, local_events)
    own.rooms.listeners.on_accepted(UpgradeFollower(own, joiner, upgrades).on_accepted)
    return RoomServices(
        registry=own.rooms,
        events=events,
        inbound=InboundServices(
            intake=PduIntake(own, staging, linker, invites),
            staging=staging,
            submitter=submitter,
            missing_events=gaps,
            hole_filler=filler,
            policy_server=policing,
        ),
        local_events=local_events,
        countersigning=Countersigning(own, policing, OutboundInvites(own, client, keyring)),
        creator=creator,
        linker=linker,
        joiner=joiner,
        direct_chats=DirectChatRooms(own, creator, joiner, local_events),
        notices=NoticeRooms(own, creator, linker, local_events),
        opener=RoomOpener(own, creator, joiner, local_events),
        remote_membership=remote,
        resident_joins=JoinByResident(own, remote, gaps),
        invites=invites,
        upgrades=upgrades,
        unlinked=UnlinkedRooms(own),
        access=ServerAccess(own),
        directory=PublicRoomList(ctx, own.rooms),
        addresses=RoomAddresses(own, remote),
        backfill=Backfill(ctx, gaps, own.rooms),
        typing_and_receipts=TypingAndReceipts(own),
    )
