"""What XMPP users do, as submissions: in rooms and in direct chats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hansa import (
    Busy,
    Content,
    LocalProtocolError,
    NativeId,
    NetworkContext,
    StoreFault,
    Submission,
    SubmitResult,
)

from hansa_xmpp.proto import convert, errors, jid
from hansa_xmpp.proto.convert import StanzaIds
from hansa_xmpp.proto.errors import Condition, StanzaRefusal
from hansa_xmpp.proto.payload import MAX_PAYLOAD
from hansa_xmpp.proto.stanza import Stanza

_TOO_LARGE = (errors.POLICY_VIOLATION, "what this message carries besides its text is too large")


async def find_person(ctx: NetworkContext, puppet: str) -> NativeId:
    """The person whose puppet has this bare JID, which is the person where there is none. The address of a
    person says who they are, also where nobody has asked for their puppet yet.
    """
    return jid.person(puppet, ctx.config.component) or await ctx.home_of(puppet)


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


class ItemSubmitter:
    """Submits to the core, and says of each thing why it is refused, as a stanza error."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    async def submit_one(
        self, inbound: Submission, *, policy: Condition = errors.POLICY_VIOLATION
    ) -> StanzaRefusal | None:
        """Submits one thing; why it is refused, None where it happened. ``policy`` is the condition of what a
        policy denies.
        """
        (refused,) = await self.submit_items([inbound])
        if refused is not None and refused[0] is errors.POLICY_VIOLATION:
            return policy, refused[1]
        return refused

    async def submit_items(
        self, items: Sequence[Submission], commands: list[Submission] | None = None
    ) -> list[StanzaRefusal | None]:
        """Submits; for each why it is refused, None where it happened. What was a command to the bridge is
        added to ``commands``.
        """
        if any(len(item.payload) > MAX_PAYLOAD for item in items):
            small = [item for item in items if len(item.payload) <= MAX_PAYLOAD]
            fitting = iter(await self.submit_items(small, commands))
            return [_TOO_LARGE if len(item.payload) > MAX_PAYLOAD else next(fitting) for item in items]
        if not items:
            return []
        try:
            outcomes = await self._ctx.submit(items)
        except Busy as busy:
            return [(errors.RESOURCE_CONSTRAINT, busy.reason)] * len(items)
        except StoreFault:
            return [errors.STORE_FAULT] * len(items)
        except LocalProtocolError:
            self._ctx.log.exception("not submitted")
            return [(errors.INTERNAL, "")] * len(items)
        if commands is not None:
            commands += [item for item, outcome in zip(items, outcomes, strict=True) if outcome.command]
        return [_refusal_of(outcome) for outcome in outcomes]


def _refusal_of(outcome: SubmitResult) -> StanzaRefusal | None:
    refusal = outcome.refused
    return None if refusal is None else (errors.BY_REFUSAL[refusal.code], refusal.text)
