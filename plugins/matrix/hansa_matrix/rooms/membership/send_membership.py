"""Handing a join or a leave to a resident, which may know only how that was done in the beginning. SPEC:
server-server API, "Joining Rooms", "Leaving Rooms".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hansa_matrix.federation.client import FederationClient, RemoteError, build_path, is_unrecognized
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.send_join import JOIN_ARRAYS


async def send_join(
    client: FederationClient,
    server: str,
    join: Pdu,
    *,
    omit_members: bool,
    take: Callable[[str, list[Any]], None],
    between: Callable[[], Awaitable[None]] | None = None,
    seconds: float,
) -> Any:
    """The answer of a resident to ``send_join``, of version 1 where it does not know version 2: ``take`` is
    given the members of its arrays as they come, see ``FederationClient.request_members``. Raises as that
    does.
    """
    for version in ("v2", "v1"):
        target = build_path("_matrix", "federation", version, "send_join", join.room_id, join.event_id)
        if version == "v2":
            target += f"?omit_members={'true' if omit_members else 'false'}"
        try:
            return await client.request_members(
                "PUT",
                server,
                target,
                join.raw,
                names=JOIN_ARRAYS,
                take=take,
                between=between,
                seconds=seconds,
                numbered=version == "v1",
            )
        except RemoteError as error:
            if version == "v1" or not is_unrecognized(error):
                raise
    raise AssertionError("version 1 answers or raises")


async def send_leave(client: FederationClient, server: str, leave: Pdu) -> None:
    """Leave by a resident, by version 1 where it does not know version 2. Raises as
    ``FederationClient.request``.
    """
    for version in ("v2", "v1"):
        target = build_path("_matrix", "federation", version, "send_leave", leave.room_id, leave.event_id)
        try:
            await client.request("PUT", server, target, leave.raw)
        except RemoteError as error:
            if version == "v1" or not is_unrecognized(error):
                raise
            continue
        return
