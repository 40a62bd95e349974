"""The room part of a sync answer. SPEC: client-server API, "Syncing"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hansa import Membership, NetworkContext

from hansa_matrix.client_api.account.account_data import PUSH_RULES
from hansa_matrix.client_api.client_services import RoomReading, UserSettings
from hansa_matrix.client_api.rooms.pagination import PaginationToken
from hansa_matrix.client_api.rooms.threads import MAIN
from hansa_matrix.client_api.sync.filters import EventFilter
from hansa_matrix.client_api.sync.request import SyncRequest
from hansa_matrix.client_api.sync.timeline import TimelineSpan, TimelineSync, states_after
from hansa_matrix.local.client_stream import RECEIPTS
from hansa_matrix.local.memberships import LocalMembership
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import StateKey
from hansa_matrix.proto.stripped_state import STRIPPED_FIELDS, STRIPPED_KEYS, stripped_event
from hansa_matrix.rooms.access.visible_events import effect_without_texts
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_services import RoomServices
from hansa_matrix.rooms.typing_and_receipts import PRIVATE

_MAX_HEROES = 5
#: Members that are looked at together for heroes, and in all.
_HEROES_PAGE_SIZE, _MAX_HERO_CANDIDATES = 200, 10_000
#: People whose receipts are read by themselves: those of more are read with the room's.
_MAX_SINGLE_READS = 100
#: The events that name a room.
_NAMES: tuple[StateKey, ...] = (("m.room.name", ""), ("m.room.canonical_alias", ""))


class RoomSync:
    """Of rooms that one is in, is asked into, or has left."""

    def __init__(
        self, own: LocalServer, services: RoomServices, reading: RoomReading, settings: UserSettings
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._news = own.memberships.news
        self._rooms = own.rooms
        self._notifier = own.notifier
        self._signals = services.typing_and_receipts
        self._pending = services.invites
        self._visibility = reading.visibility
        self._shapes = reading.formatter
        self._data = settings.data
        self._push = settings.push_rules
        self._unread = settings.unread
        self._timelines = TimelineSync(own.memberships.news, reading.visibility, reading.formatter)

    async def build_room_part(
        self, asked: SyncRequest, stays: Mapping[str, LocalMembership]
    ) -> dict[str, dict[str, Any]]:
        """Returns the room part, by the user's membership and by room."""
        moved = asked.membership_changes
        again = not asked.is_initial and asked.ignores_others  # invites of who was ignored are told now
        found: dict[str, dict[str, Any]] = {}
        for stay in list(stays.values()) if asked.is_initial else self._changed_rooms(asked, stays):
            if not asked.filter.rooms.matches_room(stay.room_id):
                continue
            kind, shown = "", None
            if stay.membership == "join":
                kind, shown = "join", await self._joined_room(asked, stay, new=stay.room_id in moved)
            elif stay.membership == "invite" and (asked.is_initial or again or stay.room_id in moved):
                if stay.sender not in asked.ignored and await self._can_show_invite(stay, asked):
                    kind, shown = (
                        "invite",
                        {"invite_state": {"events": await self._stripped_state(asked, stay)}},
                    )
            elif stay.membership == "knock" and (asked.is_initial or stay.room_id in moved):
                kind, shown = "knock", {"knock_state": {"events": await self._stripped_state(asked, stay)}}
            elif stay.membership in {"leave", "ban"}:
                kind = "leave"
                if stay.room_id in moved or (asked.is_initial and asked.filter.include_leave):
                    shown = await self._left_room(asked, stay)
                elif not asked.is_initial:
                    shown = await self._account_data_of(asked, stay)
            if shown is not None:
                found.setdefault(kind, {})[stay.room_id] = shown
        return found

    def _changed_rooms(
        self, asked: SyncRequest, stays: Mapping[str, LocalMembership]
    ) -> list[LocalMembership]:
        """How one stands to the rooms of which there is something to tell."""
        rooms = asked.membership_changes
        for topic, items in asked.items.items():
            rooms.add(topic.removeprefix(RECEIPTS))
            if topic == asked.caller.user:
                rooms.update(item.ref.split(" ")[1] for item in items if " " in item.ref)
        if asked.since.typing < self._notifier.changes:
            changed = self._notifier.changed_in
            rooms.update(room_id for room_id in stays if changed.get(room_id, 0) > asked.since.typing)
        if asked.ignores_others:
            rooms.update(stay.room_id for stay in stays.values() if stay.membership == "invite")
        return [stays[room_id] for room_id in sorted(rooms) if room_id in stays]

    async def _joined_room(
        self, asked: SyncRequest, stay: LocalMembership, *, new: bool
    ) -> dict[str, Any] | None:
        """A room that one is in; None if there is nothing to tell."""
        room_id = stay.room_id
        room = self._rooms.get(room_id)
        if room is None:
            return None
        typing = asked.is_initial or self._notifier.changed_in.get(room_id, 0) > asked.since.typing
        receipts = {item.ref for item in asked.items.get(RECEIPTS + room_id, ())}
        if any(item.ref == f"read {room_id}" for item in asked.items.get(asked.caller.user, ())):
            receipts.add(asked.caller.user)
        items = asked.items.get(room_id, ())
        data = await self.account_data(asked, room_id)
        if not (asked.is_initial or new or items or typing or receipts or data):
            return None
        entered = new and await self._newly_joined(asked, room, stay)
        whole = asked.is_initial or entered
        shown: dict[str, Any] = {}
        fresh = entered or asked.since.position < 0
        lazy = asked.filter.state.lazy and whole
        heroes = (await self._room_summary(asked, room)).get("m.heroes", ()) if lazy else ()
        span = TimelineSpan(
            since=asked.since.position, upto=asked.upto, fresh=fresh, whole=whole, heroes=heroes
        )
        timeline, state = await self._timelines.build_timeline(asked, room, span)
        shown["timeline"] = timeline
        shown |= state
        ephemeral: list[dict[str, Any]] = []
        who = [u for u in self._signals.typing_in(room_id) if u not in asked.ignored] if typing else []
        if typing and (who or not whole) and asked.filter.ephemeral.matches_type("m.typing", room_id):
            ephemeral.append({"type": "m.typing", "content": {"user_ids": who}})
        if (whole or receipts) and asked.filter.ephemeral.matches_type("m.receipt", room_id):
            ephemeral += await self._receipt_edus(asked, room_id, None if whole else receipts)
        shown["ephemeral"] = {"events": ephemeral}
        shown["account_data"] = {
            "events": await self.account_data(asked, room_id, whole=True) if entered else data
        }
        people = whole or any(e.get("type") == MEMBER for e in timeline["events"]) or bool(state)
        shown["summary"] = await self._room_summary(asked, room) if people else {}
        counts = await self._unread.get_counts(asked.caller.user, room, asked.upto)
        by_thread = asked.filter.timeline.by_thread
        shown["unread_notifications"] = (counts.main if by_thread else counts.all).counts_json()
        if by_thread:
            threads = {t: count.counts_json() for t, count in counts.threads.items() if t != MAIN}
            shown["unread_thread_notifications"] = threads
        return shown

    async def _newly_joined(self, asked: SyncRequest, room: MatrixRoom, stay: LocalMembership) -> bool:
        """True if the user joined since the last sync, so that the client does not have the room yet."""
        if asked.since.position < 0:
            return True
        member = (await room.events.load([stay.event_id], room.version)).get(stay.event_id)
        if member is None:
            return True
        key = (MEMBER, asked.caller.user)
        position = await self._news.position_of(room.room_id, stay.event_id)
        if position and position <= asked.since.position:
            return False
        # Another name is a member event too: who was in the room at the last time knows it.
        items = await self._news.last_items(room.room_id, asked.since.position + 1, 1)
        if not items:
            return True
        state = await room.groups.load(items[0].state)
        before = (await room.events_of(state, [key])).get(key)
        return before is None or before.membership != "join"

    async def _room_summary(self, asked: SyncRequest, room: MatrixRoom) -> dict[str, Any]:
        view = self._ctx.get_view(room.room_id)
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
        if not await room.shown_of(state, _NAMES):
            summary["m.heroes"] = await self._room_heroes(asked.caller.user, room, state)
        return summary

    @staticmethod
    async def _room_heroes(user: str, room: MatrixRoom, state: Mapping[StateKey, str]) -> list[str]:
        """Returns the users whose names form the name of an unnamed room: the first who are joined or
        invited, or else the first who were.
        """
        others = [(key, event) for key, event in state.items() if key[0] == MEMBER and key[1] != user]
        here: list[StoredEvent] = []
        gone: list[StoredEvent] = []
        for at in range(0, min(len(others), _MAX_HERO_CANDIDATES), _HEROES_PAGE_SIZE):
            page = others[at : at + _HEROES_PAGE_SIZE]
            members = await room.events.load([event for _, event in page], room.version)
            here += [one for one in members.values() if one.pdu.membership in {"join", "invite"}]
            gone += [one for one in members.values() if one.pdu.membership in {"leave", "ban"}]
            if len(here) >= _MAX_HEROES:
                break
        first = sorted(here or gone, key=lambda one: (one.depth, one.pdu.event_id))[:_MAX_HEROES]
        return [str(one.pdu.state_key) for one in first]

    async def _receipt_edus(
        self, asked: SyncRequest, room_id: str, users: set[str] | None
    ) -> list[dict[str, Any]]:
        """Returns the receipts of some users, or of all; those of the room and of each thread separately: one
        event may be the last read one in both.
        """
        found: dict[tuple[str, str], tuple[str, int]] = {}
        if users is None or len(users) > _MAX_SINGLE_READS:
            every = await self._signals.get_receipts(room_id)
            found = {key: one for key, one in every.items() if users is None or key[0] in users}
        else:
            for user in users:
                found |= await self._signals.get_receipts(room_id, user)
        by_thread: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        for (user, thread), (event_id, ts) in found.items():
            private = thread.startswith(PRIVATE)
            if (private and user != asked.caller.user) or user in asked.ignored:
                continue
            name = thread.removeprefix(PRIVATE)
            kind = "m.read.private" if private else "m.read"
            entry = {"ts": ts} | ({"thread_id": name} if name else {})
            by_thread.setdefault(name, {}).setdefault(event_id, {}).setdefault(kind, {})[user] = entry
        return [{"type": "m.receipt", "content": by_thread[name]} for name in sorted(by_thread)]

    async def account_data(
        self, asked: SyncRequest, room_id: str, *, whole: bool = False
    ) -> list[dict[str, Any]]:
        """Returns the user's account data of a room, or the global account data (room empty), as far as it
        changed.
        """
        wanted: EventFilter = asked.filter.room_data if room_id else asked.filter.data
        if asked.is_initial or whole:
            if asked.is_initial:
                found = dict(asked.data.get(room_id, {}))
            else:
                found = await self._data.for_room(asked.caller.user, room_id)
            if not room_id:
                found[PUSH_RULES] = {"global": await self._push.rules_of(asked.caller.user)}
        else:
            prefix = f"data {room_id} "
            personal = asked.items.get(asked.caller.user, ())
            types = {i.ref.removeprefix(prefix) for i in personal if i.ref.startswith(prefix)}
            values = {t: await self._data.get(asked.caller.user, room_id, t) for t in types}
            found = {t: v for t, v in values.items() if v is not None}
        return [{"type": t, "content": c} for t, c in found.items() if wanted.matches_type(t, room_id)]

    async def _can_show_invite(self, stay: LocalMembership, asked: SyncRequest) -> bool:
        """True if the policies allow an invite to be shown that arrived under earlier policies."""
        if not self._ctx.has_policies:
            return True
        waiting = await self._pending.get(stay.room_id, asked.caller.user)
        return waiting is None or await self._pending.permitted(waiting)

    async def _stripped_state(self, asked: SyncRequest, stay: LocalMembership) -> Sequence[Mapping[str, Any]]:
        """Returns the stripped state of a room for an invited user."""
        waiting = await self._pending.get(stay.room_id, asked.caller.user)
        if waiting is not None:
            own = await self._pending.event(stay.room_id, asked.caller.user)
            state = await self._pending.shown(waiting)
            shown = [stripped_event(one) for one in (*state, own)]
            return [one for one in shown if isinstance(one.get("type"), str) and "state_key" in one]
        room = self._rooms.get(stay.room_id)
        if room is None:
            return []
        keys = [*STRIPPED_KEYS, (MEMBER, stay.sender), (MEMBER, asked.caller.user)]
        found = await room.shown_of(await room.state(), keys)
        return [stripped_event(found[key].raw) for key in dict.fromkeys(keys) if key in found]

    async def _left_room(self, asked: SyncRequest, stay: LocalMembership) -> dict[str, Any]:
        """Returns a left room: up to the leave. A user who was never in it gets the event that ended an
        invite or a knock, and nothing else.
        """
        room, position = self._rooms.get(stay.room_id), 0
        left: StoredEvent | None = None
        if room is not None and stay.event_id:
            position = await self._news.position_of(room.room_id, stay.event_id)
            left = (await room.events.load([stay.event_id], room.version)).get(stay.event_id)
        if room is None or left is None or not position:
            event = await self._pending.left(stay.room_id, asked.caller.user)
            return await self._never_joined_room(asked, stay, event if stay.membership == "leave" else None)
        if not await self._visibility.was_in(room, left):
            if stay.event_id not in await room.readable([stay.event_id]):
                left = replace(left, pdu=effect_without_texts(left.pdu, room.version))
            (shown,) = await self._shapes.format_events(asked.caller, room, [left], room_id=False)
            return await self._never_joined_room(asked, stay, shown)
        fresh = asked.since.position < 0 or await self._came_and_went(asked, room)
        span = TimelineSpan(
            since=asked.since.position,
            upto=position,
            fresh=fresh,
            whole=fresh or asked.full_state,
            own=stay.event_id,
        )
        timeline, state = await self._timelines.build_timeline(asked, room, span)
        data = await self.account_data(asked, room.room_id, whole=fresh)
        state = state or {"state": {"events": []}}
        return {"timeline": timeline, **state, "account_data": {"events": data}}

    async def _came_and_went(self, asked: SyncRequest, room: MatrixRoom) -> bool:
        """True if the user was not in a room at the last sync, and has joined and left it since."""
        items = await self._news.last_items(room.room_id, asked.since.position + 1, 1)
        if not items:
            return True
        key = (MEMBER, asked.caller.user)
        before = (await room.events_of(await room.groups.load(items[0].state), [key])).get(key)
        return before is None or before.membership != "join"

    async def _account_data_of(self, asked: SyncRequest, stay: LocalMembership) -> dict[str, Any] | None:
        """A room that one left before, of which one keeps something else now; None if there is no such
        news.
        """
        data = await self.account_data(asked, stay.room_id)
        return {**self._is_empty(asked, []), "account_data": {"events": data}} if data else None

    async def _never_joined_room(
        self, asked: SyncRequest, stay: LocalMembership, event: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """A room that one was never in. The event stands in the state where its filter lets no timeline."""
        shown: list[Mapping[str, Any]] = []
        if event is not None:
            names = (*STRIPPED_FIELDS, "event_id", "unsigned")
            shown = [{key: event[key] for key in names if key in event}]
        data = await self.account_data(asked, stay.room_id, whole=True)
        return {**self._is_empty(asked, shown), "account_data": {"events": data}}

    @staticmethod
    def _is_empty(asked: SyncRequest, shown: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The timeline and state of a room of which one is told some state events at most."""
        wanted = asked.filter.timeline
        timely = [
            one
            for one in shown
            if wanted.limit and wanted.matches_fields(str(one["type"]), str(one["sender"]))
        ]
        return {
            "timeline": {
                "events": timely,
                "limited": False,
                "prev_batch": str(PaginationToken(position=asked.upto)),
            },
            **(
                states_after(shown)
                if asked.use_state_after
                else {"state": {"events": [] if timely else shown}}
            ),
        }
