"""The client API, put together of its endpoint groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hansa import AdminCommand, NetworkContext, Router

from hansa_matrix.client_api.account.account_data import (
    AccountDataEndpoints,
)
from hansa_matrix.client_api.account.departures import Departures
from hansa_matrix.client_api.account.login import LoginEndpoints
from hansa_matrix.client_api.account.profile import ProfileEndpoints
from hansa_matrix.client_api.account.registration_tokens import RegistrationTokens
from hansa_matrix.client_api.account.whois import Whois
from hansa_matrix.client_api.builder import build_client_services
from hansa_matrix.client_api.http import (
    EndpointGroup,
    PublicEndpointGroup,
)
from hansa_matrix.client_api.introductions import Introductions
from hansa_matrix.client_api.key_backup import KeyBackupEndpoints
from hansa_matrix.client_api.keys import KeysEndpoints
from hansa_matrix.client_api.media import MediaEndpoints
from hansa_matrix.client_api.openid import OpenIdEndpoints
from hansa_matrix.client_api.presence import PresenceEndpoints
from hansa_matrix.client_api.rooms.aliases import AliasEndpoints
from hansa_matrix.client_api.rooms.directory import PublicRoomsEndpoints, RoomVisibilityEndpoints
from hansa_matrix.client_api.rooms.earlier_history import EarlierRoomHistory
from hansa_matrix.client_api.rooms.membership import RoomEndpoints
from hansa_matrix.client_api.rooms.mutual_rooms import MutualRooms
from hansa_matrix.client_api.rooms.peeking import PeekEndpoints
from hansa_matrix.client_api.rooms.read import ReadEndpoints
from hansa_matrix.client_api.rooms.receipts import ReceiptEndpoints
from hansa_matrix.client_api.rooms.relations import RelationEndpoints
from hansa_matrix.client_api.rooms.remote_rooms import RemoteRooms
from hansa_matrix.client_api.rooms.reports import Reports
from hansa_matrix.client_api.rooms.room_search import RoomSearch
from hansa_matrix.client_api.rooms.room_summary import AccessibleSummaries
from hansa_matrix.client_api.rooms.send import SendEndpoints
from hansa_matrix.client_api.rooms.spaces import HierarchyEndpoints
from hansa_matrix.client_api.rooms.upgrade import UpgradeEndpoints
from hansa_matrix.client_api.server_info import ServerInfoEndpoints
from hansa_matrix.client_api.sync.devices import DeviceSync
from hansa_matrix.client_api.sync.notifications import Notifications
from hansa_matrix.client_api.sync.rooms import RoomSync
from hansa_matrix.client_api.sync.sync import SyncEndpoint, SyncSections
from hansa_matrix.client_api.user_directory import UserDirectory
from hansa_matrix.homeserver import Homeserver
from hansa_matrix.rooms.directory.room_summaries import RoomSummaries
from hansa_matrix.users.key_backups import KeyBackups

_SPEC_VERSIONS = ["r0.6.1", *(f"v1.{minor}" for minor in range(1, 13))]


class ClientApi:
    """Everything that a client may ask."""

    def __init__(self, home: Homeserver, is_ready: Callable[[], bool]) -> None:
        own, users, rooms = home.own, home.users, home.rooms
        self._ctx: NetworkContext = own.ctx
        parts = build_client_services(home, is_ready)
        http, sender, entry = parts.http, parts.sender, parts.entry
        self.earlier = EarlierRoomHistory(own, parts.reading.timeline)
        self._http, self.accounts = http, parts.accounts
        self.tokens, self._reports = RegistrationTokens(own.ctx), Reports(own.ctx, own.memberships)
        self._sessions = LoginEndpoints(own.ctx, parts.accounts, users.devices, self.tokens)
        room_sync = RoomSync(own, rooms, parts.reading, parts.settings)
        sections = SyncSections(rooms=room_sync, devices=DeviceSync(own, users), data=parts.settings.data)
        self._sync = SyncEndpoint(own, parts.accounts, users, sections)
        self._server_info, self._media = (
            ServerInfoEndpoints(own.ctx),
            MediaEndpoints(own.ctx, http, home.media),
        )
        remote_rooms = RemoteRooms(own.ctx, home.federation.client)
        summaries, backups = RoomSummaries(rooms.access, rooms.directory), KeyBackups(own.ctx)
        accessible = AccessibleSummaries(own, remote_rooms, summaries, parts.reading.visibility)
        self.rooms = RoomSearch(own, summaries, remote_rooms)
        self.users = UserDirectory(own, parts.accounts, users.profiles, rooms.directory)
        public = (
            self._server_info,
            self._sessions,
            AliasEndpoints(own, http, sender, entry),
            ProfileEndpoints(own, http, sender),
            RoomVisibilityEndpoints(own, http, sender, rooms.directory),
            PublicRoomsEndpoints(own, http, summaries, remote_rooms),
        )
        self._public: tuple[PublicEndpointGroup, ...] = public
        self._groups: tuple[EndpointGroup, ...] = (
            *public,
            RoomEndpoints(own, rooms, sender, entry),
            UpgradeEndpoints(sender, rooms.upgrades, parts.upgraded),
            SendEndpoints(own, sender, entry),
            ReceiptEndpoints(own, sender, rooms.typing_and_receipts, parts.settings),
            ReadEndpoints(own, parts.reading, rooms.directory),
            PeekEndpoints(own, parts.accounts, parts.reading),
            RelationEndpoints(parts.reading),
            self._sync,
            AccountDataEndpoints(own.ctx, parts.settings.data),
            parts.settings.push_rules,
            MutualRooms(own.ctx, own.memberships),
            Notifications(own, parts.reading, parts.settings.unread),
            KeyBackupEndpoints(backups),
            KeysEndpoints(own.ctx, users, self._sessions, self._sync),
            HierarchyEndpoints(own, entry, accessible),
            PresenceEndpoints(own, users.presences),
            OpenIdEndpoints(own, users.openid),
            self.users,
            Whois(parts.accounts, users.devices),
            self._reports,
            self._media,
        )
        self._departures = Departures(parts.accounts, entry, users.presences, backups)
        self._introductions = Introductions(own, rooms.linker, users)

    def start(self) -> None:
        """Begin what runs with the network."""
        if self._ctx.config.presence_enabled:
            self._ctx.spawn(self._sync.run_presence_loop, "presence ends")
        self._ctx.spawn(self._departures.resume, "closed accounts")
        self._ctx.spawn(self.accounts.last_seen.run_saves, "devices seen last")

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            **self.accounts.admin_commands(),
            **self.tokens.admin_commands(),
            **self._reports.admin_commands(),
        }

    def add_routes(self, router: Router) -> None:
        """Every endpoint."""
        self._http.enable_cors(router)
        for group in self._public:
            self._http.add_public(router, group.public_routes())
        self._http.add_authenticated(router, self._groups)
        self._media.add_routes(router)
        well_known = self._http.public_endpoint(self._server_info.get_well_known)
        router.add("GET", "/.well-known/matrix/client", well_known)
        tools = "/_synapse/admin/v1/register"
        router.add("GET", tools, self._http.public_endpoint(self._sessions.get_nonce))
        router.add("POST", tools, self._http.public_endpoint(self._sessions.register_with_secret))
