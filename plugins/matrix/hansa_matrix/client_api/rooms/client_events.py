"""Events as clients get them. SPEC: client-server API, "Room event format", "Relationship types"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hansa import NetworkContext

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.rooms.previous_content import MAX_BYTES, PreviousContent
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.rooms.access.user_visibility import UserVisibility
from hansa_matrix.rooms.access.visible_events import effect_without_texts, of_erased, without_names
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.redactions import REDACTION, target_of
from hansa_matrix.rooms.relations import REFERENCE, REPLACE, THREAD, Relations, event_ids_of, relation_target
from hansa_matrix.rooms.room import MatrixRoom

#: Relations of one kind that are looked at for an event's summary.
_MAX_RELATED = 1000
#: Memberships of the erased in one state of which it is asked whether the reader was there: each is a state
#: of its own that is read.
MAX_ERASED = 20
#: Relations that are looked at together for the newest that a reader may read.
_PAGE_SIZE = 50


def client_event(pdu: Pdu, version: RoomVersion, *, room_id: bool = True) -> dict[str, Any]:
    """An event without what depends on who reads it. A redaction names its target where clients of either
    kind of version look, and no other event in the place that its own version does not read.
    """
    shown: dict[str, Any] = {
        "type": pdu.type,
        "content": pdu.content,
        "event_id": pdu.event_id,
        "sender": pdu.sender,
        "origin_server_ts": pdu.origin_server_ts,
    }
    if room_id:
        shown["room_id"] = pdu.room_id
    if pdu.state_key is not None:
        shown["state_key"] = pdu.state_key
    target = target_of(pdu, version) if pdu.type == REDACTION else None
    if target is not None:
        shown["redacts"] = target
        if pdu.content.get("redacts") != target:
            shown["content"] = {**pdu.content, "redacts": target}
    return shown


def federation_event(pdu: Pdu) -> dict[str, Any]:
    """An event as servers send it to each other, with the id by which a client knows it."""
    return {**pdu.raw, "event_id": pdu.event_id}


class ClientEventFormatter:
    """Adds the fields that a reader gets with an event: its age, the previous content, its redaction, its
    replies.
    """

    def __init__(self, ctx: NetworkContext, attendance: LocalMemberships, visibility: UserVisibility) -> None:
        self._ctx = ctx
        self._visibility = visibility
        self.related = Relations(ctx.store)
        self._sent = attendance.sent
        self._erased = attendance.erased
        self._replaced = PreviousContent(attendance.erased, visibility)

    async def format_events(
        self,
        caller: Requester,
        room: MatrixRoom,
        events: Sequence[StoredEvent],
        *,
        room_id: bool = True,
        federation: bool = False,
        bundled: bool = True,
    ) -> list[dict[str, Any]]:
        """Events of one room for one reader, with ``federation`` as servers send them to each other, with
        what relates to them if ``bundled``.
        """
        if not events:
            return []
        now = self._ctx.clock.now()
        related = await self._ctx.store.get_many("related", [(one.pdu.event_id,) for one in events])
        because = await self._redactions_of(caller, room, events, room_id=room_id)
        memberships: dict[int, str] = {}
        size = 0
        found: list[dict[str, Any]] = []
        for one in events:
            membership = await self._membership_after(caller.user, room, one, memberships)
            pdu = one.pdu
            if membership != "join":
                pdu = of_erased(pdu, room.version, self._erased)
            shown = federation_event(pdu) if federation else client_event(pdu, room.version, room_id=room_id)
            unsigned: dict[str, Any] = {"age": max(0, now - one.pdu.origin_server_ts)}
            unsigned |= because.get(one.pdu.event_id, {})
            if one.pdu.state_key is not None:
                before, more = await self._previous_content(room, one, membership, named=size > MAX_BYTES)
                unsigned |= before
                size += more
            unsigned["membership"] = membership
            txn = self._sent.txn_id_for(caller.user, caller.device, one.pdu.event_id)
            if txn:
                unsigned["transaction_id"] = txn
            if bundled and one.pdu.event_id not in because and (one.pdu.event_id,) in related:
                relations = await self._relations_of(caller, room, one)
                if relations:
                    unsigned["m.relations"] = relations
            shown["unsigned"] = unsigned
            found.append(shown)
        return found

    async def format_state(
        self,
        caller: Requester,
        room: MatrixRoom,
        events: Iterable[StoredEvent],
        *,
        room_id: bool = True,
        federation: bool = False,
    ) -> list[Mapping[str, Any]]:
        """The events of one state, with what each replaced and what took it back. Of the erased there are the
        memberships and no names; what they called the room is the room's.
        """
        given, now = list(events), self._ctx.clock.now()
        if not given:
            return []
        if self._erased:
            given = await self._without_erased(caller.user, room, given)
        replaced = await self._replaced.unsigned_of_state(caller.user, room, given)
        because = await self._redactions_of(caller, room, given, room_id=room_id)
        return [
            {
                **(
                    federation_event(one.pdu)
                    if federation
                    else client_event(one.pdu, room.version, room_id=room_id)
                ),
                "unsigned": {
                    "age": max(0, now - one.pdu.origin_server_ts),
                    **replaced.get(one.pdu.event_id, {}),
                    **because.get(one.pdu.event_id, {}),
                },
            }
            for one in given
        ]

    async def _without_erased(
        self, reader: str, room: MatrixRoom, given: Sequence[StoredEvent]
    ) -> list[StoredEvent]:
        """The events of a state; of an erased person's membership what it did, unless the reader was there,
        for which the newest are looked at.
        """
        found = {one.pdu.event_id: without_names(one, room.version, self._erased) for one in given}
        about = [one for one in given if found[one.pdu.event_id] is not one and one.before]
        for one in sorted(about, key=lambda one: -one.depth)[:MAX_ERASED]:
            if await self._membership_after(reader, room, one, {}) == "join":
                found[one.pdu.event_id] = one
        return list(found.values())

    async def _redactions_of(
        self, caller: Requester, room: MatrixRoom, events: Sequence[StoredEvent], *, room_id: bool
    ) -> dict[str, dict[str, Any]]:
        """Members of ``unsigned`` of those events that another took back, by their ids."""
        gone = [(one.pdu.event_id,) for one in events if one.redacted]
        if not gone:
            return {}
        rows = await self._ctx.store.get_many("redacted_by", gone)
        by = {str(key[0]): row.body.decode() for key, row in rows.items()}
        redactions = await room.readable(by.values())
        readable = await self._visibility.filter_bundled(caller.user, room, list(by.values()))
        found: dict[str, dict[str, Any]] = {}
        for event_id, name in by.items():
            redaction = redactions.get(name)
            if redaction is None:
                continue
            because = redaction.pdu
            if name not in readable:  # that it was taken back can be seen anyway
                because = effect_without_texts(redaction.pdu, room.version)
            # COMPAT: clients read ``redacted_by`` where Synapse gives it.
            found[event_id] = {
                "redacted_because": client_event(because, room.version, room_id=room_id),
                "redacted_by": name,
            }
        return found

    async def _previous_content(
        self, room: MatrixRoom, one: StoredEvent, membership: str, *, named: bool
    ) -> tuple[dict[str, Any], int]:
        """Returns the ``unsigned`` fields about the event that a state event replaced, or only its id if
        ``named``; and its size in bytes.
        """
        state = await room.groups.load(one.before)
        earlier = state.get(one.pdu.key)
        if earlier in {None, one.pdu.event_id}:
            return {}, 0
        if named:
            return {"replaces_state": earlier}, 0
        replaced = (await room.shown_of(state, [one.pdu.key])).get(one.pdu.key)
        if replaced is None:
            return {}, 0
        return self._replaced.unsigned_fields(room, replaced, there=membership == "join"), len(replaced.wire)

    @staticmethod
    async def _membership_after(user: str, room: MatrixRoom, one: StoredEvent, known: dict[int, str]) -> str:
        """The reader's membership once the event had happened."""
        if one.pdu.type == MEMBER and one.pdu.state_key == user:
            return one.pdu.membership or "leave"
        if one.before not in known:
            state = await room.groups.load(one.before)
            member = (await room.events_of(state, [(MEMBER, user)])).get((MEMBER, user))
            known[one.before] = (member.membership or "leave") if member is not None else "leave"
        return known[one.before]

    async def _relations_of(self, caller: Requester, room: MatrixRoom, one: StoredEvent) -> dict[str, Any]:
        """The latest edit, the thread, and what refers to it, as far as the reader may read them."""
        pdu, found = one.pdu, dict[str, Any]()
        edited = pdu.state_key is None and (relation_target(pdu) or ("", ""))[1] != REPLACE
        if edited and (edit := await self._latest_edit(caller, room, pdu)) is not None:
            (found[REPLACE],) = await self.format_events(caller, room, [edit], bundled=False)
        rows = await self.related.page(
            room.room_id, pdu.event_id, _MAX_RELATED, kind=REFERENCE, newest_first=True
        )
        seen = await self._visibility.filter_bundled(caller.user, room, event_ids_of(rows)) if rows else {}
        if seen:
            found[REFERENCE] = {"chunk": [{"event_id": e} for e in event_ids_of(rows[::-1]) if e in seen]}
        if relation_target(pdu) is None and (thread := await self._thread_summary(caller, room, pdu)):
            found[THREAD] = thread
        return found

    async def _latest_edit(self, caller: Requester, room: MatrixRoom, pdu: Pdu) -> StoredEvent | None:
        """The newest edit of an event that the reader may read: only its sender edits it."""
        after: str | None = None
        for _ in range(0, _MAX_RELATED, _PAGE_SIZE):
            rows = await self.related.page(
                room.room_id,
                pdu.event_id,
                _PAGE_SIZE,
                kind=REPLACE,
                sender=pdu.sender,
                after=after,
                newest_first=True,
            )
            ids = event_ids_of([row for row in rows if row.fields["type"] == pdu.type])
            seen = await self._visibility.filter_bundled(caller.user, room, ids) if ids else {}
            newest = next((e for e in ids if e in seen), None)
            if newest is not None or len(rows) < _PAGE_SIZE:
                return seen[newest] if newest is not None else None
            after = str(rows[-1].fields["place"])
        return None

    async def _thread_summary(self, caller: Requester, room: MatrixRoom, root: Pdu) -> dict[str, Any]:
        """A thread's summary; empty if the reader may read none of it. Of the answers before the newest
        1,000 all count, for nobody can look at them all each time.
        """
        rows = await self.related.page(
            room.room_id, root.event_id, _MAX_RELATED, kind=THREAD, newest_first=True
        )
        ids = event_ids_of(rows)
        seen = await self._visibility.filter_bundled(caller.user, room, ids) if ids else {}
        newest = next((e for e in ids if e in seen), None)
        if newest is None:
            return {}
        count = len(seen)
        if len(rows) == _MAX_RELATED:
            count += await self.related.count(room.room_id, root.event_id, THREAD) - len(rows)
        (shown,) = await self.format_events(caller, room, [seen[newest]])
        return {
            "latest_event": shown,
            "count": count,
            "current_user_participated": await self.has_participated(caller.user, room, root, seen),
        }

    async def has_participated(
        self, user: str, room: MatrixRoom, root: Pdu, seen: Mapping[str, StoredEvent] | None = None
    ) -> bool:
        """True if a user started a thread or replied in it; ``seen`` are replies that the user may read."""
        if root.sender == user or any(one.pdu.sender == user for one in (seen or {}).values()):
            return True
        rows = await self.related.page(
            room.room_id, root.event_id, _PAGE_SIZE, kind=THREAD, sender=user, newest_first=True
        )
        return bool(await self._visibility.filter_bundled(user, room, event_ids_of(rows)) if rows else None)
