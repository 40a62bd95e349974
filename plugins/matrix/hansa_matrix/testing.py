"""Named and typed access to the parts of a running Matrix network, for tests.

This module alone knows where ``MatrixNetwork`` keeps its parts. The product does not import it.

    async with run_hansa({"matrix": (hansa_matrix, config)}, rooms=[["matrix:#lobby"]]) as app:
        matrix = MatrixHarness(app.network("matrix"))
        [room] = matrix.rooms.values()
        await matrix.local_events.send_state(room.room_id, "m.room.topic", "", {"topic": "tests"})
"""

from __future__ import annotations

import asyncio

from hansa import FairSlots, Network, NetworkContext, ScopedStore, WeightedLruCache

from hansa_matrix.admin.doctor import Doctor
from hansa_matrix.client_api.endpoints import ClientApi
from hansa_matrix.conversion.room_views import RoomViewBuilder
from hansa_matrix.federation.client import FederationClient
from hansa_matrix.federation.destination_queue import DestinationQueue
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.media.image_process import ImageProcess
from hansa_matrix.media.remote import RemoteMedia
from hansa_matrix.media.repository import MediaRepository
from hansa_matrix.media.thumbnails import Thumbnails
from hansa_matrix.network import MatrixNetwork
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.create_room import RoomCreator
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.event_store import EventStore, StoredEvent
from hansa_matrix.rooms.inbound.backfill import Backfill
from hansa_matrix.rooms.inbound.hole_filler import HoleFiller
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.inbound.pdu_intake import PduIntake
from hansa_matrix.rooms.inbound.pdu_staging import PduStaging
from hansa_matrix.rooms.inbound.pdu_submission import PduSubmitter
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.inbound.room_queue import RoomQueue
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.join_rooms import RoomJoiner
from hansa_matrix.rooms.membership.pending_invites import PendingInvites
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_registry import RoomRegistry
from hansa_matrix.rooms.typing_and_receipts import TypingAndReceipts
from hansa_matrix.rooms.upgrade.upgrade_room import RoomUpgrades
from hansa_matrix.users.user_services import Users


