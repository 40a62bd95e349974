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
    EarlierPage,
    EphemeralEvent,
    Features,
    Kind,
    Level,
    Link,
    LocalProtocolError,
    MediaStream,
    NativeFacts,
    NativeId,
    NetworkContext,
    OpenedRoom,
    PersonMatch,
    PersonPresence,
    Refusal,
    RoomMatch,
    RoomView,
    RoomWish,
    Router,
    StoreFault,
    Submission,
    Turn,
    hookimpl,
)

from hansa_matrix.admin.doctor import Doctor
from hansa_matrix.admin.tables import build_admin_table
from hansa_matrix.client_api.endpoints import ClientApi
from hansa_matrix.conversion.presence import ghost_presence_edu
from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.homeserver import build_homeserver
from hansa_matrix.local.ghosts import ghost_localpart
from hansa_matrix.media.shared_files import SharedFiles
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.native_events import JoinThenSend, ReceivedPdu
from hansa_matrix.rooms.pdu_receipt import PduBatch
from hansa_matrix.rooms.policy.policy_facts import facts_of_native
from hansa_matrix.rooms.restricted_kinds import restricted_kinds
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.schema import SCHEMA
from hansa_matrix.server_api.endpoints import add_server_routes
from hansa_matrix.startup import load_homeserver, spawn_tasks

#: What a person of another network cannot do in a Matrix room: they are told.
_REJECTED = (
    Kind.UPGRADE,
    Kind.REPORT,
    Kind.ENCRYPTED,
    Kind.CUSTOM,
)
_FEATURES = Features(
    levels={
        **dict.fromkeys(Kind, Level.FULL),
        **dict.fromkeys(_REJECTED, Level.REJECTED),
        Kind.AVATAR: Level.PARTIAL,
        Kind.CALL: Level.FALLBACK,
    },
    max_text=40_000,
    formatting=True,
    replies=True,
    attachments=True,
)


