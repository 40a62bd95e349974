"""A policy: at night nothing new is said. A conversation that is under way may be finished."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict

from hansa import Action, Crossing, Event, EventIn, Message, PluginContext, Reason, Verdict, hookimpl
from pydantic import BaseModel, ConfigDict, Field

api = 1

#: Rooms whose last message is remembered; the one that has been silent longest is forgotten first.
_ROOMS = 10_000


class Config(BaseModel):
    """The settings of a ``[policies.<name>]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    begins: dt.time = Field(default=dt.time(22), description="when the night begins, in UTC")
    ends: dt.time = Field(default=dt.time(7), description="when it ends, in UTC")
    grace: float = Field(default=300, ge=0, description="seconds after a message in which one may answer")


class QuietHours:
    """See ``hansa.Policy``."""

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.config: Config = ctx.config
        self.last: OrderedDict[str, int] = OrderedDict()

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        """Only messages are judged, where they come in for the first time."""
        if not isinstance(crossing, EventIn) or not isinstance(crossing.content, Message):
            return None
        if crossing.facts.automatic:
            return None
        now = self.ctx.clock.now()
        awake = now - self.last.get(crossing.link.room, 0) <= self.config.grace * 1000
        if awake or not self.night(dt.datetime.fromtimestamp(now / 1000, dt.UTC).time()):
            return None
        reason = Reason(
            code="QUIET_HOURS",
            policy=self.ctx.id,
            rule="begins, ends",
            text=f"it is quiet here from {self.config.begins:%H:%M} to {self.config.ends:%H:%M} UTC",
        )
        return Verdict(Action.DENY, (reason,))

    def night(self, at: dt.time) -> bool:
        """True from ``begins`` up to ``ends``, also over midnight."""
        begins, ends = self.config.begins, self.config.ends
        return begins <= at < ends if begins <= ends else at >= begins or at < ends

    @hookimpl
    async def event_committed(self, event: Event) -> None:
        """Keep the room awake for a while after a message."""
        if isinstance(event.content, Message):
            self.last[event.room] = event.received
            self.last.move_to_end(event.room)
            if len(self.last) > _ROOMS:
                self.last.popitem(last=False)


@hookimpl
def open_policy(ctx: PluginContext) -> QuietHours:
    """One ``[policies.<name>]`` table with ``plugin = "quiet-hours"``."""
    return QuietHours(ctx)
