"""The services that several endpoint groups of the client API share."""

from __future__ import annotations

from dataclasses import dataclass

from hansa_matrix.client_api.account.account_data import AccountData
from hansa_matrix.client_api.account.push_rules import PushRuleEndpoints
from hansa_matrix.client_api.rooms.client_events import ClientEventFormatter
from hansa_matrix.client_api.rooms.pagination import RoomPaginator
from hansa_matrix.client_api.rooms.readable_rooms import ReadableRooms
from hansa_matrix.client_api.sync.unread_counts import UnreadCounter
from hansa_matrix.rooms.access.user_visibility import UserVisibility


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings:
    """The settings of users, and the unread counts that follow from them."""

    data: AccountData
    push_rules: PushRuleEndpoints
    unread: UnreadCounter


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomReading:
    """The way from a room to the events that one user gets."""

    rooms: ReadableRooms
    timeline: RoomPaginator
    visibility: UserVisibility
    formatter: ClientEventFormatter
    data: AccountData
