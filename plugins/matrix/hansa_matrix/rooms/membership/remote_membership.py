"""Entering and leaving rooms that live elsewhere. SPEC: server-server API, "Joining", "Leaving Rooms"."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from hansa import (
    Busy,
    CannotOpenRoom,
    Crossing,
    DirectoryQuery,
    FairSlots,
    Join,
    Knock,
    NativeId,
    NetworkContext,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    SlotShares,
    Write,
    again_on_conflict,
    refusal_by,
)

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.client import (
    REQUEST_FAILURES,
    RemoteError,
    ServerUnreachable,
    build_path,
)
from hansa_matrix.federation.federation_services import Federation
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import (
    hash_and_sign,
    key_valid_at,
    required_servers,
    signature_problem,
    signing_key_ids,
)
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion, version_of
from hansa_matrix.proto.send_join import (
    SendJoinReader,
    SendJoinResponse,
    parse_make_join,
    with_returned_signatures,
)
from hansa_matrix.rooms.event_store import EventStore, RoomEvents, Status, StoredEvent
from hansa_matrix.rooms.inbound import outliers
from hansa_matrix.rooms.inbound.early_checks import EarlyChecks
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.send_membership import send_join, send_leave
from hansa_matrix.rooms.room import BEHIND, FIRST, GAP, MatrixRoom, RoomHead

_NOTHING: Mapping[str, Any] = {}
INCOMPATIBLE = "M_INCOMPATIBLE_ROOM_VERSION"
#: A room is joined without those whose server gives no key, but not for one lost request (s).
_KEY_PAUSES = (1.0, 4.0, 10.0)

#: Rooms that are entered at a time: each may hold 256 MiB until it is kept.
JOINS = SlotShares(in_all=4, each={"person": 2, "server": 2}, waiting=20)
#: Returns to one room that are remembered.
_RETURNS = 100

#: Status of an answer that has failed, which is not one of a server that is away (502 to 504).
_FAILED = 500
#: Events that are stored in one commit.
_MAX_BATCH = 200

#: A candidate that has not answered for so long (s) does not keep the next one waiting.
_STAGGER = 3.0


#: Returns the profile fields that the member events of a local user carry.
ProfileOfMember = Callable[[str], Awaitable[Mapping[str, Any]]]


class _MembershipTemplate(NamedTuple):
    """A server that would take us, and the event that it would take."""

    server: str
    version: RoomVersion
    event: Pdu


def _gave_up(problem: Exception) -> CannotOpenRoom:
    code = RefusalCode.UNREACHABLE
    if isinstance(problem, RemoteError):
        code = RefusalCode.NOT_FOUND if problem.hint == 404 else RefusalCode.INVITE_ONLY
    return _cannot_open(code, str(problem))


def _cannot_open(code: RefusalCode, text: str) -> CannotOpenRoom:
    return CannotOpenRoom(Refusal(code=code, text=text))


class RemoteMembership:
    """Joins and leaves by the handshake of two requests."""

    def __init__(
        self, own: LocalServer, federation: Federation, events: EventStore, profile: ProfileOfMember
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._client = federation.client
        self._keyring = federation.keyring
        self._events = events
        self.profile = profile
        self._places = FairSlots(JOINS)
        self._joining: dict[str, asyncio.Task[MatrixRoom]] = {}

    async def resolve(self, alias: str) -> tuple[str, list[str]]:
        """The room id and servers behind an alias elsewhere. Raises ``CannotOpenRoom``."""
        server = ids.domain_of(alias)
        await self._require_allowed(
            DirectoryQuery(network=self._ctx.id, server=server, address=alias, outbound=True)
        )
        target = f"/_matrix/federation/v1/query/directory?room_alias={quote(alias, safe='')}"
        try:
            answer = await self._client.request("GET", server, target)
        except RemoteError as error:
            code = RefusalCode.NOT_FOUND if error.hint == 404 else RefusalCode.FORBIDDEN
            raise _cannot_open(code, f"{alias}: {error.reason}") from error
        except REQUEST_FAILURES as error:
            # COMPAT: so some servers answer where nothing has that alias.
            unknown = isinstance(error, ServerUnreachable) and error.status == _FAILED
            code = RefusalCode.NOT_FOUND if unknown else RefusalCode.UNREACHABLE
            raise _cannot_open(code, str(error)) from error
        room_id = answer.get("room_id") if isinstance(answer, dict) else None
        servers = answer.get("servers") if isinstance(answer, dict) else None
        if not ids.is_valid_room_id(room_id):
            raise _cannot_open(RefusalCode.NOT_FOUND, f"{server} gave no room for {alias}")
        named = [s for s in servers if ids.is_valid_server_name(s)] if isinstance(servers, list) else []
        return str(room_id), list(dict.fromkeys([server, *named]))[:20]

    async def _require_allowed(self, crossing: Crossing) -> None:
        verdict = await self._ctx.check(crossing)
        if not verdict.allowed:
            raise CannotOpenRoom(refusal_by(verdict))

    async def _require_join_allowed(
        self, room_id: str, user: str, servers: frozenset[str], *, again: bool = False
    ) -> None:
        await self._require_allowed(
            Join(
                network=self._ctx.id,
                room=room_id,
                user=NativeId(self._ctx.id, user),
                user_server=self._own.server,
                outbound=True,
                servers=servers,
                again=again,
            )
        )

    async def join(
        self, room_id: str, user: str, via: Sequence[str], more: Mapping[str, Any] = _NOTHING
    ) -> MatrixRoom:
        """Joins the room as this user. One join of a room at a time. ``more`` is further content of the
        member event, such as a reason. Raises ``CannotOpenRoom``.

        The policies are asked twice: about the address before any server is asked, about the room's servers
        before anything is stored; a denial then is followed by a leave at once.
        """
        under_way = self._joining.get(room_id)
        if under_way is None:
            work = self._join_once(room_id, user, via, more)
            under_way = asyncio.get_running_loop().create_task(work)
            self._joining[room_id] = under_way
            under_way.add_done_callback(lambda _: self._joining.pop(room_id, None))
        return await asyncio.shield(under_way)

    async def _join_once(
        self, room_id: str, user: str, via: Sequence[str], more: Mapping[str, Any]
    ) -> MatrixRoom:
        await self._require_join_allowed(room_id, user, frozenset(via))
        problem: Exception = ServerUnreachable("no server of the room is known")
        offers = self._request_templates("join", room_id, user, via, more)
        try:
            async for offer in offers:
                if isinstance(offer, Exception):
                    problem = offer
                    if isinstance(offer, RemoteError) and offer.hint == 403 and offer.code == "M_FORBIDDEN":
                        break
                    continue
                try:
                    async with self._places.hold_slot(("person", user), ("server", offer.server)):
                        return await self._join_by(offer, room_id, user)
                except Busy as busy:
                    raise _cannot_open(RefusalCode.BUSY, busy.reason) from busy
                except REQUEST_FAILURES as error:
                    self._ctx.log.info("joining %s by %s: %s", room_id, offer.server, error)
                    problem = error
        finally:
            await offers.aclose()
        raise _gave_up(problem) from problem

    async def _request_templates(
        self, step: str, room_id: str, user: str, via: Sequence[str], more: Mapping[str, Any] = _NOTHING
    ) -> AsyncGenerator[_MembershipTemplate | Exception, None]:
        """Yields the answers of the candidates to ``make_<step>`` as they arrive. The next candidate is asked
        when one has refused, and when none has answered for a while.
        """
        waiting = deque(dict.fromkeys(s for s in via if s != self._own.server))
        asked: dict[asyncio.Task[_MembershipTemplate], str] = {}
        try:
            while waiting or asked:
                if waiting:
                    server = waiting.popleft()
                    work = self._make_membership(server, step, room_id, user, more)
                    asked[asyncio.get_running_loop().create_task(work)] = server
                done, _ = await asyncio.wait(
                    asked, timeout=_STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in [one for one in asked if one in done]:
                    del asked[task]
                    try:
                        yield task.result()
                    except REQUEST_FAILURES as error:
                        yield error
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _make_membership(
        self, server: str, step: str, room_id: str, user: str, more: Mapping[str, Any]
    ) -> _MembershipTemplate:
        versions = "&".join(f"ver={v}" for v in VERSIONS)
        make = build_path("_matrix", "federation", "v1", f"make_{step}", room_id, user)
        target = make if step == "leave" else f"{make}?{versions}"
        answer = await self._client.request("GET", server, target)
        said = answer.get("room_version", "1") if isinstance(answer, dict) else ""
        version = version_of(said)
        if version is None:
            named = said if isinstance(said, str) and ids.fits_255_bytes(said) else ""
            why = "the room's version is not spoken here"
            raise RemoteError(why, hint=400, code=INCOMPATIBLE, room_version=named)
        event = parse_make_join(answer, room_id, user, step, version)
        event["origin"] = self._own.server  # COMPAT: Rocket.Chat takes no join or leave without it
        if step != "leave":
            more = {**await self.profile(user), **more}
        event["content"] = {**more, **event["content"]}
        return _MembershipTemplate(server, version, self._sign_template(event, version))

    async def _join_by(self, offer: _MembershipTemplate, room_id: str, user: str) -> MatrixRoom:
        server, version, event = offer
        self._ctx.report_progress(f"joining {room_id}", 0)
        try:
            reader = SendJoinReader(room_id, version)
            checks = EarlyChecks(reader, version, self._keyring)
            rest = await send_join(
                self._client,
                server,
                event,
                omit_members=False,
                take=reader.add_values,
                between=checks.between,
                seconds=300.0,
            )
            parsed = reader.finish(rest)
            event = await self._verify_authoriser(
                with_returned_signatures(event, parsed.event, version), version
            )
            servers = {ids.domain_of(p.sender) for p in parsed.state if p.type == "m.room.member"}
            try:
                await self._require_join_allowed(
                    room_id, user, frozenset(servers | set(parsed.servers)), again=True
                )
            except CannotOpenRoom:
                await self.leave_remote(room_id, user, [server])
                raise
            return await self._persist_join(event, parsed, version, checks)
        finally:
            self._ctx.report_progress(f"joining {room_id}", 1, 1)

    async def get_cosigned_join(self, room_id: str, user: str, via: Sequence[str]) -> tuple[Pdu, str]:
        """A join of a room that we are in, with the signature of the resident that lets the user in, and that
        resident, which has it in the room by now. Raises ``CannotOpenRoom``.
        """
        await self._require_join_allowed(room_id, user, frozenset(via))
        problem: Exception = ServerUnreachable("no other server of the room is known")
        offers = self._request_templates("join", room_id, user, via)
        try:
            async for offer in offers:
                if isinstance(offer, Exception):
                    problem = offer
                    continue
                server, version, event = offer
                try:
                    rest = await send_join(
                        self._client,
                        server,
                        event,
                        omit_members=True,
                        take=lambda _name, _values: None,  # the room's state is here
                        seconds=60.0,
                    )
                    came = rest.get("event") if isinstance(rest, dict) else None
                    join = with_returned_signatures(event, came if isinstance(came, dict) else None, version)
                    return await self._verify_authoriser(join, version), server
                except REQUEST_FAILURES as error:
                    self._ctx.log.info("joining %s by %s: %s", room_id, server, error)
                    problem = error
        finally:
            await offers.aclose()
        raise _gave_up(problem) from problem

    async def knock(
        self, room_id: str, user: str, via: Sequence[str], more: Mapping[str, Any] = _NOTHING
    ) -> tuple[Pdu, str, str, list[Any]]:
        """Knock by the first server that takes it: ``(event, server, room version, what is shown of the
        room)``. Raises ``CannotOpenRoom``.
        """
        await self._require_allowed(
            Knock(
                network=self._ctx.id,
                room=room_id,
                user=NativeId(self._ctx.id, user),
                user_server=self._own.server,
                outbound=True,
                servers=frozenset(via),
            )
        )
        problem: Exception = ServerUnreachable("no server of the room is known")
        offers = self._request_templates("knock", room_id, user, via, more)
        try:
            async for offer in offers:
                if isinstance(offer, Exception):
                    problem = offer
                    continue
                server, version, event = offer
                send = build_path("_matrix", "federation", "v1", "send_knock", room_id, event.event_id)
                try:
                    answer = await self._client.request("PUT", server, send, event.raw)
                except REQUEST_FAILURES as error:
                    problem = error
                    continue
                shown = answer.get("knock_room_state") if isinstance(answer, dict) else None
                return event, server, version.id, shown[:100] if isinstance(shown, list) else []
        finally:
            await offers.aclose()
        raise _gave_up(problem) from problem

    async def _verify_authoriser(self, join: Pdu, version: RoomVersion) -> Pdu:
        """The join, if the server that authorised it has signed it. Raises RemoteProtocolError."""
        others = required_servers(join, version) - {self._own.server}
        await self._keyring.ensure_keys(signing_key_ids(join, others), key_valid_at(join, version))
        problem = signature_problem(join, version, self._keyring.get, verify_signature, others)
        if problem is not None:
            raise RemoteProtocolError(problem)
        return join

    def _sign_template(self, event: dict[str, Any], version: RoomVersion) -> Pdu:
        event["origin_server_ts"] = self._ctx.clock.now()
        if version.server_made_event_ids:
            event["event_id"] = self._own.event_id()
        return hash_and_sign(event, version, self._own.server, (self._own.key.key_id, self._own.key.sign))

    async def _persist_join(
        self, join: Pdu, answer: SendJoinResponse, version: RoomVersion, checks: EarlyChecks
    ) -> MatrixRoom:
        """Judge what the resident gave, then keep it and our join in one commit."""
        seen = await checks.finished()
        for pause in _KEY_PAUSES:
            if not seen.awaited:
                break
            await asyncio.sleep(pause)
            await self._keyring.ask_again(seen.awaited[: outliers.MAX_IN_VAIN])
            seen = await checks.finished()
        of_room = RoomEvents(self._events, join.room_id)
        taken = await of_room.taken_ids([*seen.good, join], version)
        if join.event_id in taken:
            raise RemoteProtocolError("the join has the id of another event")
        good = [pdu for pdu in seen.good if pdu.event_id not in taken]
        made = await outliers.check_auth(self._ctx, good, version, of_room, answer.create)
        if answer.create.event_id not in made:
            raise RemoteProtocolError("the create event could not be verified")
        if seen.lost or answer.dropped:
            dropped = seen.lost + answer.dropped
            self._ctx.log.warning("%d events of %s were dropped", dropped, join.room_id)
        return await again_on_conflict(partial(self._try_persist_join, join, answer, version, made))

    async def _try_persist_join(
        self,
        join: Pdu,
        answer: SendJoinResponse,
        version: RoomVersion,
        made: Mapping[str, StoredEvent],
    ) -> MatrixRoom:
        """Commit the room as it is after our join. Raises ``Conflict`` where another has changed it since it
        was read.
        """
        state: dict[StateKey, str] = {}
        for pdu in answer.state:
            stored = made.get(pdu.event_id)
            if stored is not None and stored.status is not Status.REJECTED and pdu.state_key is not None:
                state[pdu.key] = pdu.event_id
        attendance, user = self._own.memberships, join.state_key or ""
        of_room = RoomEvents(self._events, join.room_id)
        row = await self._ctx.store.get("room", (join.room_id,))
        if row is None:
            room = MatrixRoom(join.room_id, version, self._ctx.store, self._events)
        else:
            room = MatrixRoom.load(join.room_id, row.body, self._ctx.store, self._events)
        await room.groups.catch_up()
        room.resident = True
        if room.attended:
            room.returns = (*room.returns, join.event_id)[-_RETURNS:]
        room.attended = room.attended or await attendance.has_account(user)
        await asyncio.sleep(0)  # each of these steps takes some milliseconds for twenty thousand people
        before = room.groups.grow(0, {}, state)
        await asyncio.sleep(0)
        after = room.groups.after(before, state, join.key, join.event_id)
        place = room.head.last + GAP if row is not None else FIRST
        mine = StoredEvent(join, Status.ACCEPTED, before, after, live=room.attended, depth=place)
        depth = max([join.depth, *(p.depth for p in answer.state)])
        placed = await of_room.load(join.prev_events, version)
        lacking = [e for e in join.prev_events if e not in placed or not placed[e].after]
        room.head = RoomHead(
            extremities={join.event_id: after},
            group=after,
            depth=min(depth, join.depth + 1),
            behind=tuple(dict.fromkeys([*lacking, *room.head.behind]))[:BEHIND],
            join_depth=place,
            last=place,
            below={**room.head.below, **dict.fromkeys(lacking, place)},
            gaps=room.head.gaps,
        )
        had, names = dict[str, StoredEvent](), list(made)
        for at in range(0, len(names), outliers.READ):
            had |= await self._events.load(names[at : at + outliers.READ], version)
        # An event that has its place keeps it, and where servers make ids another room keeps its event.
        fresh: list[Write] = [
            one.insert() if e not in had else one.put()
            for e, one in made.items()
            if e not in had or _is_outlier_of(had[e], join.room_id)
        ]
        for at in range(0, len(fresh), _MAX_BATCH):
            await self._ctx.store.commit([*room.unchanged_writes(), *fresh[at : at + _MAX_BATCH]])
        await room.groups.ahead()
        keeping = room.room_writes(room.head)
        await self._ctx.store.commit([*keeping, mine.put()])
        room.committed(keeping)
        self._events.keep([mine])  # the others are packed
        return room

    async def leave_remote(
        self, room_id: str, user: str, via: Sequence[str], more: Mapping[str, Any] = _NOTHING
    ) -> Pdu | None:
        """Leave, or decline an invite, by a server that is in the room; None if none took it."""
        offers = self._request_templates("leave", room_id, user, via, more)
        try:
            async for offer in offers:
                if isinstance(offer, Exception):
                    self._ctx.log.info("leaving %s: %s", room_id, offer)
                    continue
                try:
                    await send_leave(self._client, offer.server, offer.event)
                except REQUEST_FAILURES as error:
                    self._ctx.log.info("leaving %s by %s: %s", room_id, offer.server, error)
                    continue
                return offer.event
        finally:
            await offers.aclose()
        return None


def _is_outlier_of(stored: StoredEvent, room_id: str) -> bool:
    """True if an event belongs to that room and has no place in its DAG."""
    return not stored.after and stored.pdu.room_id == room_id
