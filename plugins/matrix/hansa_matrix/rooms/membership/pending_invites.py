"""Invites of local users to rooms that this server is not in, and their knocks on such rooms.

They live outside any room's graph: kept until they are accepted, declined, rescinded by the inviter, or
answered. SPEC: server-server API, "Inviting to a room", "Knocking"; R-11.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from hansa import (
    Busy,
    Delete,
    Invite,
    LruCache,
    NativeId,
    NetworkContext,
    Put,
    RemoteProtocolError,
    Row,
    Value,
    Write,
    scan_all,
)

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.local.memberships import LocalMemberships, membership_from_event
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import (
    key_valid_at,
    parse_pdu,
    required_servers,
    signature_problem,
    signing_key_ids,
)
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.proto.state_content import membership_of
from hansa_matrix.proto.stripped_state import stripped_state
from hansa_matrix.ratelimit import RateLimiter
from hansa_matrix.rooms.membership.ended_invites import EndedInvites
from hansa_matrix.rooms.membership.remote_room_texts import RemoteRoomTexts
from hansa_matrix.texts import texts_of_event

_PAGE_SIZE = 1000
#: Invites of which it is remembered how the policies of now judge them.
_JUDGED = 10_000
#: Invites that wait: of one server for one person, of all for one person, of one server, and in all. One that
#: is too many takes the place of the oldest: of that server, or where a person has too many of all, of the
#: server that has most of them.
MAX_OF_PEER, MAX_OF_USER, MAX_OF_SERVER, MAX_IN_ALL = 20, 100, 2000, 50_000
#: Invites of one server for one person, and of one server, in a second and at once; more are refused.
_RATE_OF_PEER, _BURST_OF_PEER, _RATE_OF_SERVER, _BURST_OF_SERVER = 1 / 60, 20.0, 1.0, 200.0
#: How long one waits (ms).
KEPT_FOR = 180 * 86_400_000
#: Rooms that a person was only asked into, of which it is remembered that the invite is gone.
_MAX_LEFT_ROOMS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingInvite:
    """One of them. ``origin`` is the server to answer by, ``shown`` what it showed of the room."""

    room_id: str
    user: str
    sender: str
    membership: str
    origin: str
    event_id: str
    version: str
    shown: Sequence[Mapping[str, Any]]
    #: The policies that judged it, and the event itself.
    generation: int = 0
    event: Mapping[str, Any] = field(default_factory=dict)


class PendingInvites:
    """The invites and knocks that wait for an answer, of local users and of others."""

    def __init__(self, ctx: NetworkContext, keyring: Keyring, attendance: LocalMemberships) -> None:
        self._ctx = ctx
        self._keyring = keyring
        self._attendance = attendance
        self._of_peer = RateLimiter(ctx.clock, _RATE_OF_PEER, _BURST_OF_PEER)
        self._of_server = RateLimiter(ctx.clock, _RATE_OF_SERVER, _BURST_OF_SERVER)
        self._ended = EndedInvites(ctx)
        self._outside = RemoteRoomTexts(ctx)
        #: Rows over the limit are counted, then removed: one at a time.
        self._one = asyncio.Lock()
        #: Invites that were judged again: ``(room, user) -> (generation, whether it may be shown)``.
        self._judged: LruCache[tuple[str, str], tuple[int, bool]] = LruCache(_JUDGED)

    def admit(self, origin: str, user: str) -> None:
        """Counts an invite by a server. Raises ``Busy`` where it sends too many."""
        wait = self._of_server.take(origin) or self._of_peer.take(f"{origin} {user}")
        if wait:
            self._ctx.count("matrix_invites_limited")
            raise Busy(f"{origin} asks in too many", after=max(1.0, wait))

    async def keep(
        self,
        pdu: Pdu,
        origin: str,
        state: Sequence[Any],
        version: str,
        *,
        generation: int,
        signed: Collection[int] = frozenset(),
    ) -> None:
        """Remember an invite or a knock; the same person's earlier one gives way. ``signed`` are places in
        ``state`` of events whose signatures hold; ``generation`` is that of the policies that judged it.
        """
        ours = ids.domain_of(pdu.state_key or "")
        body = {
            "event": pdu.raw,
            "event_id": pdu.event_id,
            "state": stripped_state(state, pdu.sender, server=ours, signed=signed),
            "origin": origin,
            "version": version,
            "generation": generation,
        }
        user, key = pdu.state_key or "", (pdu.room_id, pdu.state_key or "")
        fields: dict[str, Value] = {
            "peer": origin if pdu.membership == "invite" else "",
            "at": self._ctx.clock.now(),
        }
        async with self._one:
            if await self._ctx.store.get("invite", key) is None:
                await self._make_room(user, str(fields["peer"]))
            await self._ctx.store.commit([Put("invite", key, orjson.dumps(body), fields)])
        await self._attendance.store_membership(user, membership_from_event(pdu.room_id, user, pdu))

    async def _make_room(self, user: str, peer: str) -> None:
        """Let go of what one more would be too many with."""
        store = self._ctx.store
        in_all = await store.count("invite")
        self._ctx.set_gauge("matrix_invites_waiting", in_all + 1)
        oldest: list[Row] = []
        if await store.count("invite", equal={"user_id": user, "peer": peer}) >= MAX_OF_PEER:
            oldest = await self._oldest_rows(("user_id", "peer", "at"), user, peer)
        elif await store.count("invite", equal={"user_id": user}) >= MAX_OF_USER:
            rows = await store.scan(
                "invite", index=("user_id", "peer", "at"), equal=(user,), limit=_PAGE_SIZE
            )
            greediest = Counter(row.fields["peer"] for row in rows).most_common(1)[0][0]
            oldest = [next(row for row in rows if row.fields["peer"] == greediest)]
        elif await store.count("invite", equal={"peer": peer}) >= MAX_OF_SERVER:
            oldest = await self._oldest_rows(("peer", "at"), peer)
        elif in_all >= MAX_IN_ALL:
            oldest = await self._oldest_rows(("at",))
        for row in oldest:
            self._ctx.count("matrix_invites_dropped")
            await self._let_go(row)

    async def _oldest_rows(self, index: tuple[str, ...], *equal: str) -> list[Row]:
        return await self._ctx.store.scan("invite", index=index, equal=equal, limit=1)

    async def _let_go(self, row: Row) -> None:
        """Removes an invite without an answer. Of rooms that a user was never in little is remembered."""
        user = str(row.key[1])
        await self.drop(str(row.key[0]), user)
        stays = self._attendance.memberships_of(user).values()
        gone = [stay.room_id for stay in stays if stay.membership == "leave" and not stay.event_id]
        for room_id in gone[:-_MAX_LEFT_ROOMS]:
            await self._attendance.forget_room(user, room_id)

    async def sweep(self) -> None:
        """Let go of those that waited for half a year."""
        until = self._ctx.clock.now() - KEPT_FOR
        while rows := await self._ctx.store.scan("invite", index=("at",), upto=until, limit=_PAGE_SIZE):
            for row in rows:
                await self._let_go(row)
        self._ctx.set_gauge("matrix_invites_waiting", await self._ctx.store.count("invite"))
        await self._ended.sweep()

    async def get(self, room_id: str, user: str) -> PendingInvite | None:
        """Returns the pending invite or knock of one user in one room."""
        row = await self._ctx.store.get("invite", (room_id, user))
        return _pending_invite(row) if row is not None else None

    async def event(self, room_id: str, user: str) -> Mapping[str, Any]:
        """The invite or knock itself; empty if none waits."""
        row = await self._ctx.store.get("invite", (room_id, user))
        event: Mapping[str, Any] = orjson.loads(row.body)["event"] if row is not None else {}
        return event

    async def left(self, room_id: str, user: str) -> Mapping[str, Any] | None:
        """Returns the event that ended a user's invite or knock and that no local room has, with its id, in
        the form that the current policies allow.
        """
        return await self._outside.leave(await self._ended.get(user, room_id))

    async def shown(self, waiting: PendingInvite) -> Sequence[Mapping[str, Any]]:
        """Returns the stripped state that a user sees. An invite is judged as a whole: see ``permitted``."""
        if waiting.membership == "invite":
            return waiting.shown
        return await self._outside.state(waiting.origin, waiting.room_id, waiting.shown)

    async def every(self) -> list[PendingInvite]:
        """All of them."""
        return [_pending_invite(row) async for row in scan_all(self._ctx.store, "invite")]

    async def permitted(self, waiting: PendingInvite) -> bool:
        """True if the current policies let a user see a pending invite or knock."""
        generation = self._ctx.policy_generation
        if not self._ctx.has_policies or waiting.generation == generation or waiting.membership != "invite":
            return True
        key = (waiting.room_id, waiting.user)
        known = self._judged.get(key)
        if known is None or known[0] != generation:
            content = waiting.event.get("content")
            said = content if isinstance(content, dict) else {}
            verdict = await self._ctx.check(
                Invite(
                    network=self._ctx.id,
                    room=waiting.room_id,
                    sender=NativeId(self._ctx.id, waiting.sender),
                    sender_server=ids.domain_of(waiting.sender),
                    user=NativeId(self._ctx.id, waiting.user),
                    outbound=False,
                    servers=frozenset({waiting.origin}),
                    texts=texts_of_event("m.room.member", waiting.user, said, *waiting.shown),
                    again=True,
                )
            )
            known = (generation, verdict.allowed)
            self._judged.put(key, known)
        return known[1]

    async def drop(self, room_id: str, user: str, left: Pdu | None = None) -> None:
        """Removes an answered invite; ``left`` is the event that answered it, if no local room has it."""
        writes: list[Write] = [Delete("invite", (room_id, user))]
        if left is not None and await self._attendance.has_account(user):
            writes += await self._ended.writes(user, room_id, left)
        await self._ctx.store.commit(writes)
        stay = self._attendance.membership_of(user, room_id)
        if stay is not None and stay.membership in {"invite", "knock"}:
            over = {"invite", "knock"}
            await self._attendance.store_membership(
                user, membership_from_event(room_id, user, None), over=over
            )

    async def elsewhere(self, obj: Mapping[str, Any]) -> bool:
        """An event of a room that we are not in: a leave of an invited person by who invited them takes the
        invite back. True if it did; everything else of such rooms is none of our business.
        """
        room_id, user = obj.get("room_id"), obj.get("state_key")
        if obj.get("type") != "m.room.member" or not isinstance(room_id, str) or not isinstance(user, str):
            return False
        if not ids.is_valid_room_id(room_id) or not ids.is_valid_user_id(user):
            return False
        waiting = await self.get(room_id, user)
        version = VERSIONS.get(waiting.version) if waiting is not None else None
        if waiting is None or version is None:
            return False
        try:
            pdu = parse_pdu(obj, version)
        except RemoteProtocolError:
            return False
        if pdu.membership not in {"leave", "ban"} or waiting.event_id not in pdu.auth_events:
            return False
        if waiting.membership == "invite" and pdu.sender != waiting.sender:
            return False
        servers = required_servers(pdu, version)
        await self._keyring.ensure_keys(signing_key_ids(pdu, servers), key_valid_at(pdu, version))
        if signature_problem(pdu, version, self._keyring.get, verify_signature, servers) is not None:
            return False
        await self.drop(room_id, user, pdu)
        self._ctx.log.info("the %s of %s to %s was withdrawn", waiting.membership, user, room_id)
        return True


def _pending_invite(row: Row) -> PendingInvite:
    body = orjson.loads(row.body)
    event = body["event"]
    return PendingInvite(
        room_id=str(row.key[0]),
        user=str(row.key[1]),
        sender=event["sender"],
        membership=membership_of(event["content"]) or "invite",
        origin=body.get("origin") or ids.domain_of(event["sender"]),
        event_id=body["event_id"],
        version=body.get("version", ""),
        shown=body["state"],
        generation=body.get("generation", 0),
        event=event,
    )
