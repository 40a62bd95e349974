"""The client API put together, and what says what this server can. SPEC: client-server API, "API Versions",
"Server Discovery", "Capabilities negotiation".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hansa import AdminCommand, CannotOpenRoom, NetworkContext, Request, Response, Router

from hansa_matrix.client_api.account.account_data import (
    AccountData,
    AccountDataEndpoints,
)
from hansa_matrix.client_api.account.accounts import Accounts, Requester
from hansa_matrix.client_api.account.departures import Departures
from hansa_matrix.client_api.account.login import LoginEndpoints
from hansa_matrix.client_api.account.profile import ProfileEndpoints
from hansa_matrix.client_api.account.push_rules import PushRuleEndpoints
from hansa_matrix.client_api.account.registration_tokens import RegistrationTokens
from hansa_matrix.client_api.account.upgraded_rooms import UpgradedRooms
from hansa_matrix.client_api.account.whois import Whois
from hansa_matrix.client_api.client_services import RoomReading, UserSettings
from hansa_matrix.client_api.http import (
    ClientHttp,
    EndpointGroup,
    Handler,
    RateLimited,
    error_from_refusal,
    get_string,
)
from hansa_matrix.client_api.introductions import Introductions
from hansa_matrix.client_api.key_backup import KeyBackupEndpoints
from hansa_matrix.client_api.keys import KeysEndpoints
from hansa_matrix.client_api.media import MediaEndpoints
from hansa_matrix.client_api.openid import OpenIdEndpoints
from hansa_matrix.client_api.presence import PresenceEndpoints
from hansa_matrix.client_api.rooms.aliases import AliasEndpoints
from hansa_matrix.client_api.rooms.client_events import ClientEventFormatter
from hansa_matrix.client_api.rooms.create_room import user_ids
from hansa_matrix.client_api.rooms.directory import PublicRoomsEndpoints, RoomVisibilityEndpoints
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.membership import RoomEndpoints
from hansa_matrix.client_api.rooms.mutual_rooms import MutualRooms
from hansa_matrix.client_api.rooms.pagination import RoomPaginator
from hansa_matrix.client_api.rooms.peeking import PeekEndpoints
from hansa_matrix.client_api.rooms.read import ReadEndpoints
from hansa_matrix.client_api.rooms.readable_rooms import ReadableRooms
from hansa_matrix.client_api.rooms.receipts import ReceiptEndpoints
from hansa_matrix.client_api.rooms.relations import RelationEndpoints
from hansa_matrix.client_api.rooms.remote_rooms import RemoteRooms
from hansa_matrix.client_api.rooms.reports import Reports
from hansa_matrix.client_api.rooms.room_entry import RoomEntry
from hansa_matrix.client_api.rooms.room_summary import AccessibleSummaries
from hansa_matrix.client_api.rooms.send import SendEndpoints
from hansa_matrix.client_api.rooms.spaces import HierarchyEndpoints
from hansa_matrix.client_api.sync.devices import DeviceSync
from hansa_matrix.client_api.sync.notifications import Notifications
from hansa_matrix.client_api.sync.rooms import RoomSync
from hansa_matrix.client_api.sync.sync import SyncEndpoint, SyncSections
from hansa_matrix.client_api.sync.unread_counts import UnreadCounter
from hansa_matrix.client_api.user_directory import UserDirectory
from hansa_matrix.errors import matrix_error
from hansa_matrix.homeserver import Homeserver
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.rooms.access.user_visibility import UserVisibility
from hansa_matrix.rooms.directory.room_summaries import RoomSummaries
from hansa_matrix.users.key_backups import KeyBackups

_SPEC_VERSIONS = ["r0.6.1", *(f"v1.{minor}" for minor in range(1, 13))]


class ClientApi:
    """Everything that a client may ask."""

    def __init__(self, home: Homeserver, is_ready: Callable[[], bool]) -> None:
        own, known, services, media = home.own, home.users, home.rooms, home.media
        client = home.federation.client
        signals, directory, backfill = services.typing_and_receipts, services.directory, services.backfill
        upgrades, entitled = services.upgrades, services.access
        ctx: NetworkContext = own.ctx
        self._ctx = ctx
        self._own = own
        self._upgrades = upgrades
        attendance, news = own.attendance, own.attendance.news
        self.accounts = Accounts(own, known.devices)
        self.tokens = RegistrationTokens(ctx)
        self._reports = Reports(ctx, attendance)
        self._door = ClientHttp(ctx, self.accounts, is_ready)
        self._voice = LocalSender(own, known.profiles)
        self._sessions = LoginEndpoints(ctx, self.accounts, known.devices, self.tokens)
        data = AccountData(ctx, news)
        visibility = UserVisibility(attendance, data.ignored)
        push = PushRuleEndpoints(data)
        settings = UserSettings(data=data, push_rules=push, unread=UnreadCounter(own, data, push, signals))
        reading = RoomReading(
            rooms=ReadableRooms(own, visibility),
            timeline=RoomPaginator(ctx, news, backfill.backfill),
            visibility=visibility,
            formatter=ClientEventFormatter(ctx, attendance, visibility),
            data=data,
        )
        upgraded = UpgradedRooms(own, data, push)
        entry = RoomEntry(own, services, self._voice, upgraded)
        spaces = RoomSummaries(entitled, directory)
        sections = SyncSections(
            rooms=RoomSync(own, services, reading, settings),
            devices=DeviceSync(own, known),
            data=data,
        )
        self._sync = sync = SyncEndpoint(own, self.accounts, known, sections)
        self._inheritance = upgraded
        self._aliases = AliasEndpoints(own, self._door, self._voice, entry)
        remote_rooms = RemoteRooms(ctx, client)
        accessible = AccessibleSummaries(own, remote_rooms, spaces, visibility)
        self._profiles = ProfileEndpoints(own, self._door, self._voice)
        self._visibility = RoomVisibilityEndpoints(own, self._door, self._voice, directory)
        self._public_rooms = PublicRoomsEndpoints(own, self._door, spaces, remote_rooms)
        backups = KeyBackups(ctx)
        self._files = MediaEndpoints(ctx, self._door, media)
        self._parts: tuple[EndpointGroup, ...] = (
            self,
            self._sessions,
            RoomEndpoints(own, services, self._voice, entry),
            self._aliases,
            SendEndpoints(own, self._voice, entry),
            ReceiptEndpoints(own, self._voice, signals, settings),
            ReadEndpoints(own, reading, directory),
            PeekEndpoints(own, self.accounts, reading),
            RelationEndpoints(reading),
            sync,
            AccountDataEndpoints(ctx, data),
            push,
            MutualRooms(ctx, attendance),
            Notifications(own, reading, settings.unread),
            KeyBackupEndpoints(backups),
            KeysEndpoints(ctx, known, self._sessions, sync),
            self._profiles,
            self._visibility,
            self._public_rooms,
            HierarchyEndpoints(own, entry, accessible),
            PresenceEndpoints(own, known.presences),
            OpenIdEndpoints(own, known.openid),
            UserDirectory(own, self.accounts, known.profiles, directory),
            Whois(self.accounts, known.devices),
            self._files,
        )

        self._departures = Departures(self.accounts, entry, known.presences, backups)
        Introductions(own, services.linker, known)

    def start(self) -> None:
        """Begin what runs with the network."""
        if self._ctx.config.presence_enabled:
            self._ctx.spawn(self._sync.expire, "presence ends")
        self._ctx.spawn(self._departures.resume, "closed accounts")
        self._ctx.spawn(self.accounts.last_seen.run, "devices seen last")

    def operations(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            **self.accounts.operations(),
            **self.tokens.operations(),
            **self._reports.operations(),
        }

    def register(self, router: Router) -> None:
        """Every endpoint."""
        self._door.enable_cors(router)
        self._door.open(
            router,
            {
                ("GET", "/versions"): self.versions,
                **self._aliases.open(),
                **self._sessions.open(),
                **self._profiles.open(),
                **self._visibility.open(),
                **self._public_rooms.open(),
            },
        )
        self._door.add_authenticated(router, self._parts)
        self._files.register(router)
        router.add("GET", "/.well-known/matrix/client", self._door.anybody(self.well_known))
        tools = "/_synapse/admin/v1/register"
        router.add("GET", tools, self._door.anybody(self._sessions.nonce))
        router.add("POST", tools, self._door.anybody(self._sessions.by_secret))

    def table(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.table``."""
        return {
            ("GET", "/v3/capabilities"): self.capabilities,
            ("POST", "/v3/rooms/{room}/upgrade"): RateLimited(self.upgrade),
            ("GET", "/v3/voip/turnServer"): self._get_empty,
            ("GET", "/v3/thirdparty/protocols"): self._get_empty,
            ("GET", "/v3/pushers"): self._get_pushers,
            ("POST", "/v3/rooms/{room}/report"): RateLimited(self._reports.room),
            ("POST", "/v3/rooms/{room}/report/{event}"): RateLimited(self._reports.event),
            ("POST", "/v3/users/{user}/report"): RateLimited(self._reports.user),
        }

    async def versions(self, _request: Request, _body: Any) -> Any:
        """``GET /versions``."""
        return {"versions": _SPEC_VERSIONS, "unstable_features": {"org.matrix.msc4222": True}}

    async def well_known(self, _request: Request, _body: Any) -> Response | dict[str, Any]:
        """``GET /.well-known/matrix/client``."""
        base = self._ctx.config.public_base_url
        if not base:
            raise matrix_error(404, "M_NOT_FOUND", "this server does not say where clients are to go")
        return {"m.homeserver": {"base_url": base}}

    async def capabilities(self, _caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /capabilities``."""
        default = self._ctx.config.room_version
        return {
            "capabilities": {
                "m.room_versions": {"default": default, "available": dict.fromkeys(VERSIONS, "stable")},
                "m.change_password": {"enabled": True},
                "m.set_displayname": {"enabled": True},
                "m.set_avatar_url": {"enabled": True},
                "m.3pid_changes": {"enabled": False},
                "m.get_login_token": {"enabled": False},
                "m.profile_fields": {"enabled": True},
            }
        }

    async def upgrade(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/upgrade``."""
        version = get_string(body, "new_version")
        if version not in VERSIONS:
            raise matrix_error(400, "M_UNSUPPORTED_ROOM_VERSION", "the room version is not supported")
        room = self._voice.joined(caller.user, request.path["room"])
        supported = VERSIONS[version].privileged_creators
        creators = user_ids(body, "additional_creators") if supported else []
        try:
            replacement = await self._upgrades.replace(room, version, caller.user, creators)
        except CannotOpenRoom as problem:
            raise error_from_refusal(problem.refusal) from problem
        await self._inheritance.take(caller.user, replacement)
        return {"replacement_room": replacement}

    async def _get_empty(self, *_: Any) -> Any:
        return {}

    async def _get_pushers(self, *_: Any) -> Any:
        return {"pushers": []}
