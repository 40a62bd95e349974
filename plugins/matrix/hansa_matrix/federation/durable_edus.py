"""EDUs that wait for a server: judged again where the policies changed since they were put on their way.

SPEC: server-server API, "EDUs", "Send-to-device messaging", "Device Management". The generation of the
policies that let an EDU go is kept beside it, and never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from hansa import Crossing, NetworkContext, Row

from hansa_matrix.crossings import Crossings, is_allowed
from hansa_matrix.texts import texts_of_keys

GENERATION = "dev.hansa.generation"


def stored_edu(edu: Mapping[str, Any], generation: int) -> bytes:
    """An EDU as it waits, judged by the policies of ``generation`` if it does not say by which."""
    return orjson.dumps({GENERATION: generation, **edu} if generation else edu)


async def edu_to_send(ctx: NetworkContext, row: Row) -> dict[str, Any] | None:
    """An EDU that waited, as it is sent; None if the policies of now keep it here."""
    edu: dict[str, Any] = orjson.loads(row.body)
    generation = edu.pop(GENERATION, 0)
    if not ctx.has_policies or generation == ctx.policy_generation:
        return edu
    crossing = _crossing_of_edu(Crossings(ctx), edu)
    return edu if crossing is None or await is_allowed(ctx, crossing) else None


def _crossing_of_edu(crossings: Crossings, edu: Mapping[str, Any]) -> Crossing | None:
    """Returns the question to the policies about an EDU; None for an EDU without content. Every request to a
    server already asks whether the server may get anything at all.
    """
    content = edu["content"]
    if edu["edu_type"] == "m.direct_to_device":
        return crossings.to_device(
            content["sender"], content["type"], content["messages"], outbound=True, again=True
        )
    texts = texts_of_keys({key: value for key, value in content.items() if key not in _OF_LISTS})
    return crossings.profile_change(content["user_id"], texts, again=True) if texts else None


#: The own fields of an EDU of devices or keys, beside the keys.
_OF_LISTS = frozenset({"stream_id", "prev_id", "deleted"})
