"""Deactivation of an account: removes everything that was for its user alone. SPEC: client-server API, "POST
/account/deactivate".

The user's messages, profile and files stay, as others see them; ``erase`` removes those.
"""

from __future__ import annotations

from hansa import Delete, NetworkContext

_PAGE_SIZE = 500
#: The collections with rows of one user, and the index of the user.
PRIVATE_COLLECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("account_data", ()),
    ("account_data_usage", ()),
    ("cross_signing_key", ()),
    ("filter", ()),
    ("openid", ("user_id", "until")),
    ("vouched", ()),
)


async def forget_private(ctx: NetworkContext, user: str) -> None:
    """Remove it; what a crash leaves of it goes the next time."""
    for collection, index in PRIVATE_COLLECTIONS:
        while rows := await ctx.store.scan(collection, index=index, equal=(user,), limit=_PAGE_SIZE):
            await ctx.store.commit([Delete(collection, row.key) for row in rows])
