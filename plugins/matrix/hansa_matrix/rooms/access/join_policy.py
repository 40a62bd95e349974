"""Asks the policies whether a user may join a room, or knock on it."""

from __future__ import annotations

from hansa import Join, Knock, NativeId, NetworkContext

from hansa_matrix.crossings import require_allowed, words_of
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu


async def require_join_allowed(
    ctx: NetworkContext, room_id: str, user: str, event: Pdu | None = None
) -> None:
    """Raises the error answer of a join that policy does not have. ``event`` is the join, if there is one."""
    await _require_allowed(Join, ctx, room_id, user, event)


async def require_knock_allowed(
    ctx: NetworkContext, room_id: str, user: str, event: Pdu | None = None
) -> None:
    """As ``require_join_allowed``, of a knock."""
    await _require_allowed(Knock, ctx, room_id, user, event)


async def _require_allowed(
    kind: type[Join | Knock], ctx: NetworkContext, room_id: str, user: str, event: Pdu | None
) -> None:
    view = ctx.get_view(room_id)
    crossing = kind(
        network=ctx.id,
        room=room_id,
        user=NativeId(ctx.id, user),
        user_server=ids.domain_of(user),
        outbound=False,
        servers=view.servers() if view else frozenset(),
        texts=words_of(event) if event is not None else (),
    )
    await require_allowed(ctx, crossing)
