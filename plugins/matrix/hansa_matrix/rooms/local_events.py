"""Events of this server's users that are sent for them. SPEC: client-server API, "Room Events"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hansa import (
    Busy,
    Content,
    LocalProtocolError,
    Message,
    NativeId,
    NetworkContext,
    Refusal,
    RefusalCode,
    Style,
    Submission,
    SubmitResult,
)

from hansa_matrix.conversion.from_matrix import names_events
from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import ACL_KEY, MEMBER, POWER_LEVELS, POWER_LEVELS_KEY
from hansa_matrix.proto.servers.server_acl import parse_acl
from hansa_matrix.rooms.content_in_room import content_of_draft
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.native_events import ClientEvent, DerivedState
from hansa_matrix.rooms.room import MatrixRoom

#: Times that power levels are made again because others came between.
_MAX_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class LocalEvent:
    """An event that a local user sends, as the core sees it and as the room's turn builds it."""

    content: Content
    native: EventDraft | ClientEvent | DerivedState


async def submit_local_event(
    ctx: NetworkContext,
    sender: NativeId,
    room_id: str,
    event: LocalEvent,
    *,
    origin: str = "",
    confined: bool = False,
) -> SubmitResult:
    """Submit one event of a local user: its room's turn builds, signs and sends it. The same ``origin`` again
    is the same event; empty for one that is sent once. One that is ``confined`` stays on Matrix. Raises
    ``Busy`` and what ``submit`` raises.
    """
    submission = Submission(
        origin=NativeId(ctx.id, origin or f"own-{ctx.random.bytes(12).hex()}"),
        room=NativeId(ctx.id, room_id),
        sender=sender,
        content=event.content,
        ts=ctx.clock.now(),
        native=event.native,
        local=True,
        native_targets=names_events(event.content),
        confined=confined,
    )
    (result,) = await ctx.submit([submission])
    return result


class LocalEvents:
    """Events by local users, judged by the rules of the room and by policies as any event is. ``user`` is the
    bridge user.
    """

    def __init__(self, own: LocalServer) -> None:
        self._ctx: NetworkContext = own.ctx
        self.user = own.bridge_user
        self._rooms = own.rooms
        self._own = own

    def require_room(self, room_id: str) -> MatrixRoom:
        """A room that we are in. Raises LocalProtocolError."""
        return self._rooms.require_resident(room_id)

    async def send_state(
        self, room_id: str, type_: str, state_key: str | None, content: Mapping[str, Any]
    ) -> str:
        """Send one event, a state event if it has a state key; its id. Raises LocalProtocolError if the
        room's rules or a policy refuse.
        """
        self.require_room(room_id)
        server = ids.domain_of(self.user)
        if (type_, state_key) == ACL_KEY and not parse_acl(content).allows(server):
            raise LocalProtocolError(f"this server ACL would bar {server} itself")
        draft = (type_, state_key, dict(content))
        what = await content_of_draft(self._own, room_id, draft)
        return await self.require_sent(type_, await self._submit_event(self.user, room_id, what, draft))

    async def require_sent(self, type_: str, outcome: SubmitResult) -> str:
        """The id of an event that was sent. Raises LocalProtocolError if the rules or a policy refuse."""
        if outcome.event is None:
            why = outcome.refusal.text if outcome.refusal else outcome.verdict.text
            raise LocalProtocolError(f"{type_} was refused: {why}")
        return await self._ctx.native_id(outcome.event) or ""

    async def change_power_levels(
        self, sender: str, room_id: str, change: Callable[[Mapping[str, Any] | None], dict[str, Any] | None]
    ) -> SubmitResult | None:
        """Sends power levels that are made of those of now, which are None where there are none; they are
        made again where others came between. None where ``change`` returns None. Raises ``Busy``.
        """
        room = self.require_room(room_id)
        for _ in range(_MAX_ROUNDS):
            present = (await room.events_of(await room.state(), [POWER_LEVELS_KEY])).get(POWER_LEVELS_KEY)
            content = change(present.content if present is not None else None)
            if content is None:
                return None
            draft = (POWER_LEVELS, "", content)
            native = DerivedState(draft, present.event_id if present is not None else "")
            event = LocalEvent(await content_of_draft(self._own, room_id, draft), native)
            outcome = await submit_local_event(self._ctx, NativeId(self._ctx.id, sender), room_id, event)
            if outcome.refusal is None or outcome.refusal.code is not RefusalCode.CONFLICT:
                return outcome
        raise Busy("the power levels change again and again", after=1.0)

    async def send_membership(
        self, sender: str, room_id: str, what: Content, state_key: str, content: Mapping[str, Any]
    ) -> Refusal | None:
        """Sends a member event of a local user; returns the reason of a refusal."""
        return await self.send(sender, room_id, what, (MEMBER, state_key, dict(content)))

    async def send(self, sender: str, room_id: str, what: Content, draft: EventDraft) -> Refusal | None:
        """Sends an event of a local user; returns the reason of a refusal."""
        return (await self._submit_event(sender, room_id, what, draft)).refusal

    async def send_notice(self, room_id: str, text: str, mentioned: Sequence[str] = ()) -> None:
        """Sends a notice of the bridge user that other networks do not get, for these users. Raises
        LocalProtocolError where the bridge user may not write in the room.
        """
        self.require_room(room_id)
        people = tuple(NativeId(self._ctx.id, user) for user in mentioned)
        notice = Message(text=text, style=Style.NOTICE, mentions=people)
        content = {"msgtype": "m.notice", "body": text, "m.mentions": {"user_ids": list(mentioned)}}
        draft = ("m.room.message", None, content)
        sender, event = NativeId(self._ctx.id, self.user), LocalEvent(notice, draft)
        outcome = await submit_local_event(self._ctx, sender, room_id, event, confined=True)
        if (refusal := outcome.refused) is not None:
            raise LocalProtocolError(f"{self.user} cannot answer in {room_id}: {refusal.text}")

    async def _submit_event(
        self, sender: str, room_id: str, what: Content, draft: EventDraft
    ) -> SubmitResult:
        return await submit_local_event(
            self._ctx, NativeId(self._ctx.id, sender), room_id, LocalEvent(what, draft)
        )
