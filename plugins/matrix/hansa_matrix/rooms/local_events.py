"""What an operator does in a room in the name of the bridge user. SPEC: client-server API, "Room Events"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from hansa import (
    AdminCommand,
    Content,
    Custom,
    LocalProtocolError,
    NativeId,
    NetworkContext,
    Refusal,
    Submission,
    SubmitResult,
)

from hansa_matrix.conversion import OwnDraft
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.levels import levels_said
from hansa_matrix.proto.auth_rules.state_keys import ACL_KEY, CREATE, MEMBER, POWER_LEVELS, POWER_LEVELS_KEY
from hansa_matrix.proto.servers.server_acl import acl_of
from hansa_matrix.rooms.redactions import REDACTION
from hansa_matrix.rooms.room import MatrixRoom


class Administration:
    """State events by the bridge user, judged by the room's rules as anybody's."""

    def __init__(self, ctx: NetworkContext, user: str, room_of: Callable[[str], MatrixRoom | None]) -> None:
        self._ctx = ctx
        self._user = user
        self._room_of = room_of

    def operations(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.operations``."""
        return {"rooms set": self._set, "rooms level": self._level, "rooms redact": self._redact}

    def room(self, room_id: str) -> MatrixRoom:
        """A room that we are in. Raises LocalProtocolError."""
        room = self._room_of(room_id)
        if room is None or not room.resident:
            raise LocalProtocolError(f"this server is not in {room_id}: `hansa matrix rooms ls` lists rooms")
        return room

    async def _redact(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        reason = {"reason": str(arguments["reason"])} if arguments.get("reason") else {}
        content = {"redacts": str(arguments["event"]), **reason}
        return {"event": await self.state(str(arguments["room"]), REDACTION, None, content)}

    async def state(self, room_id: str, type_: str, state_key: str | None, content: Mapping[str, Any]) -> str:
        """Send one event, a state event if it has a state key; its id. Raises LocalProtocolError if the
        room's rules or a policy refuse.
        """
        self.room(room_id)
        server = ids.domain_of(self._user)
        if (type_, state_key) == ACL_KEY and not acl_of(content).allows(server):
            raise LocalProtocolError(f"this server ACL would bar {server} itself")
        draft = (type_, state_key, dict(content))
        outcome = await self._submit(self._user, room_id, Custom(type=type_), draft)
        if outcome.event is None:
            why = outcome.refusal.text if outcome.refusal else outcome.verdict.text
            raise LocalProtocolError(f"{type_} was refused: {why}")
        return await self._ctx.native_id(outcome.event) or ""

    async def said(
        self, sender: str, room_id: str, what: Content, state_key: str, content: Mapping[str, Any]
    ) -> Refusal | None:
        """A member event by somebody of ours; why it was refused."""
        return await self.say(sender, room_id, what, (MEMBER, state_key, dict(content)))

    async def say(self, sender: str, room_id: str, what: Content, draft: OwnDraft) -> Refusal | None:
        """An event by somebody of ours; why it was refused."""
        return (await self._submit(sender, room_id, what, draft)).refusal

    async def _submit(self, sender: str, room_id: str, what: Content, draft: OwnDraft) -> SubmitResult:
        inbound = Submission(
            origin=NativeId(self._ctx.id, f"own-{self._ctx.random.bytes(12).hex()}"),
            room=NativeId(self._ctx.id, room_id),
            sender=NativeId(self._ctx.id, sender),
            content=what,
            ts=self._ctx.clock.now(),
            native=draft,
            local=True,
        )
        return (await self._ctx.submit([inbound]))[0]

    async def _set(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        try:
            content = orjson.loads(arguments["content"])
        except orjson.JSONDecodeError as error:
            raise LocalProtocolError(f"the content must be JSON: {error}") from error
        type_ = str(arguments["type"])
        if not isinstance(content, dict) or type_ == CREATE:
            raise LocalProtocolError("the content must be an object, and a room is created only once")
        key = str(arguments.get("key") or "")
        return {"event": await self.state(str(arguments["room"]), type_, key, content)}

    async def _level(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        room, user = self.room(str(arguments["room"])), str(arguments["user"])
        if not ids.valid_user_id(user):
            raise LocalProtocolError(f"{user!r} is not a user ID")
        present = (await room.events_of(await room.state(), [POWER_LEVELS_KEY])).get(POWER_LEVELS_KEY)
        content = dict(present.content) if present is not None else {}
        content["users"] = {**levels_said(content, "users"), user: int(arguments["level"])}
        return {"event": await self.state(room.room_id, POWER_LEVELS, "", content)}
