"""Asking the policies about what crosses the border beside the events of a room: here what they deny becomes
an error answer, or silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hansa import (
    Crossing,
    DirectoryQuery,
    KeysQuery,
    NativeId,
    NetworkContext,
    Presence,
    ProfileChange,
    ProfileQuery,
    ToDevice,
    Verdict,
    decision_fields,
    strings_of,
)

from hansa_matrix.errors import denial_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.texts import FORMS, NAMES, texts_of_event, texts_of_pdu


async def require_allowed(ctx: NetworkContext, crossing: Crossing) -> None:
    """Raises the error answer of a crossing that a policy denies."""
    verdict = await ctx.check(crossing)
    if not verdict.allowed:
        raise denial_error(verdict)


async def is_allowed(ctx: NetworkContext, crossing: Crossing) -> bool:
    """True if the policies allow a crossing that has no waiting caller; a denied one is counted."""
    if not ctx.has_policies:
        return True
    verdict = await ctx.check(crossing)
    if not verdict.allowed:
        ctx.count("matrix_crossings_denied", crossing=type(crossing).__name__)
    return verdict.allowed


def failure_entry(verdict: Verdict) -> dict[str, Any]:
    """Returns the entry of ``failures`` for a server that a policy forbids to ask."""
    status, code = (429, "M_LIMIT_EXCEEDED") if verdict.retry_after else (403, "M_FORBIDDEN")
    said = {"errcode": code, "error": verdict.text, **decision_fields(verdict.decision)}
    return {"status": status, "message": verdict.text, **said}


def texts_of_values(**values: Any) -> tuple[str, ...]:
    """Returns the texts for people in some values, named as in an event's content."""
    return strings_of(values, names=NAMES, forms=FORMS)


def words_of(pdu: Pdu) -> tuple[str, ...]:
    """Returns the texts for people in an event."""
    return texts_of_pdu(pdu.type, pdu.state_key, pdu.raw)


class Crossings:
    """The crossings of one server's network, by what happens."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    def profile_query(self, server: str, user: str, *, outbound: bool) -> ProfileQuery:
        """A profile is asked for."""
        return ProfileQuery(
            network=self._ctx.id, server=server, user=NativeId(self._ctx.id, user), outbound=outbound
        )

    def profile_change(self, user: str, said_: tuple[str, ...], *, again: bool = False) -> ProfileChange:
        """Returns the question about a user's change of profile or device name; ``again`` where others read
        it.
        """
        return ProfileChange(
            network=self._ctx.id,
            user=NativeId(self._ctx.id, user),
            user_server=ids.domain_of(user),
            texts=said_,
            again=again,
        )

    def directory_query(
        self, server: str, address: str, *, outbound: bool, texts: tuple[str, ...] = ()
    ) -> DirectoryQuery:
        """A room is looked up, or rooms are; ``texts`` are what another server says of one."""
        return DirectoryQuery(
            network=self._ctx.id, server=server, address=address, outbound=outbound, texts=texts
        )

    def keys_query(self, server: str, users: Iterable[str], *, outbound: bool) -> KeysQuery:
        """Keys of devices are asked for, or claimed."""
        named = tuple(NativeId(self._ctx.id, user) for user in users)
        return KeysQuery(network=self._ctx.id, server=server, users=named, outbound=outbound)

    def to_device(
        self,
        sender: str,
        type_: str,
        messages: Mapping[str, Mapping[str, Any]],
        *,
        outbound: bool,
        again: bool = False,
    ) -> ToDevice:
        """Messages for devices of some people."""
        contents = [content for devices in messages.values() for content in devices.values()]
        found = dict.fromkeys(text for content in contents for text in texts_of_event(type_, None, content))
        return ToDevice(
            network=self._ctx.id,
            sender=NativeId(self._ctx.id, sender),
            sender_server=ids.domain_of(sender),
            users=tuple(NativeId(self._ctx.id, user) for user in messages),
            servers=frozenset(map(ids.domain_of, messages)),
            type=type_,
            outbound=outbound,
            texts=tuple(found),
            again=again,
        )

    def presence(self, user: str, status: str, servers: Iterable[str] = ()) -> Presence:
        """Returns the question about a user's presence; ``servers`` are those that will get it."""
        told = frozenset(servers)
        return Presence(
            network=self._ctx.id,
            user=NativeId(self._ctx.id, user),
            user_server=ids.domain_of(user),
            servers=told,
            outbound=bool(told),
            texts=(status,) if status else (),
        )
