"""What XMPP users do, as submissions: in rooms and in direct chats."""

from __future__ import annotations

from dataclasses import replace

from hansa import Content, NativeId, NetworkContext, Submission

from hansa_xmpp.proto import convert
from hansa_xmpp.proto.convert import StanzaIds
from hansa_xmpp.proto.stanza import Stanza


def make_submission(
    ctx: NetworkContext, native: str, user: NativeId, content: Content, ids: StanzaIds | None = None
) -> Submission:
    """What a user does in a native room. ``ids`` are those that their client gave it."""
    nonce = ctx.random.bytes(12).hex()
    return Submission(
        origin=NativeId(ctx.id, convert.submission_id(nonce, ids or StanzaIds())),
        room=NativeId(ctx.id, native),
        sender=user,
        content=content,
        ts=ctx.clock.now(),
    )


def with_policy_texts(ctx: NetworkContext, inbound: Submission, stanza: Stanza) -> Submission:
    """With all that its stanza says, for policies alone."""
    if not ctx.has_policies:
        return inbound
    return replace(inbound, native=convert.ParsedMessage(convert.texts_of(stanza)))
