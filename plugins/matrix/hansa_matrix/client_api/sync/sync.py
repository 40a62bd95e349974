"""The ``/sync`` endpoint. SPEC: client-server API, "Syncing".

1. The access token is checked (``client_api/http.py``). The ``since`` token and the filter are read
   (``client_api/sync/request.py``, ``client_api/sync/filters.py``).
2. The messages to the device that ``since`` confirms are removed (``users/to_device.py``), and the presence
   is set (``users/presence.py``).
3. The request subscribes to the user's topics before it reads, so that an event in between wakes it
   (``local/client_stream.py``).
4. The stream items after ``since`` are read (``local/client_stream.py``), with the user's memberships
   (``local/memberships.py``).
5. The room part has the rooms with such items, each by membership (``client_api/sync/rooms.py``): timeline
   and state (``client_api/sync/timeline.py``), unread counts (``client_api/sync/unread_counts.py``), typing
   and receipts (``rooms/typing_and_receipts.py``).
6. The device part has messages, key counts and device lists (``client_api/sync/devices.py``).
7. Account data (``client_api/account/account_data.py``) and presence (``users/presence.py``) complete the
   answer.
8. An empty answer waits for news until the time-out. Then the token is checked again
   (``client_api/account/accounts.py``), and the steps from 3 on are repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hansa import NetworkContext, Request, Response

from hansa_matrix.client_api.account.account_data import AccountData
from hansa_matrix.client_api.account.accounts import Accounts, Requester
from hansa_matrix.client_api.http import Handler, RateLimited, get_int
from hansa_matrix.client_api.sync.devices import DeviceSync
from hansa_matrix.client_api.sync.filters import SyncFilter, parse_in_query
from hansa_matrix.client_api.sync.request import (
    MAX_ITEMS,
    SyncRequest,
    SyncToken,
    UserTopics,
    format_sync_token,
    parse_sync_token,
)
from hansa_matrix.client_api.sync.rooms import RoomSync
from hansa_matrix.client_api.sync.stored_filters import StoredFilters
from hansa_matrix.errors import json_response, matrix_error
from hansa_matrix.local.client_stream import StreamItem
from hansa_matrix.proto.edus import PresenceEdu
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.users.user_services import Users

_MAX_TIMEOUT_S = 120.0
#: Seconds after the last sync until a user counts as offline.
_OFFLINE_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSections:
    """The parts of an answer, and what is read for several of them."""

    rooms: RoomSync
    devices: DeviceSync
    data: AccountData


class SyncEndpoint:
    """``GET /sync``."""

    def __init__(self, own: LocalServer, accounts: Accounts, users: Users, sections: SyncSections) -> None:
        self._ctx: NetworkContext = own.ctx
        self._attendance = own.memberships
        self._news = own.memberships.news
        self._accounts = accounts
        self._known = users
        self._data = sections.data
        self._notifier = own.notifier
        self._of_rooms = sections.rooms
        self._of_devices = sections.devices
        #: How many syncs of a person are under way, and when (s) the last one ended.
        self._asking: dict[str, int] = {}
        self._seen: dict[str, float] = {}

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("GET", "/v3/sync"): self.get_sync}

    async def get_sync(self, caller: Requester, request: Request, _body: Any) -> Response:
        """Answer at once where there is news, else when there is some or time is up."""
        since = parse_sync_token(request.first("since"), caller)
        if max(since.position, since.device) > await self._news.now():
            # Of a store that was set back, or of elsewhere: what happened since then nobody has been told.
            since = SyncToken()
        wanted = await self._load_filter(caller, request.first("filter"))
        full = request.first("full_state") == "true"
        after = "true" in {
            request.first("use_state_after"),
            request.first("org.matrix.msc4222.use_state_after"),
        }
        state = request.first("set_presence", "online")
        await self._set_online(caller.user, state)
        seconds = min(get_int(request, "timeout", 0, 10**9) / 1000, _MAX_TIMEOUT_S)
        until = self._ctx.clock.monotonic() + seconds
        if since.device > 0:
            await self._known.messages.delete_upto(caller.user, caller.device, since.device)
        if state == "offline":
            return await self._long_poll(caller, since, wanted, until, full=full, after=after)
        with self._track_active(caller.user):
            return await self._long_poll(caller, since, wanted, until, full=full, after=after)

    async def _long_poll(
        self,
        caller: Requester,
        since: SyncToken,
        wanted: SyncFilter,
        until: float,
        *,
        full: bool,
        after: bool,
    ) -> Response:
        while True:
            with self._news.subscribe_to([caller.user]) as happened:
                answer, news = await self._build_answer(caller, since, wanted, full=full, after=after)
                left = until - self._ctx.clock.monotonic()
                if news or full or since.position < 0 or left <= 0:
                    return json_response(answer)
                try:
                    async with asyncio.timeout(left):
                        await happened.wait()
                except TimeoutError:
                    return json_response(answer)
            if not await self._accounts.is_token_valid(caller):
                raise matrix_error(401, "M_UNKNOWN_TOKEN", "the device was logged out", soft_logout=False)

    @contextmanager
    def _track_active(self, user: str) -> Iterator[None]:
        """Counts a sync of a user that is in progress."""
        self._asking[user] = self._asking.get(user, 0) + 1
        try:
            yield
        finally:
            left = self._asking.pop(user) - 1
            if left:
                self._asking[user] = left
            self._seen[user] = self._ctx.clock.monotonic()

    async def run_presence_loop(self) -> None:
        """Runs with the network where presence is told: whose client asks no more is gone."""
        while True:
            await asyncio.sleep(_OFFLINE_AFTER_S / 2)
            await self.mark_offline()

    async def mark_offline(self) -> None:
        """Tell of those who are gone."""
        now = self._ctx.clock.monotonic()
        for user in [
            u for u, at in self._seen.items() if at + _OFFLINE_AFTER_S <= now and u not in self._asking
        ]:
            del self._seen[user]
            known = self._known.presences.get(user)
            if known is not None and known.presence != "offline":
                await self._known.presences.set_local(replace(known, presence="offline", active=False))

    async def _set_online(self, user: str, state: str) -> None:
        """Sets a syncing user online, unless the client sets another presence."""
        if state not in {"online", "offline", "unavailable"}:
            raise matrix_error(400, "M_INVALID_PARAM", "set_presence is online, offline or unavailable")
        if state == "offline":
            return
        presences = self._known.presences
        known = presences.get(user)
        if (
            self._ctx.config.presence_enabled
            and (known.presence if known is not None else "offline") != state
        ):
            status = known.status if known is not None else ""
            one = PresenceEdu(user=user, presence=state, active=state == "online", status=status)
            await presences.set_local(one)

    async def _load_filter(self, caller: Requester, given: str) -> SyncFilter:
        if not given:
            return SyncFilter()
        if given.startswith("{"):
            return SyncFilter.from_query(given)
        kept = await StoredFilters(self._ctx).get(caller.user, given)
        if kept is None:
            raise matrix_error(400, "M_INVALID_PARAM", "there is no such filter")
        return parse_in_query(SyncFilter.from_json, kept.decode())

    async def _build_answer(
        self, caller: Requester, since: SyncToken, wanted: SyncFilter, *, full: bool, after: bool
    ) -> tuple[dict[str, Any], bool]:
        """The answer, and whether it says anything."""
        upto = await self._news.now()
        typing = self._notifier.changes
        if since.typing > typing:  # counted by a process of before
            since = SyncToken(since.position, device=since.device)
        stays = self._attendance.memberships_of(caller.user)
        news: dict[str, Sequence[StreamItem]] = {}
        if since.position >= 0:
            news = await self._news.items_between(
                since.position, upto, UserTopics(caller.user, stays), MAX_ITEMS
            )
        whole = await self._data.get_all(caller.user) if since.position < 0 or full else {}
        asked = SyncRequest(
            caller=caller,
            since=since,
            upto=upto,
            filter=wanted,
            full_state=full,
            use_state_after=after,
            ignored=await self._data.ignored_users(caller.user),
            items=news,
            data=whole,
        )
        if asked.membership_changes:
            stays = {**stays, **await self._attendance.as_kept(caller.user, asked.membership_changes)}
        rooms = await self._of_rooms.build_room_part(asked, stays)
        data = await self._of_rooms.account_data(asked, "")
        device = await self._of_devices.build_device_part(asked)
        answer: dict[str, Any] = {
            "next_batch": format_sync_token(upto, typing, device.upto, caller),
            **device.fields,
        }
        if rooms:
            answer["rooms"] = rooms
        if data:
            answer["account_data"] = {"events": data}
        presence = self._presence_events(asked, device.met)
        if presence:
            answer["presence"] = {"events": presence}
        answer |= device.changes
        return answer, bool(rooms or data or presence or device.changes)

    async def get_key_changes(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /keys/changes``: as in a sync, between two tokens."""
        since, upto = (
            parse_sync_token(request.first("from"), caller),
            parse_sync_token(request.first("to"), caller),
        )
        if since.position < 0:
            raise matrix_error(400, "M_MISSING_PARAM", "from is missing")
        now = await self._news.now()
        end = min(upto.position, now) if upto.position >= 0 else now
        topics = UserTopics(caller.user, self._attendance.memberships_of(caller.user))
        news = await self._news.items_between(since.position, end, topics, MAX_ITEMS)
        asked = SyncRequest(
            caller=caller,
            since=since,
            upto=end,
            filter=SyncFilter(),
            full_state=False,
            use_state_after=False,
            ignored=frozenset(),
            items=news,
        )
        return await self._of_devices.device_lists(asked)

    def _presence_events(self, asked: SyncRequest, met: Collection[str]) -> list[dict[str, Any]]:
        """Returns the presence of users in common rooms that changed, or of users that are ``met``."""
        if not self._ctx.config.presence_enabled or not asked.filter.presence.matches_type("m.presence"):
            return []
        found: list[dict[str, Any]] = []
        for one in self._known.presences.get_all():
            news = asked.since.position < 0 or self._notifier.changed_in.get(one.user, 0) > asked.since.typing
            if not (news or one.user in met) or not asked.filter.presence.matches_fields(
                "m.presence", one.user
            ):
                continue
            if one.user != asked.caller.user and not self._attendance.share_a_room(
                asked.caller.user, self._known.presences.home_of(one.user)
            ):
                continue
            content = {
                "presence": one.presence,
                "currently_active": one.active,
                "last_active_ago": one.last_active_ago,
            }
            content |= {"status_msg": one.status} if one.status else {}
            found.append({"type": "m.presence", "sender": one.user, "content": content})
        return found