class MatrixNetwork:
    """See ``hansa.Network``; it is an ``Authority``, opens rooms and makes ghosts."""

    features = _FEATURES

    def __init__(self, ctx: NetworkContext) -> None:
        self.homeserver = home = build_homeserver(ctx)
        self._ctx = ctx
        self._rooms = home.rooms
        #: Set once the rooms are in memory, or will never be: before, nobody may conclude that we have none.
        self._opening = asyncio.Event()
        self._clients = ClientApi(home, self._opening.is_set)
        self._files = SharedFiles(home.media)
        self._doctor = Doctor(home.own, home.federation)
        ctx.declare(SCHEMA)

    @hookimpl
    def register_routes(self, router: Router) -> None:
        """The federation endpoints and our keys."""
        add_server_routes(router, self.homeserver, self._opening.is_set)
        self._clients.add_routes(router)

    async def start(self) -> None:
        """See ``hansa.Network.start``."""
        await load_homeserver(self.homeserver)
        self._opening.set()
        self._clients.start()
        spawn_tasks(self.homeserver)

    async def stop(self) -> None:
        """See ``hansa.Network.stop``: the context ends every task."""
        self._opening.set()
        try:
            await self.homeserver.federation.sender.save_cursors()
            await self._clients.accounts.last_seen.save_noted()
        except (
            StoreFault
        ) as fault:  # servers are sent again what they know, devices were seen a little earlier
            self._ctx.log.warning("not kept at the end: %s", fault)

    async def send(self, delivery: Delivery) -> str:
        """See ``hansa.Network.send``. Events reach Matrix in the room's turn: nothing is delivered here."""
        raise DeliveryRejected(f"{delivery.link.id} is the authority of its room")

    @property
    def bridge_user(self) -> str:
        """The user id of the account that makes and joins rooms."""
        return self.homeserver.own.bridge_user

    async def show_ephemeral(self, link: Link, signal: EphemeralEvent) -> None:
        """See ``hansa.CarriesEphemeral.show_ephemeral``."""
        await self._rooms.typing_and_receipts.send(link, signal)

    async def show_presence(self, link: Link, presence: PersonPresence) -> None:
        """See ``hansa.CarriesPresence.show_presence``."""
        home, room = self.homeserver, self.get(link.native.id)
        ghost = await self._ctx.get_ghost_id(presence.user)
        if room is not None and room.resident and ids.domain_of(ghost) == home.own.server:
            edu = ghost_presence_edu(ghost, presence, self._ctx.clock.now())
            await home.users.presences.set_ghost(presence.user, edu, room.room_id)

    async def find_people(self, text: str, *, limit: int) -> Sequence[PersonMatch]:
        """See ``hansa.LooksUp.find_people``."""
        await self._opening.wait()
        return await self._clients.users.find_people(text, limit=limit)

    async def find_rooms(self, text: str, *, limit: int) -> Sequence[RoomMatch]:
        """See ``hansa.LooksUpRooms.find_rooms``."""
        await self._opening.wait()
        return await self._clients.rooms.find_rooms(text, limit=limit)

    async def answer_command(self, link: Link, user: str, text: str) -> None:  # noqa: ARG002
        """See ``hansa.AnswersCommands.answer_command``: Matrix has no message to one person of a room."""
        await self._rooms.local_events.send_notice(link.native.id, text)

    async def tell_person(self, link: Link, user: str, text: str) -> None:
        """See ``hansa.TellsPeople.tell_person``: in a chat of the bridge user with the person, or else in the
        room (``rooms/membership/notice_rooms.py``).
        """
        await self._rooms.notices.tell(link.native.id, user, text)

    def is_proven_person(self, user: str) -> bool:  # noqa: ARG002
        """See ``hansa.ProvesPeople.is_proven_person``: the server of a user signs what they do."""
        return True

    def has_private_chat(self, user: str) -> bool:  # noqa: ARG002
        """See ``hansa.ProvesPeople.has_private_chat``: a message stays in the history of every server."""
        return False

    def server_of(self, user: str) -> str:
        """See ``hansa.KnowsServers.server_of``."""
        return ids.domain_of(user)

    def policy_facts(self, inbound: Submission) -> NativeFacts:
        """See ``hansa.KnowsServers.policy_facts``."""
        return facts_of_native(inbound, self.homeserver.own.server)

    def ghost_id(self, user: NativeId) -> str:
        """See ``hansa.MakesGhosts.ghost_id``."""
        local = ghost_localpart(user, self._ctx.config.ghost_prefix)
        if len(local) + len(self.homeserver.own.server) + 2 > ids.MAX_BYTES:
            raise LocalProtocolError(f"{user} is too long for a user id")
        return f"@{local}:{self.homeserver.own.server}"

    def get(self, room_id: str) -> MatrixRoom | None:
        """A room that this server is or was in."""
        return self._rooms.registry.get(room_id)

    async def before_turn(self, link: Link, inbound: Submission) -> Refusal | None:
        """See ``hansa.Authority.before_turn``: the accounts of everybody concerned exist."""
        await self._opening.wait()
        return await self._rooms.countersigning.ready(link, inbound)

    async def fetch_missing(self, link: Link, refs: Sequence[str]) -> bool:
        """See ``hansa.Authority.fetch_missing``."""
        room = self._rooms.registry[link.native.id]
        found = await room.events.load(refs, room.version)
        return all(ref in found for ref in refs)

    async def restricted_kinds(self, native: str) -> Collection[Kind]:
        """See ``hansa.RestrictsKinds.restricted_kinds``: by the power levels of now."""
        room = self.get(native)
        return await restricted_kinds(room) if room is not None and room.resident else ()

    async def countersign(self, link: Link, draft: Pdu | JoinThenSend) -> ReceivedPdu | EventDraft | Refusal:
        """See ``hansa.Authority.countersign``."""
        return await self._rooms.countersigning.countersign(link, draft)

    async def begin_turn(self, link: Link, batch: Sequence[Submission]) -> Turn:
        """See ``hansa.Authority.begin_turn``."""
        await self._opening.wait()
        room = self._rooms.registry.get(link.native.id)
        if room is None:
            raise LocalProtocolError(f"{link.id} is not a room of {self.homeserver.own.server}")
        await self._rooms.registry.refresh_room(room)
        turn = PduBatch(room, self.homeserver.own, self._rooms.inbound.policy_server)
        await turn.expect(batch)
        return turn

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """See ``hansa.LinksRooms.open_room``. ``#name`` is an alias of this server, ``#name:server`` and
        ``!id`` of any server.
        """
        await self._opening.wait()
        return await self._rooms.opener.open_room(address, create=create)

    async def found_room(self, address: str, wish: RoomWish) -> OpenedRoom:
        """See ``hansa.FoundsRooms.found_room``."""
        await self._opening.wait()
        return await self._rooms.opener.found_room(address, wish)

    async def remove_room(self, native: str) -> None:
        """See ``hansa.RemovesRooms.remove_room``."""
        commands = self.admin_commands()
        for words in ("rooms leave", "rooms purge"):
            await commands[words]({"room": native})

    async def on_link_added(self, own: Link, added: Link, view: RoomView) -> None:
        """See ``hansa.FollowsLinks.on_link_added``: who is there enters by events of their own."""

    async def on_link_removed(self, own: Link, removed: Link, view: RoomView) -> None:  # noqa: ARG002
        """See ``hansa.FollowsLinks.on_link_removed``."""
        if own == removed:
            leave = partial(self._rooms.unlinked.remove_ghosts, own.native.id)
            self._ctx.spawn(leave, "ghosts of an unlinked room")

    async def require_direct_chat(self, user: str, other: NativeId) -> None:  # noqa: ARG002
        """See ``hansa.OpensDirectChats.require_direct_chat``."""
        await self._opening.wait()
        await self._rooms.direct_chats.require_user(user)

    async def open_direct_chat(self, user: str, other: NativeId) -> OpenedRoom:
        """See ``hansa.OpensDirectChats.open_direct_chat``."""
        await self._opening.wait()
        return await self._rooms.direct_chats.open_room(user, other)

    async def fetch_before(
        self, link: Link, before: str, *, limit: int, ask_others: bool
    ) -> EarlierPage | None:
        """See ``hansa.FetchesHistory.fetch_before``."""
        await self._opening.wait()
        return await self._clients.earlier.fetch_before(link, before, limit=limit, ask_others=ask_others)

    async def room_at(self, address: str) -> str | None:
        """See ``hansa.NamesRooms.room_at``."""
        return await self._rooms.addresses.find_room(address)

    async def addresses_of(self, natives: Collection[str]) -> Mapping[str, Sequence[str]]:
        """See ``hansa.NamesRooms.addresses_of``."""
        return await self._rooms.addresses.addresses_of(natives)

    async def open_media(self, media: str, *, first: int = 0, last: int | None = None) -> MediaStream:
        """See ``hansa.KeepsMedia.open_media``."""
        await self._opening.wait()
        return await self._files.open_file(media, first, last)

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``; ``admin/commands.py`` declares them."""
        others = {**self._clients.admin_commands(), **self._doctor.admin_commands()}
        return build_admin_table(self.homeserver, others)

    async def delivery_status(self, native_id: str) -> list[DestinationStatus]:
        """See ``hansa.TracksDelivery.delivery_status``."""
        return await self.homeserver.federation.sender.delivery_status(native_id)

    async def list_destinations(self) -> list[DestinationStatus]:
        """See ``hansa.TracksDelivery.list_destinations``."""
        return await self.homeserver.federation.sender.destinations()
