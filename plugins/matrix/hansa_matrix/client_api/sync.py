"""What happened since a client asked last. SPEC: client-server API, "Syncing".

A token is a position of the store's one sequence, the count of changes of who types, and the position of the
last message to the device: ``s12_3_9``. Whoever has it has been told of everything up to there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from hansa import Membership, NetworkContext, Ref, Request, Response

from hansa_matrix.client_api.accounts import Accounts, Caller
from hansa_matrix.client_api.data import PUSH_RULES, UserData
from hansa_matrix.client_api.door import Handler, Limited, number
from hansa_matrix.client_api.filters import EventFilter, SyncFilter, parsed
from hansa_matrix.client_api.push import PushRules
from hansa_matrix.client_api.shapes import Shapes, state_shapes, stripped
from hansa_matrix.client_api.timeline import Place
from hansa_matrix.client_api.unread import Unread
from hansa_matrix.client_api.visibility import Visibility, without
from hansa_matrix.federation.server import error, json_response
from hansa_matrix.proto.edus import PresenceEdu
from hansa_matrix.proto.event import StateKey
from hansa_matrix.proto.state_keys import MEMBER
from hansa_matrix.room.attendance import Attendance, Stay
from hansa_matrix.room.events import Stored
from hansa_matrix.room.invites import SHOWN
from hansa_matrix.room.news import DEVICES, RECEIPTS, Item
from hansa_matrix.room.pending import Pending
from hansa_matrix.room.room import MatrixRoom
from hansa_matrix.room.signals import PRIVATE, RoomSignals
from hansa_matrix.users.known import Known

_TOKEN = re.compile(
    r"s(?P<position>[0-9]{1,18})(?:_(?P<typing>[0-9]{1,18}))?(?:_(?P<device>[0-9]{1,18}))?", re.ASCII
)
_LONGEST = 120.0
_HEROES, _TO_DEVICE = 5, 100
#: Personal news that are looked at; whoever missed more is given everything anew.
_MOST_NEWS = 10_000


@dataclass(frozen=True, slots=True)
class Since:
    """How far a client is; ``position`` is -1 for one that knows nothing. ``device``: it has the messages to
    its device up to there, which may be less, as those come some at a time.
    """

    position: int = -1
    typing: int = 0
    device: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One sync: who asks, what they want, and what happened between two positions."""

    caller: Caller
    since: Since
    upto: int
    wanted: SyncFilter
    full: bool
    after: bool
    ignored: frozenset[str]
    news: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    #: All account data by room, where it is all wanted.
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether state is given whole."""
        return self.full or self.since.position < 0


class _Concerning:
    """The topics that one person is told of: themselves, devices, and the rooms that they are in."""

    def __init__(self, user: str, stays: Mapping[str, Stay]) -> None:
        self._user, self._stays = user, stays

    def __contains__(self, topic: str) -> bool:
        if topic in {self._user, DEVICES}:
            return True
        stay = self._stays.get(topic.removeprefix(RECEIPTS))
        return stay is not None and stay.membership == "join"

    def __iter__(self) -> Iterator[str]:
        yield self._user
        yield DEVICES
        for stay in self._stays.values():
            if stay.membership == "join":
                yield stay.room_id
                yield RECEIPTS + stay.room_id

    def __len__(self) -> int:
        return 2 + 2 * len(self._stays)


@dataclass(frozen=True, slots=True)
class _Device:
    """What a sync says of devices: at every time, and as news; and up to where messages to it are in."""

    always: dict[str, Any]
    news: dict[str, Any]
    upto: int


def since_of(token: str) -> Since:
    """Raises the error answer of what is no token of ours."""
    if not token:
        return Since()
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise error(400, "M_INVALID_PARAM", "that is no token of this server")
    position = int(match["position"])
    return Since(position, int(match["typing"] or 0), int(match["device"] or position))


class Sync:
    """``GET /sync``."""

    def __init__(  # noqa: PLR0917  # a sync is of everything
        self,
        ctx: NetworkContext,
        attendance: Attendance,
        visibility: Visibility,
        shapes: Shapes,
        data: UserData,
        known: Known,
        signals: RoomSignals,
        pending: Pending,
        unread: Unread,
        accounts: Accounts,
        push: PushRules,
        rooms: Mapping[str, MatrixRoom],
    ) -> None:
        self._ctx = ctx
        self._attendance = attendance
        self._news = attendance.news
        self._visibility = visibility
        self._shapes = shapes
        self._data = data
        self._known = known
        self._signals = signals
        self._pending = pending
        self._unread = unread
        self._accounts = accounts
        self._push = push
        self._rooms = rooms

    def table(self) -> Mapping[tuple[str, str], Handler | Limited]:
        """See ``door.Part.table``."""
        return {("GET", "/v3/sync"): self.sync}

    async def sync(self, caller: Caller, request: Request, _body: Any) -> Response:
        """Answer at once where there is news, else when there is some or time is up."""
        since = since_of(request.first("since"))
        wanted = await self._filter(caller, request.first("filter"))
        full = request.first("full_state") == "true"
        after = "true" in {
            request.first("use_state_after"),
            request.first("org.matrix.msc4222.use_state_after"),
        }
        self._there(caller.user, request.first("set_presence", "online"))
        seconds = min(number(request, "timeout", 0, 10**9) / 1000, _LONGEST)
        until = self._ctx.clock.monotonic() + seconds
        if since.device > 0:
            await self._known.messages.delivered(caller.user, caller.device, since.device)
        while True:
            with self._news.listening([caller.user]) as happened:
                answer, news = await self._answer(caller, since, wanted, full=full, after=after)
                left = until - self._ctx.clock.monotonic()
                if news or full or since.position < 0 or left <= 0:
                    return json_response(answer)
                try:
                    async with asyncio.timeout(left):
                        await happened.wait()
                except TimeoutError:
                    return json_response(answer)
            if not await self._accounts.holds(caller):
                raise error(401, "M_UNKNOWN_TOKEN", "the device was logged out", soft_logout=False)

    def _there(self, user: str, state: str) -> None:
        """Whoever syncs is there, unless they say otherwise."""
        if state not in {"online", "offline", "unavailable"}:
            raise error(400, "M_INVALID_PARAM", "set_presence is online, offline or unavailable")
        presences = self._known.presences
        known = presences.of(user)
        if self._ctx.config.presence and (known.presence if known is not None else "offline") != state:
            status = known.status if known is not None else ""
            presences.tell(PresenceEdu(user=user, presence=state, active=state == "online", status=status))

    async def _filter(self, caller: Caller, given: str) -> SyncFilter:
        if not given:
            return SyncFilter()
        if given.startswith("{"):
            return SyncFilter.of(parsed(given))
        row = await self._ctx.store.get("filter", (caller.user, given))
        if row is None:
            raise error(400, "M_INVALID_PARAM", "there is no such filter")
        return SyncFilter.of(orjson.loads(row.body))

    async def _answer(
        self, caller: Caller, since: Since, wanted: SyncFilter, *, full: bool, after: bool
    ) -> tuple[dict[str, Any], bool]:
        """The answer, and whether it says anything."""
        upto = await self._news.now()
        typing = self._signals.changes
        if since.typing > typing:  # counted by a process of before
            since = Since(since.position, device=since.device)
        stays = self._attendance.stays(caller.user)
        news: dict[str, Sequence[Item]] = {}
        if since.position >= 0:
            news = await self._news.between(since.position, upto, _Concerning(caller.user, stays), _MOST_NEWS)
        whole = await self._data.whole(caller.user) if since.position < 0 or full else {}
        asked = _Asked(
            caller=caller,
            since=since,
            upto=upto,
            wanted=wanted,
            full=full,
            after=after,
            ignored=await self._data.ignored(caller.user),
            news=news,
            data=whole,
        )
        personal = news.get(caller.user, ())
        moved = {item.ref for item in personal if item.ref.startswith("!")}
        if moved:
            stays = {**stays, **await self._attendance.as_kept(caller.user, moved)}
        rooms = await self._all_rooms(asked, stays, moved)
        data = await self._account_data(asked, "")
        device = await self._devices(asked, moved)
        answer: dict[str, Any] = {"next_batch": f"s{upto}_{typing}_{device.upto}", **device.always}
        if rooms:
            answer["rooms"] = rooms
        if data:
            answer["account_data"] = {"events": data}
        presence = self._presence(asked)
        if presence:
            answer["presence"] = {"events": presence}
        answer |= device.news
        return answer, bool(rooms or data or presence or device.news)

    async def _all_rooms(
        self, asked: _Asked, stays: Mapping[str, Stay], moved: set[str]
    ) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for stay in list(stays.values()) if asked.whole else self._stirred(asked, stays, moved):
            if not asked.wanted.rooms.room(stay.room_id):
                continue
            kind, shown = "", None
            if stay.membership == "join":
                kind, shown = "join", await self._joined(asked, stay, new=stay.room_id in moved)
            elif stay.membership == "invite" and (asked.whole or stay.room_id in moved):
                if stay.sender not in asked.ignored:
                    kind, shown = "invite", {"invite_state": {"events": await self._stripped(asked, stay)}}
            elif stay.membership == "knock" and (asked.whole or stay.room_id in moved):
                kind, shown = "knock", {"knock_state": {"events": await self._stripped(asked, stay)}}
            elif stay.membership in {"leave", "ban"}:
                kind = "leave"
                if stay.room_id in moved or (asked.whole and asked.wanted.include_leave):
                    shown = await self._left(asked, stay)
            if shown is not None:
                found.setdefault(kind, {})[stay.room_id] = shown
        return found

    def _stirred(self, asked: _Asked, stays: Mapping[str, Stay], moved: set[str]) -> list[Stay]:
        """How one stands to the rooms of which there is something to tell."""
        rooms = set(moved)
        for topic, items in asked.news.items():
            rooms.add(topic.removeprefix(RECEIPTS))
            if topic == asked.caller.user:
                rooms.update(item.ref.split(" ")[1] for item in items if " " in item.ref)
        if asked.since.typing < self._signals.changes:
            changed = self._signals.changed_in
            rooms.update(room_id for room_id in stays if changed.get(room_id, 0) > asked.since.typing)
        return [stays[room_id] for room_id in sorted(rooms) if room_id in stays]

    async def _joined(self, asked: _Asked, stay: Stay, *, new: bool) -> dict[str, Any] | None:
        """A room that one is in; None if there is nothing to tell."""
        room_id = stay.room_id
        room = self._rooms.get(room_id)
        if room is None:
            return None
        typing = asked.whole or self._signals.changed_in.get(room_id, 0) > asked.since.typing
        receipts = {item.ref for item in asked.news.get(RECEIPTS + room_id, ())}
        if any(item.ref == f"read {room_id}" for item in asked.news.get(asked.caller.user, ())):
            receipts.add(asked.caller.user)
        items = asked.news.get(room_id, ())
        data = await self._account_data(asked, room_id)
        if not (asked.whole or new or items or typing or receipts or data):
            return None
        entered = new and await self._entered(asked, room, stay)
        whole = asked.whole or entered
        shown: dict[str, Any] = {}
        timeline, state = await self._events(asked, room, items, whole=whole)
        shown["timeline"] = timeline
        shown |= state
        ephemeral: list[dict[str, Any]] = []
        who = self._signals.typing_in(room_id) if typing else []
        if typing and (who or not whole) and asked.wanted.ephemeral.named("m.typing"):
            ephemeral.append({"type": "m.typing", "content": {"user_ids": who}})
        if (whole or receipts) and asked.wanted.ephemeral.named("m.receipt"):
            ephemeral += await self._receipts(asked, room_id, None if whole else receipts)
        shown["ephemeral"] = {"events": ephemeral}
        shown["account_data"] = {
            "events": await self._account_data(asked, room_id, whole=True) if entered else data
        }
        people = whole or any(e.get("type") == MEMBER for e in timeline["events"]) or bool(state)
        shown["summary"] = await self._summary(asked, room) if people else {}
        counts = await self._unread.of(asked.caller.user, room, asked.upto)
        shown["unread_notifications"] = counts.shown()
        return shown

    async def _entered(self, asked: _Asked, room: MatrixRoom, stay: Stay) -> bool:
        """Whether one came in since the last time: then one knows nothing of the room yet."""
        if asked.since.position < 0:
            return True
        member = (await room.events.load([stay.event_id], room.version)).get(stay.event_id)
        if member is None:
            return True
        key = (MEMBER, asked.caller.user)
        position = await self._news.of(room.room_id, stay.event_id)
        if position and position <= asked.since.position:
            return False
        # Another name is a member event too: who was in the room at the last time knows it.
        items = await self._news.last(room.room_id, asked.since.position + 1, 1)
        if not items:
            return True
        state = await room.groups.load(items[0].state)
        before = (await room.events_of(state, [key])).get(key)
        return before is None or before.membership != "join"

    async def _events(
        self, asked: _Asked, room: MatrixRoom, items: Sequence[Item], *, whole: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The timeline, and the state before it or after it."""
        most = asked.wanted.timeline.limit
        if whole:
            items = await self._news.last(room.room_id, asked.upto + 1, most + 1)
        limited = len(items) > most or (whole and bool(items) and items[0].position > 0)
        kept = items[max(0, len(items) - most) :] if most else []
        loaded = await room.events.load([item.ref for item in kept], room.version)
        events = [loaded[item.ref] for item in kept if item.ref in loaded]
        visible = without(await self._visibility.of(asked.caller.user, room, events), asked.ignored)
        timeline = [one for one in visible if asked.wanted.timeline.takes(one.pdu)]
        if whole:
            limited = len(items) > most or not any(e.pdu.type == "m.room.create" for e in events)
        start = kept[0].position - 1 if kept else asked.upto
        body: dict[str, Any] = {
            "events": await self._shapes.of(asked.caller, room, timeline, room_id=False),
            "limited": limited,
            "prev_batch": str(Place(position=start)),
        }
        state = await self._state(asked, room, events, items, whole=whole)
        if asked.wanted.state.lazy or not asked.wanted.state.open:
            state = await self._chosen(asked, room, state, timeline)
        shown = state_shapes(await room.state_events(state), self._ctx.clock.now(), room_id=False)
        if asked.after:
            name = "state_after"
            return body, {name: {"events": shown}, "org.matrix.msc4222.state_after": {"events": shown}}
        return body, {"state": {"events": shown}} if shown or whole else {}

    async def _state(
        self, asked: _Asked, room: MatrixRoom, events: Sequence[Stored], items: Sequence[Item], *, whole: bool
    ) -> dict[StateKey, str]:
        """What a client lacks to have the state: before the timeline, or with ``state_after`` behind it."""
        last = items[-1:] or await self._news.last(room.room_id, asked.upto + 1, 1)
        now = await room.groups.load(last[0].state) if last else await room.state()
        known: Mapping[StateKey, str] = {}
        if not whole:
            before = await self._news.last(room.room_id, asked.since.position + 1, 1)
            if before:
                known = await room.groups.load(before[0].state)
            elif events:
                known = await room.groups.load(events[0].before)
        if asked.after:
            return {key: e for key, e in now.items() if known.get(key) != e}
        if not events:
            return {key: e for key, e in now.items() if known.get(key) != e}
        start = await room.groups.load(events[0].before)
        lacking = {key: e for key, e in start.items() if known.get(key) != e}
        told = {one.pdu.key for one in events if one.pdu.state_key is not None}
        # What a resolution changed stands in no timeline.
        lacking |= {k: e for k, e in now.items() if k not in told and known.get(k) != e}
        return lacking

    async def _chosen(
        self, asked: _Asked, room: MatrixRoom, state: Mapping[StateKey, str], timeline: Sequence[Stored]
    ) -> dict[StateKey, str]:
        """Of a state what a client wants: with ``lazy_load_members`` of the people those who speak."""
        wanted = asked.wanted.state
        found = {k: e for k, e in state.items() if wanted.named(k[0], room_id=room.room_id)}
        if not wanted.lazy:
            return found
        speak = {one.pdu.sender for one in timeline} | {asked.caller.user}
        now = await room.state()
        kept = {k: e for k, e in found.items() if k[0] != MEMBER or k[1] in speak}
        if wanted.named(MEMBER, room_id=room.room_id):
            before = await room.groups.load(timeline[0].before) if timeline and not asked.after else now
            kept |= {(MEMBER, user): before[MEMBER, user] for user in speak if (MEMBER, user) in before}
        if not asked.whole:
            own = {one.pdu.event_id for one in timeline}
            kept = {k: e for k, e in kept.items() if e not in own or asked.after}
        return kept

    async def _summary(self, asked: _Asked, room: MatrixRoom) -> dict[str, Any]:
        view = self._ctx.view(room.room_id)
        if view is None:
            return {}
        counts = {"join": 0, "invite": 0}
        for person in view.people.values():
            if person.membership in {Membership.JOIN, Membership.INVITE}:
                counts[person.membership.value] += 1
        summary: dict[str, Any] = {
            "m.joined_member_count": counts["join"],
            "m.invited_member_count": counts["invite"],
        }
        state = await room.state()
        if ("m.room.name", "") not in state and ("m.room.canonical_alias", "") not in state:
            summary["m.heroes"] = await self._heroes(asked.caller.user, room, state)
        return summary

    @staticmethod
    async def _heroes(user: str, room: MatrixRoom, state: Mapping[StateKey, str]) -> list[str]:
        """Whose names make the name of a room that has none: those who are in it, or else were."""
        others = [key for key in state if key[0] == MEMBER and key[1] != user][: _HEROES * 10]
        members = await room.events_of(state, others)
        here = [k[1] for k in others if k in members and members[k].membership in {"join", "invite"}]
        gone = [k[1] for k in others if k in members and members[k].membership in {"leave", "ban"}]
        return (here or gone)[:_HEROES]

    async def _receipts(self, asked: _Asked, room_id: str, users: set[str] | None) -> list[dict[str, Any]]:
        """Of some people, or of all."""
        found: dict[tuple[str, str], tuple[str, int]] = {}
        if users is None:
            found = dict(await self._signals.receipts(room_id))
        else:
            for user in users:
                found |= await self._signals.receipts(room_id, user)
        content: dict[str, dict[str, dict[str, Any]]] = {}
        for (user, thread), (event_id, ts) in found.items():
            private = thread.startswith(PRIVATE)
            if (private and user != asked.caller.user) or user in asked.ignored:
                continue
            name = thread.removeprefix(PRIVATE)
            kind = "m.read.private" if private else "m.read"
            entry = {"ts": ts} | ({"thread_id": name} if name else {})
            content.setdefault(event_id, {}).setdefault(kind, {})[user] = entry
        return [{"type": "m.receipt", "content": content}] if content else []

    async def _account_data(
        self, asked: _Asked, room_id: str, *, whole: bool = False
    ) -> list[dict[str, Any]]:
        wanted: EventFilter = asked.wanted.room_data if room_id else asked.wanted.data
        if asked.whole or whole:
            if asked.whole:
                found = dict(asked.data.get(room_id, {}))
            else:
                found = await self._data.every(asked.caller.user, room_id)
            if not room_id:
                found[PUSH_RULES] = {"global": await self._push.of(asked.caller.user)}
        else:
            prefix = f"data {room_id} "
            personal = asked.news.get(asked.caller.user, ())
            types = {i.ref.removeprefix(prefix) for i in personal if i.ref.startswith(prefix)}
            values = {t: await self._data.get(asked.caller.user, room_id, t) for t in types}
            found = {t: v for t, v in values.items() if v is not None}
        return [{"type": t, "content": c} for t, c in found.items() if wanted.named(t)]

    async def _stripped(self, asked: _Asked, stay: Stay) -> Sequence[Mapping[str, Any]]:
        """What somebody who is asked in is shown of a room."""
        waiting = await self._pending.get(stay.room_id, asked.caller.user)
        if waiting is not None:
            names = ("type", "state_key", "content", "sender", "origin_server_ts")
            own = await self._pending.event(stay.room_id, asked.caller.user)
            shown = [{k: one[k] for k in names if k in one} for one in (*waiting.shown, own)]
            return [one for one in shown if isinstance(one.get("type"), str) and "state_key" in one]
        room = self._rooms.get(stay.room_id)
        if room is None:
            return []
        keys = [*SHOWN, (MEMBER, stay.sender), (MEMBER, asked.caller.user)]
        found = await room.events_of(await room.state(), keys)
        return [stripped(found[key]) for key in dict.fromkeys(keys) if key in found]

    async def _left(self, asked: _Asked, stay: Stay) -> dict[str, Any] | None:
        """A room that one is not in any more: up to the moment when that happened."""
        room = self._rooms.get(stay.room_id)
        empty: dict[str, Any] = {"timeline": {"events": [], "limited": False}}
        if room is None:
            return empty
        position = await self._news.of(room.room_id, stay.event_id) if stay.event_id else 0
        if not position:
            return empty
        most = max(1, asked.wanted.timeline.limit)
        items = await self._news.last(room.room_id, position + 1, most, since=max(0, asked.since.position))
        loaded = await room.events.load([item.ref for item in items], room.version)
        events = [loaded[item.ref] for item in items if item.ref in loaded]
        visible = without(await self._visibility.of(asked.caller.user, room, events), asked.ignored)
        start = items[0].position - 1 if items else position
        return {
            "timeline": {
                "events": await self._shapes.of(asked.caller, room, visible, room_id=False),
                "limited": len(items) >= most,
                "prev_batch": str(Place(position=start)),
            },
            "state": {"events": []},
            "account_data": {"events": []},
        }

    async def _devices(self, asked: _Asked, moved: Iterable[str]) -> _Device:
        """Messages to the device, keys that are left, and whose devices have changed."""
        user, device = asked.caller.user, asked.caller.device
        always: dict[str, Any] = {
            "device_one_time_keys_count": await self._known.devices.counts(user, device),
            "device_unused_fallback_key_types": await self._known.devices.unused_fallback(user, device),
        }
        news: dict[str, Any] = {}
        waiting = await self._known.messages.waiting(user, device, asked.since.device, _TO_DEVICE)
        waiting = [one for one in waiting if one.position <= asked.upto]
        if waiting:
            news["to_device"] = {"events": [one.event for one in waiting]}
        if asked.since.position >= 0:
            lists = await self._lists(asked, moved)
            if any(lists.values()):
                news["device_lists"] = lists
        upto = waiting[-1].position if len(waiting) == _TO_DEVICE else asked.upto
        return _Device(always, news, upto)

    async def _lists(self, asked: _Asked, moved: Iterable[str]) -> dict[str, list[str]]:
        """Of people in common rooms whose keys changed or whom one meets now, and who is met no more."""
        user = asked.caller.user
        named = {item.ref for item in asked.news.get(DEVICES, ())}
        changed = {other for other in named if other == user or self._share(user, other)}
        left: set[str] = set()
        for room_id in moved:
            stay = self._attendance.stay(user, room_id)
            room = self._rooms.get(room_id)
            if stay is None or room is None:
                continue
            people = await self._people(room)
            if stay.membership == "join":
                changed |= people - {user}
            else:
                left |= {other for other in people if not self._share(user, other)}
        for room_id, items in asked.news.items():
            room = self._rooms.get(room_id)
            stay = self._attendance.stay(user, room_id)
            if room is None or stay is None or stay.membership != "join" or room_id in moved:
                continue
            loaded = await room.events.load([item.ref for item in items], room.version)
            for one in loaded.values():
                other = one.pdu.state_key
                if one.pdu.type != MEMBER or not other or other == user:
                    continue
                if one.pdu.membership == "join":
                    changed.add(other)
                elif one.pdu.membership in {"leave", "ban"} and not self._share(user, other):
                    left.add(other)
        return {"changed": sorted(changed - left), "left": sorted(left - {user})}

    async def _people(self, room: MatrixRoom) -> set[str]:
        """Who is joined in a room."""
        view = self._ctx.view(room.room_id)
        if view is None:
            return set()
        return {p.user.id for p in view.joined() if p.user.network == self._ctx.id}

    def _share(self, user: str, other: str) -> bool:
        """Whether two people are in one room; of the one it is known at once where."""
        who = Ref(self._ctx.id, other)
        for stay in self._attendance.stays(user).values():
            view = self._ctx.view(stay.room_id) if stay.membership == "join" else None
            if view is not None and view.membership(who) is Membership.JOIN:
                return True
        return False

    async def changes(self, caller: Caller, request: Request, _body: Any) -> Any:
        """``GET /keys/changes``: as in a sync, between two tokens."""
        since, upto = since_of(request.first("from")), since_of(request.first("to"))
        if since.position < 0:
            raise error(400, "M_MISSING_PARAM", "from is missing")
        now = await self._news.now()
        end = min(upto.position, now) if upto.position >= 0 else now
        topics = _Concerning(caller.user, self._attendance.stays(caller.user))
        news = await self._news.between(since.position, end, topics, _MOST_NEWS)
        asked = _Asked(
            caller=caller,
            since=since,
            upto=end,
            wanted=SyncFilter(),
            full=False,
            after=False,
            ignored=frozenset(),
            news=news,
        )
        personal = news.get(caller.user, ())
        return await self._lists(asked, {i.ref for i in personal if i.ref.startswith("!")})

    def _presence(self, asked: _Asked) -> list[dict[str, Any]]:
        """Of people whom one shares a room with, those who came, went or said something."""
        if not self._ctx.config.presence or not asked.wanted.presence.named("m.presence"):
            return []
        found: list[dict[str, Any]] = []
        for one in self._known.presences.every():
            news = asked.since.position < 0 or self._signals.changed_in.get(one.user, 0) > asked.since.typing
            if not news or (one.user != asked.caller.user and not self._share(asked.caller.user, one.user)):
                continue
            content = {"presence": one.presence, "currently_active": one.active, "last_active_ago": one.ago}
            content |= {"status_msg": one.status} if one.status else {}
            found.append({"type": "m.presence", "sender": one.user, "content": content})
        return found
