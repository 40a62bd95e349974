"""Inviting people of other servers. SPEC: server-server API, "Inviting to a room".

The invited person's server signs the invite before it is a part of the room, which is also how it hears of
it: a server that is not in the room gets nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import Invite, Member, NativeId, Refusal, RefusalCode, RemoteProtocolError, refusal_by

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.client import (
    REQUEST_FAILURES,
    FederationClient,
    RemoteError,
    build_path,
    is_unrecognized,
)
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import key_valid_at, parse_pdu, signature_problem, signing_key_ids
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.stripped_state import STRIPPED_KEYS
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.remote_membership import INCOMPATIBLE
from hansa_matrix.rooms.native_events import ReceivedPdu
from hansa_matrix.rooms.room import MatrixRoom


class OutboundInvites:
    """Invites out."""

    def __init__(self, own: LocalServer, client: FederationClient, keyring: Keyring) -> None:
        self._own = own
        self._client = client
        self._keyring = keyring

    async def allowed(self, room: str, sender: NativeId, content: Member, target: str) -> Refusal | None:
        """Ask the policies about an invite to ``target``, a user elsewhere."""
        ctx = self._own.ctx
        view = ctx.get_view(room)
        said = [content.name, content.reason, *((view.facts.name, view.facts.topic) if view else ())]
        verdict = await ctx.check(
            Invite(
                network=ctx.id,
                room=room,
                sender=sender,
                sender_server=self._own.server,
                user=content.user,
                outbound=True,
                servers=(view.servers() if view else frozenset()) | {ids.domain_of(target)},
                texts=tuple(filter(None, said)),
            )
        )
        return None if verdict.allowed else refusal_by(verdict)

    async def get_countersigned(self, room: MatrixRoom, draft: Pdu) -> ReceivedPdu | Refusal:
        """The invite with the signature of the invited person's server."""
        server = ids.domain_of(draft.state_key or "")
        shown = await room.shown_of(await room.state(), [*STRIPPED_KEYS, (MEMBER, draft.sender)])
        try:
            answer = await self._request_signature(
                server, room.version, draft, [pdu.raw for pdu in shown.values()]
            )
            signed = await self._with_remote_signature(room, draft, server, answer)
        except RemoteError as error:
            incompatible = error.code == INCOMPATIBLE
            code = RefusalCode.UNSUPPORTED if incompatible else RefusalCode.FORBIDDEN
            return Refusal(code=code, text=f"{server} says: {error.reason}")
        except REQUEST_FAILURES as error:
            return Refusal(code=RefusalCode.UNREACHABLE, text=str(error))
        return ReceivedPdu(pdu=signed, origin=self._own.server, via_handshake=True)

    async def _request_signature(
        self, server: str, version: RoomVersion, draft: Pdu, shown: Sequence[Mapping[str, Any]]
    ) -> Any:
        """The answer of the invited person's server, which may know only how it was done in the beginning."""
        target = build_path("_matrix", "federation", "v2", "invite", draft.room_id, draft.event_id)
        body = {"room_version": version.id, "event": draft.raw, "invite_room_state": shown}
        try:
            return await self._client.request("PUT", server, target, body)
        except RemoteError as error:
            if not version.server_made_event_ids or not is_unrecognized(error):
                raise
        target = build_path("_matrix", "federation", "v1", "invite", draft.room_id, draft.event_id)
        old = {**draft.raw, "unsigned": {"invite_room_state": shown}}
        answer = await self._client.request("PUT", server, target, old)
        return answer[1] if isinstance(answer, list) and len(answer) == 2 else None

    async def _with_remote_signature(self, room: MatrixRoom, draft: Pdu, server: str, answer: Any) -> Pdu:
        """Our own event with one more signature, and nothing else of what was answered."""
        given = parse_pdu(answer.get("event") if isinstance(answer, dict) else None, room.version)
        theirs = given.raw["signatures"].get(server)
        if given.event_id != draft.event_id or not isinstance(theirs, dict):
            raise RemoteProtocolError(f"{server} did not sign the invite that it was sent")
        raw = {**draft.raw, "signatures": {**draft.raw["signatures"], server: theirs}}
        pdu = parse_pdu(raw, room.version)
        await self._keyring.ensure_keys(signing_key_ids(pdu, {server}), key_valid_at(pdu, room.version))
        problem = signature_problem(pdu, room.version, self._keyring.get, verify_signature, {server})
        if problem is not None:
            raise RemoteProtocolError(problem)
        return pdu
