"""A network with one user, who repeats what the other networks say."""

from __future__ import annotations

from hansa import (
    Busy,
    Delivery,
    Message,
    NativeId,
    NetworkContext,
    OpenedRoom,
    RetryLater,
    Style,
    Submission,
    hookimpl,
)
from pydantic import BaseModel, ConfigDict, Field

api = 1


class Config(BaseModel):
    """The settings of a ``[networks.<id>]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str = Field(default="echo: ", description="what each answer begins with")


class Echo:
    """Its rooms are called as one likes, its user is called ``echo``. There is nothing to connect to."""

    def __init__(self, ctx: NetworkContext) -> None:
        self.ctx = ctx

    async def start(self) -> None:
        """Connect: here there is nothing to do."""

    async def stop(self) -> None:
        """Disconnect: nor here."""

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """Every address is a room, and always was."""
        del create
        return OpenedRoom(native=NativeId(self.ctx.id, address))

    async def send(self, delivery: Delivery) -> str:
        """Hear one event, and answer a message. Answers are notices, which are not answered: two echoes
        in one room would go on for ever.
        """
        content = delivery.content
        if isinstance(content, Message) and content.style is not Style.NOTICE:
            answer = Message(text=self.ctx.config.prefix + content.text, style=Style.NOTICE)
            try:
                # The same delivery again makes the same origin, and the same origin is the same event.
                await self.say(delivery.link.native.id, "echo", answer, f"answer to {delivery.key}")
            except Busy as error:
                raise RetryLater(error.reason, after=error.after) from error
        return f"heard {delivery.key}"

    async def say(self, room: str, person: str, content: Message, origin: str) -> None:
        """Tell the core what happened on our side."""
        inbound = Submission(
            origin=NativeId(self.ctx.id, origin),
            room=NativeId(self.ctx.id, room),
            sender=NativeId(self.ctx.id, person),
            content=content,
            ts=self.ctx.clock.now(),
        )
        (outcome,) = await self.ctx.submit([inbound])
        if outcome.refusal is not None:
            self.ctx.log.info("%s may not say this: %s", person, outcome.refusal.text)

    @hookimpl
    async def delivery_failed(self, delivery: Delivery, error: str) -> None:
        """Something that our user said will never arrive somewhere: a real network would tell them."""
        if delivery.event.origin.network == self.ctx.id:
            self.ctx.log.warning("%s did not reach %s: %s", delivery.event.id, delivery.link.id, error)


@hookimpl
def open_network(ctx: NetworkContext) -> Echo:
    """One ``[networks.<id>]`` table with ``plugin = "echo"``."""
    return Echo(ctx)
