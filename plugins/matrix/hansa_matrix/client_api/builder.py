"""Builds what the endpoint groups of the client API stand on, in the order of their layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hansa_matrix.client_api.account.account_data import AccountData
from hansa_matrix.client_api.account.accounts import Accounts
from hansa_matrix.client_api.account.push_rules import PushRuleEndpoints
from hansa_matrix.client_api.account.upgraded_rooms import UpgradedRooms
from hansa_matrix.client_api.client_services import RoomReading, UserSettings
from hansa_matrix.client_api.http import ClientHttp
from hansa_matrix.client_api.rooms.client_events import ClientEventFormatter
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.pagination import RoomPaginator
from hansa_matrix.client_api.rooms.readable_rooms import ReadableRooms
from hansa_matrix.client_api.rooms.room_entry import RoomEntry
from hansa_matrix.client_api.sync.unread_counts import UnreadCounter
from hansa_matrix.homeserver import Homeserver
from hansa_matrix.rooms.access.user_visibility import UserVisibility


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientServices:
    """What the endpoint groups are built of."""

    accounts: Accounts
    http: ClientHttp
    settings: UserSettings
    reading: RoomReading
    sender: LocalSender
    upgraded: UpgradedRooms
    entry: RoomEntry


def build_client_services(home: Homeserver, is_ready: Callable[[], bool]) -> ClientServices:
    """Builds each part with those that it needs. ``is_ready`` is False while the rooms are not loaded."""
    own, memberships = home.own, home.local.memberships
    accounts = Accounts(own, home.users.devices)
    data = AccountData(own.ctx, home.local.stream)
    push_rules = PushRuleEndpoints(data)
    unread = UnreadCounter(own, data, push_rules, home.rooms.typing_and_receipts)
    visibility = UserVisibility(memberships, data.ignored_users)
    sender = LocalSender(own, home.users.profiles)
    upgraded = UpgradedRooms(own, data, push_rules)
    return ClientServices(
        accounts=accounts,
        http=ClientHttp(own.ctx, accounts, is_ready),
        settings=UserSettings(data=data, push_rules=push_rules, unread=unread),
        reading=RoomReading(
            rooms=ReadableRooms(own, visibility),
            timeline=RoomPaginator(own.ctx, home.local.stream, home.rooms.backfill.backfill),
            visibility=visibility,
            formatter=ClientEventFormatter(own.ctx, memberships, visibility),
            data=data,
        ),
        sender=sender,
        upgraded=upgraded,
        entry=RoomEntry(own, home.rooms, sender, upgraded),
    )
