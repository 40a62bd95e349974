"""Rooms that are shown to who is not in them: the public list, spaces, and what was said at some time.

SPEC: server-server API, "Public Room Directory", "Spaces", "Retrieving the event at a time".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import Membership, NetworkContext, Request

from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import (
    CREATE,
    CREATE_KEY,
    HISTORY_VISIBILITY,
    HISTORY_VISIBILITY_KEY,
    JOIN_RULES,
    JOIN_RULES_KEY,
    MEMBER,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.state_content import (
    Content,
    allowed_rooms,
    can_guests_join,
    canonical_alias,
    encryption_algorithm,
    history_visibility,
    join_rule,
    room_avatar,
    room_name,
    room_topic,
    room_type,
    space_child,
)
from hansa_matrix.proto.stripped_state import STRIPPED_KEYS
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.room import MatrixRoom

MAX_PUBLIC_ROOMS, _MAX_CHILDREN = 100, 50
_CHILD = "m.space.child"
#: The type of a room that has others in it.
SPACE = "m.space"
_SHOWN: tuple[StateKey, ...] = (*STRIPPED_KEYS, HISTORY_VISIBILITY_KEY, ("m.room.guest_access", ""))


class RoomSummaries:
    """The public summaries of rooms, for users and servers outside of them."""

    def __init__(self, entitled: ServerAccess, directory: PublicRoomList) -> None:
        self._entitled = entitled
        self._ctx: NetworkContext = entitled.own.ctx
        self._directory = directory

    async def search_public_rooms(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A page of the public list, as its ``filter`` wants it."""
        limit, since, wanted = body.get("limit"), body.get("since"), body.get("filter")
        most = limit if type(limit) is int and limit > 0 else MAX_PUBLIC_ROOMS
        since = since if isinstance(since, str) else ""
        return await self.public_rooms_page(most, since, wanted if isinstance(wanted, dict) else {})

    async def public_rooms_page(self, limit: int, since: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Some of the public list from ``since`` on: the rooms that the filter ``wanted`` matches."""
        found = []
        for room_id in await self._directory.list_rooms():
            room = self._entitled.rooms.get(room_id)
            summary = await self._public_summary(room) if room is not None and room.resident else None
            if summary is not None and _matches_filter(summary, wanted):
                found.append(summary)
        found.sort(key=lambda one: (-one["num_joined_members"], one["room_id"]))
        at = int(since) if since.isascii() and since.isdigit() and len(since) < 8 else 0
        most = max(1, min(limit, MAX_PUBLIC_ROOMS))
        answer: dict[str, Any] = {
            "chunk": found[at : at + most],
            "total_room_count_estimate": len(found),
        }
        if at + most < len(found):
            answer["next_batch"] = str(at + most)
        if at:
            answer["prev_batch"] = str(max(0, at - most))
        return answer

    async def _public_summary(self, room: MatrixRoom) -> dict[str, Any] | None:
        """A room as it is listed; None for one that has no state yet."""
        state = await room.shown_of(await room.state(), _SHOWN)
        view = self._ctx.get_view(room.room_id)
        if CREATE_KEY not in state or view is None:
            return None

        def said(type_: str) -> Content:
            event = state.get((type_, ""))
            return event.content if event is not None else None

        members = sum(1 for p in view.people.values() if p.membership is Membership.JOIN)
        summary: dict[str, Any] = {
            "room_id": room.room_id,
            "num_joined_members": members,
            "world_readable": history_visibility(said(HISTORY_VISIBILITY)) == "world_readable",
            "guest_can_join": can_guests_join(said("m.room.guest_access")),
            "join_rule": join_rule(said(JOIN_RULES)),
            "room_version": room.version.id,
        }
        texts = {
            "name": room_name(said("m.room.name")),
            "topic": room_topic(said("m.room.topic")),
            "avatar_url": room_avatar(said("m.room.avatar")),
            "canonical_alias": canonical_alias(said("m.room.canonical_alias")),
            "room_type": room_type(said(CREATE)),
            "encryption": encryption_algorithm(said("m.room.encryption")),
        }
        summary |= {field: value for field, value in texts.items() if value is not None}
        if not await self._leads_to(room, summary.get("canonical_alias", "")):
            del summary["canonical_alias"]
        return summary

    async def _leads_to(self, room: MatrixRoom, alias: str) -> bool:
        """True if a room may be listed under the alias in its state: an alias of this server must point to
        it.
        """
        if not ids.is_valid_alias(alias):
            return not alias
        if ids.domain_of(alias) != self._entitled.own.server:
            return True
        return await room_id_of(self._ctx.store, alias) == room.room_id

    async def hierarchy(self, room_id: str, origin: str, *, suggested: bool) -> dict[str, Any]:
        """A space and its direct children, as far as the server that asks may know. Raises the error
        answer.
        """
        room = self._entitled.rooms.get(room_id)
        known = await self._accessible_summary(room, origin) if room is not None and room.resident else None
        if room is None or known is None:
            raise matrix_error(404, "M_NOT_FOUND", "the room does not exist, or the server may not see it")
        space = known.get("room_type") == SPACE
        children = await self._child_events(room, suggested=suggested) if space else []
        found, hidden = [], []
        for child in children[:_MAX_CHILDREN]:
            inner = self._entitled.rooms.get(str(child.state_key))
            if inner is None or not inner.resident:
                continue
            summary = await self._accessible_summary(inner, origin)
            if summary is None:
                hidden.append(inner.room_id)
            else:
                found.append(summary)
        return {
            "room": {**known, "children_state": _public_children(children)},
            "children": found,
            "inaccessible_children": hidden,
        }

    async def hierarchy_entry(self, room: MatrixRoom, *, suggested: bool) -> dict[str, Any] | None:
        """Returns a room as spaces show it, with its children; a room that is not a space has none."""
        summary = await self._public_summary(room)
        if summary is None:
            return None
        space = summary.get("room_type") == SPACE
        children = await self._child_events(room, suggested=suggested) if space else []
        return {**summary, "children_state": _public_children(children)}

    async def _child_events(self, room: MatrixRoom, *, suggested: bool) -> list[Pdu]:
        state = await room.state()
        keys = [key for key in state if key[0] == _CHILD and ids.is_valid_room_id(key[1])]
        events = await room.shown_of(state, keys[:1000])
        said = [(p, space_child(p.content)) for p in events.values()]
        found = [(p, child) for p, child in said if child.via and (child.suggested or not suggested)]
        found.sort(key=lambda one: (*one[1].sort_key, one[0].origin_server_ts, one[0].state_key))
        return [p for p, _ in found]

    async def _accessible_summary(self, room: MatrixRoom, origin: str) -> dict[str, Any] | None:
        """Returns the summary of a room that a user of ``origin`` could join or read."""
        summary = await self._public_summary(room)
        if summary is None:
            return None
        rules = (await room.events_of(await room.state(), [JOIN_RULES_KEY])).get(JOIN_RULES_KEY)
        named = list(allowed_rooms(rules.content if rules is not None else None))
        summary |= {"children_state": []}
        if named:  # the server that asks shows it to those of its people who may know
            summary["allowed_room_ids"] = named
        open_ = summary["join_rule"] in {"public", "knock", "knock_restricted"} or summary["world_readable"]
        if open_ or self._entitled.is_joined(room, origin) or await self._is_server_invited(room, origin):
            return summary
        if summary["join_rule"] != "restricted":
            return None
        rooms = [self._entitled.rooms.get(one) for one in named[:20]]
        if any(r is not None and r.resident and self._entitled.is_joined(r, origin) for r in rooms):
            return summary
        return None

    async def _is_server_invited(self, room: MatrixRoom, origin: str) -> bool:
        state = await room.state()
        theirs = [k for k in state if k[0] == MEMBER and ids.domain_of(k[1]) == origin][:200]
        members = await room.events_of(state, theirs)
        return any(p.membership == "invite" for k, p in members.items() if k[0] == MEMBER)


async def event_nearest(directory: PublicRoomList, room: MatrixRoom, request: Request) -> Pdu:
    """The event that ``ts`` and ``dir`` of a query ask for. Raises the error answer where there is none."""
    given, direction = request.first("ts"), request.first("dir")
    if not given.isascii() or not given.isdigit() or len(given) > 15 or direction not in {"f", "b"}:
        raise matrix_error(400, "M_INVALID_PARAM", "ts is a time in milliseconds and dir is f or b")
    found = await directory.event_nearest_timestamp(room, int(given), forwards=direction == "f")
    if found is None:
        raise matrix_error(404, "M_NOT_FOUND", "there is no event in that direction from that time")
    return found


def _public_children(children: Sequence[Pdu]) -> list[dict[str, Any]]:
    return [
        {
            "type": c.type,
            "state_key": c.state_key,
            "content": c.content,
            "sender": c.sender,
            "origin_server_ts": c.origin_server_ts,
        }
        for c in children
    ]


def _matches_filter(summary: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    term, types = wanted.get("generic_search_term"), wanted.get("room_types")
    if isinstance(types, list) and summary.get("room_type") not in types:
        return False
    if not isinstance(term, str) or not term:
        return True
    said = (summary.get(key, "") for key in ("name", "topic", "canonical_alias"))
    return any(term.lower() in text.lower() for text in said)
