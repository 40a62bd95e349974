"""Entering and leaving rooms that live elsewhere. SPEC: server-server API, "Joining", "Leaving Rooms"."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson
from hansa import Join, NetworkContext, Put, Ref, Refusal, RefusalCode, RemoteProtocolError, RoomRefused

from hansa_matrix.crypto import verify
from hansa_matrix.federation.client import Client, Refused, Unreachable, path
from hansa_matrix.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.joins import JoinAnswer, check_answer, check_template, joined
from hansa_matrix.proto.pdu import finish, key_ids, needed_at, required_servers, unsigned_by
from hansa_matrix.proto.versions import VERSIONS, RoomVersion, version_of
from hansa_matrix.room import outliers
from hansa_matrix.room.events import Events, Status, Stored
from hansa_matrix.room.native import Own
from hansa_matrix.room.room import Head, MatrixRoom

#: A room is joined without those whose server gives no key, but not for one lost request (s).
_KEY_PAUSES = (1.0, 4.0, 10.0)


def _refused(code: RefusalCode, text: str, decision: str = "") -> RoomRefused:
    return RoomRefused(Refusal(code=code, text=text, decision=decision))


class Membership:
    """Joins and leaves by the handshake of two requests."""

    def __init__(self, own: Own, client: Client, keyring: Keyring, events: Events) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._client = client
        self._keyring = keyring
        self._events = events
        self._joining: dict[str, asyncio.Task[MatrixRoom]] = {}

    async def resolve(self, alias: str) -> tuple[str, list[str]]:
        """The room id and servers behind an alias elsewhere. Raises ``RoomRefused``."""
        server = ids.domain_of(alias)
        target = f"/_matrix/federation/v1/query/directory?room_alias={quote(alias, safe='')}"
        try:
            answer = await self._client.request("GET", server, target)
        except Refused as error:
            code = RefusalCode.NOT_FOUND if error.hint == 404 else RefusalCode.FORBIDDEN
            raise _refused(code, f"{alias}: {error.reason}") from error
        except (Unreachable, RemoteProtocolError) as error:
            raise _refused(RefusalCode.UNREACHABLE, str(error)) from error
        room_id = answer.get("room_id") if isinstance(answer, dict) else None
        servers = answer.get("servers") if isinstance(answer, dict) else None
        if not ids.valid_room_id(room_id):
            raise _refused(RefusalCode.NOT_FOUND, f"{server} gave no room for {alias}")
        named = [s for s in servers if ids.valid_server_name(s)] if isinstance(servers, list) else []
        return str(room_id), list(dict.fromkeys([server, *named]))[:20]

    async def _may(self, room_id: str, user: str, servers: frozenset[str]) -> None:
        verdict = await self._ctx.check(
            Join(
                network=self._ctx.id,
                room=room_id,
                user=Ref(self._ctx.id, user),
                user_server=self._own.server,
                outbound=True,
                servers=servers,
            )
        )
        if not verdict.allowed:
            raise _refused(RefusalCode.POLICY, verdict.text, verdict.decision)

    async def join(self, room_id: str, user: str, via: Sequence[str]) -> MatrixRoom:
        """Be in the room with this user. One join of a room at a time. Raises ``RoomRefused``.

        Asked of policy twice: the address before anybody is asked, the room's servers before anything is
        kept; a denial then is followed by a leave at once.
        """
        under_way = self._joining.get(room_id)
        if under_way is None:
            work = self._join(room_id, user, via)
            under_way = asyncio.get_running_loop().create_task(work)
            self._joining[room_id] = under_way
            under_way.add_done_callback(lambda _: self._joining.pop(room_id, None))
        return await asyncio.shield(under_way)

    async def _join(self, room_id: str, user: str, via: Sequence[str]) -> MatrixRoom:
        await self._may(room_id, user, frozenset(via))
        problem: Exception = Unreachable("no server of the room is known")
        for server in via:
            if server == self._own.server:
                continue
            try:
                return await self._join_by(server, room_id, user)
            except Refused as error:
                problem = error
                if error.hint == 403 and error.code == "M_FORBIDDEN":
                    break
            except (Unreachable, RemoteProtocolError) as error:
                problem = error
        code = RefusalCode.UNREACHABLE
        if isinstance(problem, Refused):
            code = RefusalCode.NOT_FOUND if problem.hint == 404 else RefusalCode.INVITE_ONLY
        raise _refused(code, str(problem)) from problem

    async def _join_by(self, server: str, room_id: str, user: str) -> MatrixRoom:
        versions = "&".join(f"ver={v}" for v in VERSIONS)
        make = path("_matrix", "federation", "v1", "make_join", room_id, user)
        answer = await self._client.request("GET", server, f"{make}?{versions}")
        version = version_of(answer.get("room_version", "1") if isinstance(answer, dict) else "")
        if version is None:
            raise RemoteProtocolError("the room's version is not one that was offered")
        event = self._completed(answer, room_id, user, "join", version)
        send = path("_matrix", "federation", "v2", "send_join", room_id, event.event_id)
        given = await self._client.request(
            "PUT", server, f"{send}?omit_members=false", event.raw, seconds=300.0
        )
        parsed = await asyncio.get_running_loop().run_in_executor(None, check_answer, given, room_id, version)
        event = await self._authorised(joined(event, parsed, version), version)
        servers = {ids.domain_of(p.sender) for p in parsed.state if p.type == "m.room.member"}
        try:
            await self._may(room_id, user, frozenset(servers | set(parsed.servers)))
        except RoomRefused:
            await self.leave_remote(room_id, user, [server])
            raise
        return await self._keep(event, parsed, version)

    async def _authorised(self, join: Pdu, version: RoomVersion) -> Pdu:
        """The join, if the server that authorised it has signed it. Raises RemoteProtocolError."""
        others = required_servers(join, version) - {self._own.server}
        await self._keyring.need(key_ids(join, others), needed_at(join, version))
        problem = unsigned_by(join, version, self._keyring.get, verify, others)
        if problem is not None:
            raise RemoteProtocolError(problem)
        return join

    def _completed(self, answer: Any, room_id: str, user: str, membership: str, version: RoomVersion) -> Pdu:
        event = check_template(answer, room_id, user, membership, version)
        event["origin_server_ts"] = self._ctx.clock.now()
        if version.named_event_ids:
            event["event_id"] = self._own.event_id()
        return finish(event, version, self._own.server, (self._own.key.key_id, self._own.key.sign))

    async def _keep(self, join: Pdu, answer: JoinAnswer, version: RoomVersion) -> MatrixRoom:
        """Judge what the resident gave, then keep it and our join in one commit."""
        unique = {p.event_id: p for p in (*answer.chain, *answer.state)}
        good, bad, awaited = await outliers.signed(list(unique.values()), version, self._keyring)
        for pause in _KEY_PAUSES:
            if not awaited:
                break
            await asyncio.sleep(pause)
            await self._keyring.ask_again(awaited)
            good, bad, awaited = await outliers.signed(list(unique.values()), version, self._keyring)
        made = await outliers.judged(self._ctx, good, version, self._events, answer.create)
        if answer.create.event_id not in made:
            raise RemoteProtocolError("the create event could not be verified")
        state: dict[StateKey, str] = {}
        for pdu in answer.state:
            stored = made.get(pdu.event_id)
            if stored is not None and stored.status is not Status.REJECTED and pdu.state_key is not None:
                state[pdu.key] = pdu.event_id
        if bad or answer.dropped:
            self._ctx.log.warning("%d events of %s were dropped", bad + answer.dropped, join.room_id)
        row = await self._ctx.store.get("room", (join.room_id,))
        if row is None:
            room = MatrixRoom(join.room_id, version, self._ctx.store, self._events)
        else:
            room = MatrixRoom.load(join.room_id, row.body, self._ctx.store, self._events)
        room.resident = True
        before, base = room.groups.grow(0, {}, state)
        after, more = room.groups.grow(before, state, {**state, join.key: join.event_id})
        mine = Stored(join, Status.ACCEPTED, before, after)
        depth = max([join.depth, *(p.depth for p in answer.state)])
        placed = await self._events.load(join.prev_events, version)
        room.head = Head(
            extremities={join.event_id: after},
            group=after,
            depth=min(depth, join.depth + 1),
            behind=tuple(e for e in join.prev_events if e not in placed or not placed[e].after),
            floor=join.depth,
        )
        had = await self._events.load(made, version)
        puts = [one.put() for e, one in made.items() if e not in had or not had[e].after]
        for at in range(0, len(puts), 500):
            await self._ctx.store.commit(puts[at : at + 500])
        await self._ctx.store.commit([*base, *more, mine.put(), room.put(room.head)])
        self._events.keep([one for e, one in made.items() if e not in had or not had[e].after])
        self._events.keep([mine])
        return room

    async def leave_remote(self, room_id: str, user: str, via: Sequence[str]) -> bool:
        """Leave, or decline an invite, by a server that is in the room; False if none took it."""
        for server in via:
            make = path("_matrix", "federation", "v1", "make_leave", room_id, user)
            try:
                answer = await self._client.request("GET", server, make)
                version = version_of(answer.get("room_version", "1") if isinstance(answer, dict) else "")
                if version is None:
                    continue
                event = self._completed(answer, room_id, user, "leave", version)
                send = path("_matrix", "federation", "v2", "send_leave", room_id, event.event_id)
                await self._client.request("PUT", server, send, event.raw)
            except (Unreachable, Refused, RemoteProtocolError) as error:
                self._ctx.log.info("leaving %s by %s: %s", room_id, server, error)
                continue
            return True
        return False

    async def keep_invite(self, pdu: Pdu, state: Sequence[Mapping[str, Any]]) -> None:
        """Remember an invite to a room that we are not in."""
        body = orjson.dumps({"event": pdu.raw, "state": state, "event_id": pdu.event_id})
        await self._ctx.store.commit([Put("invite", (pdu.room_id, pdu.state_key or ""), body)])
