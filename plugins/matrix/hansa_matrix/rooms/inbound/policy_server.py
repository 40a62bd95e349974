"""Asking a room's policy server. SPEC: server-server API, "Policy Servers"; P-1 to P-6.

A server that does not answer is not asked again for a while: what comes meanwhile is soft-failed at once, and
what our own people say is refused.
"""

from __future__ import annotations

from hansa import CircuitBreaker, LruCache

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.client import REQUEST_FAILURES, FederationClient, RemoteError, ServerUnreachable
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.servers.policy_server import PolicyServer, add_policy_signature, is_exempt, is_signed
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom

_SIGN = "/_matrix/policy/v1/sign"
#: Seconds for one answer; failures in a row after which a server is left alone, and for how long (s).
_TIMEOUT_S, _MAX_FAILURES, _PAUSE_S = 15.0, 3, 60.0
#: Servers that failed last and are remembered.
_MAX_BREAKERS = 1000


class PolicyServerClient:
    """Gets the signatures of policy servers, for the events that need one."""

    def __init__(self, own: LocalServer, client: FederationClient) -> None:
        self._own = own
        self._ctx = own.ctx
        self._client = client
        self._breakers: LruCache[str, CircuitBreaker] = LruCache(_MAX_BREAKERS)

    async def policy_server_of(self, room: MatrixRoom) -> PolicyServer | None:
        """The policy server of a room, if it has one that is in it and is not ourselves."""
        server = await room.policy()
        if server is None or server.via == self._own.server:
            return None
        view = self._ctx.get_view(room.room_id)
        return server if view is not None and (self._ctx.id, server.via) in view.joined_servers else None

    async def missing_signature(self, room: MatrixRoom, pdu: Pdu) -> PolicyServer | None:
        """The policy server whose signature an event has to have and has not."""
        if is_exempt(pdu.type, pdu.state_key):
            return None
        server = await self.policy_server_of(room)
        if server is None or is_signed(pdu, room.version, server, verify_signature):
            return None
        return server

    async def adds_signature(self, room: MatrixRoom, one: Pdu, again: Pdu) -> bool:
        """True if ``again``, the same event, has the signature that ``one`` lacks."""
        return (
            await self.missing_signature(room, one) is not None
            and await self.missing_signature(room, again) is None
        )

    async def sign_outgoing(self, room: MatrixRoom, pdu: Pdu) -> Pdu:
        """As ``signed`` for an event that a local user wants to send; but a user may always leave, even if
        the policy server does not recommend it.
        """
        try:
            return await self.ensure_signed(room, pdu)
        except REQUEST_FAILURES:
            if (pdu.type, pdu.state_key, pdu.membership) == (MEMBER, pdu.sender, "leave"):
                return pdu
            raise

    async def ensure_signed(self, room: MatrixRoom, pdu: Pdu) -> Pdu:
        """The event with the signature that it needs. Raises ``RemoteError`` if the policy server does not
        recommend it, ``ServerUnreachable`` if it does not say.
        """
        server = await self.missing_signature(room, pdu)
        if server is None:
            return pdu
        breaker = self._breakers.get(server.via)
        if breaker is not None and breaker.is_open:
            raise ServerUnreachable(f"the room's policy server {server.via} does not answer")
        try:
            answer = await self._client.request("POST", server.via, _SIGN, pdu.raw, seconds=_TIMEOUT_S)
        except RemoteError:
            self._breakers.pop(server.via)
            self._ctx.count("matrix_policy_refused")
            raise
        except REQUEST_FAILURES as error:
            self._ctx.count("matrix_policy_failed")
            self._record_failure(server.via)
            detail = f"the room's policy server does not answer: {getattr(error, 'detail', error)}"
            raise ServerUnreachable("the room's policy server does not answer", detail=detail) from error
        self._breakers.pop(server.via)
        signed = add_policy_signature(pdu, room.version, server, answer)
        if signed is None or not is_signed(signed, room.version, server, verify_signature):
            self._ctx.count("matrix_policy_refused")
            raise RemoteError(f"the room's policy server {server.via} gave no valid signature", hint=403)
        return signed

    def _record_failure(self, server: str) -> None:
        breaker = self._breakers.get(server) or CircuitBreaker(self._ctx.clock, _MAX_FAILURES, _PAUSE_S)
        breaker.failed()
        self._breakers.put(server, breaker)
