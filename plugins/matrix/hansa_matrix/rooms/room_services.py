"""The room engine, as one value: each part is built once, in ``homeserver.py``."""

from __future__ import annotations

from dataclasses import dataclass

from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.countersigning import Countersigning
from hansa_matrix.rooms.create_room import RoomCreator
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.directory.room_addresses import RoomAddresses
from hansa_matrix.rooms.event_store import EventStore
from hansa_matrix.rooms.inbound.backfill import Backfill
from hansa_matrix.rooms.inbound.hole_filler import HoleFiller
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.inbound.pdu_intake import PduIntake
from hansa_matrix.rooms.inbound.pdu_staging import PduStaging
from hansa_matrix.rooms.inbound.pdu_submission import PduSubmitter
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.membership.direct_chats import DirectChatRooms
from hansa_matrix.rooms.membership.join_by_resident import JoinByResident
from hansa_matrix.rooms.membership.join_rooms import RoomJoiner
from hansa_matrix.rooms.membership.notice_rooms import NoticeRooms
from hansa_matrix.rooms.membership.open_rooms import RoomOpener
from hansa_matrix.rooms.membership.pending_invites import PendingInvites
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership
from hansa_matrix.rooms.membership.room_linker import RoomLinker
from hansa_matrix.rooms.membership.unlinked_rooms import UnlinkedRooms
from hansa_matrix.rooms.room_registry import RoomRegistry
from hansa_matrix.rooms.typing_and_receipts import TypingAndReceipts
from hansa_matrix.rooms.upgrade.upgrade_room import RoomUpgrades


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundServices:
    """The parts that handle events of other servers."""

    intake: PduIntake
    staging: PduStaging
    submitter: PduSubmitter
    missing_events: MissingEvents
    hole_filler: HoleFiller
    policy_server: PolicyServerClient


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomServices:
    """Rooms, the ways into and out of them, and what is sent in them."""

    registry: RoomRegistry
    events: EventStore
    inbound: InboundServices
    local_events: LocalEvents
    countersigning: Countersigning
    creator: RoomCreator
    linker: RoomLinker
    joiner: RoomJoiner
    direct_chats: DirectChatRooms
    notices: NoticeRooms
    opener: RoomOpener
    remote_membership: RemoteMembership
    resident_joins: JoinByResident
    invites: PendingInvites
    upgrades: RoomUpgrades
    unlinked: UnlinkedRooms
    access: ServerAccess
    directory: PublicRoomList
    addresses: RoomAddresses
    backfill: Backfill
    typing_and_receipts: TypingAndReceipts