class MatrixHarness:
    """The parts of one running network. A test may replace methods of a part, but not the part itself."""

    def __init__(self, network: Network | None) -> None:
        """Raises TypeError for a network that is not open, or not a Matrix network."""
        if not isinstance(network, MatrixNetwork):
            raise TypeError(f"{network!r} is not a running Matrix network")
        self.network = network

    def get_room(self, room_id: str) -> MatrixRoom | None:
        """The room of an id, if this server has it."""
        return self.network.get(room_id)

    def destination_queue(self, server: str) -> DestinationQueue:
        """The queue of a server, which is made if there was none."""
        return self.network.homeserver.federation.sender._queue_for(server)

    @property
    def ctx(self) -> NetworkContext:
        """The context that the core gave the network."""
        return self.network.homeserver.own.ctx

    @property
    def store(self) -> ScopedStore:
        """The network's own part of the store."""
        return self.network.homeserver.own.ctx.store

    @property
    def server_name(self) -> str:
        """The name of the server."""
        return self.network.homeserver.own.server

    @property
    def bridge_user(self) -> str:
        """The user id of the bridge user."""
        return self.network.bridge_user

    @property
    def signing_keys(self) -> SigningKeys:
        """The keys that the server signs with."""
        return self.network.homeserver.own.keys

    @property
    def federation_client(self) -> FederationClient:
        """Requests to other servers."""
        return self.network.homeserver.federation.client

    @property
    def keyring(self) -> Keyring:
        """The keys of other servers."""
        return self.network.homeserver.federation.keyring

    @property
    def sender(self) -> FederationSender:
        """The sender of events and EDUs to other servers."""
        return self.network.homeserver.federation.sender

    @property
    def destination_queues(self) -> dict[str, DestinationQueue]:
        """The queues of the sender, by the name of the server."""
        return self.network.homeserver.federation.sender._peers

    @property
    def event_store(self) -> EventStore:
        """The stored events of all rooms."""
        return self.network.homeserver.rooms.events

    @property
    def event_cache(self) -> WeightedLruCache[str, StoredEvent]:
        """The events that ``event_store`` holds in memory, by their ids."""
        return self.network.homeserver.rooms.events._kept

    @property
    def rooms(self) -> RoomRegistry:
        """The rooms, by their ids."""
        return self.network.homeserver.rooms.registry

    def keep_forward_extremities(self) -> None:
        """Leave rooms with many forward extremities as they are: no event of this server merges them."""
        self.rooms.listeners._idle = ()

    @property
    def rooms_loaded(self) -> asyncio.Event:
        """Set as soon as the rooms are in memory."""
        return self.network._opening

    @property
    def room_creator(self) -> RoomCreator:
        """Creates rooms."""
        return self.network.homeserver.rooms.creator

    @property
    def joiner(self) -> RoomJoiner:
        """Joins rooms, here and on other servers."""
        return self.network.homeserver.rooms.joiner

    @property
    def remote_membership(self) -> RemoteMembership:
        """Joins, knocks and leaves by way of another server."""
        return self.network.homeserver.rooms.remote_membership

    @property
    def pending_invites(self) -> PendingInvites:
        """Invites from rooms of other servers that wait for an answer."""
        return self.network.homeserver.rooms.invites

    @property
    def local_events(self) -> LocalEvents:
        """Sends events as local users."""
        return self.network.homeserver.rooms.local_events

    @property
    def local_server(self) -> LocalServer:
        """The server as its rooms know it."""
        return self.network.homeserver.own

    @property
    def views(self) -> RoomViewBuilder:
        """Makes views for the core from the state of rooms."""
        return self.network.homeserver.own.views

    @property
    def intake(self) -> PduIntake:
        """Received transactions, before their PDUs are staged."""
        return self.network.homeserver.rooms.inbound.intake

    @property
    def staging(self) -> PduStaging:
        """Received PDUs that are not in a room yet."""
        return self.network.homeserver.rooms.inbound.staging

    @property
    def submitter(self) -> PduSubmitter:
        """Submits received PDUs to the core."""
        return self.network.homeserver.rooms.inbound.submitter

    @property
    def room_queues(self) -> dict[str, RoomQueue]:
        """The queues of ``staging``, by the id of the room."""
        return self.network.homeserver.rooms.inbound.staging._lines

    @property
    def missing_events(self) -> MissingEvents:
        """Fetches events that received PDUs refer to."""
        return self.network.homeserver.rooms.inbound.missing_events

    @property
    def hole_filler(self) -> HoleFiller:
        """Tries again to fetch what could not be verified."""
        return self.network.homeserver.rooms.inbound.hole_filler

    @property
    def backfill(self) -> Backfill:
        """Fetches the history before a join."""
        return self.network.homeserver.rooms.backfill

    @property
    def policy_server(self) -> PolicyServerClient:
        """Asks the policy servers of rooms."""
        return self.network.homeserver.rooms.inbound.policy_server

    @property
    def public_rooms(self) -> PublicRoomList:
        """The list of public rooms."""
        return self.network.homeserver.rooms.directory

    @property
    def upgrades(self) -> RoomUpgrades:
        """Replaces rooms."""
        return self.network.homeserver.rooms.upgrades

    @property
    def typing_and_receipts(self) -> TypingAndReceipts:
        """Typing notifications and read receipts."""
        return self.network.homeserver.rooms.typing_and_receipts

    @property
    def server_access(self) -> ServerAccess:
        """The access of other servers to rooms."""
        return self.network.homeserver.rooms.access

    @property
    def memberships(self) -> LocalMemberships:
        """The memberships of local users, and their stream of changes."""
        return self.network.homeserver.local.memberships

    @property
    def users(self) -> Users:
        """Devices, keys, profiles and presence of users."""
        return self.network.homeserver.users

    @property
    def device_list_fetches(self) -> dict[str, int]:
        """The users of other servers whose device list is fetched now, with the stream id that is wanted."""
        return self.network.homeserver.users.remote._fetching

    @property
    def media(self) -> MediaRepository:
        """The content repository."""
        return self.network.homeserver.media.repository

    @property
    def remote_media(self) -> RemoteMedia:
        """Fetches media of other servers."""
        return self.network.homeserver.media.remote

    @property
    def thumbnails(self) -> Thumbnails:
        """Makes thumbnails."""
        return self.network.homeserver.media.thumbnails

    @property
    def client_api(self) -> ClientApi:
        """The endpoints for clients."""
        return self.network._clients

    @property
    def doctor(self) -> Doctor:
        """The federation tester."""
        return self.network._doctor

    @property
    def image_decoder(self) -> ImageProcess:
        """The process that decodes images for ``thumbnails``."""
        return self.network.homeserver.media.thumbnails._decoder

    @property
    def destination_sets(self) -> dict[int, tuple[str, ...]]:
        """The sets of servers that the sender's streams name, by their ids."""
        return self.network.homeserver.federation.sender._sets

    @property
    def stream_waiters(self) -> dict[str, set[asyncio.Event]]:
        """The requests that wait for a topic of the client stream."""
        return self.network.homeserver.local.memberships.news._waiting

    @property
    def download_shares(self) -> FairSlots:
        """The slots of ``remote_media`` for downloads."""
        return self.network.homeserver.media.remote._shares
