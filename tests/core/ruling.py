"""A scripted network whose rules decide in its rooms."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from hansa import NativeId, OpenedRoom, Prepared, Submission, Verdict
from hansa.testing.actor import Actor, module

ANN = NativeId("left", "ann@x")


class Ruling(Actor):
    """An actor whose rules decide: whatever it submits stands in its history already."""

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        del create
        return OpenedRoom(native=NativeId(self.ctx.id, address), authority=True)

    async def before_turn(self, link: Any, inbound: Submission) -> None:
        del link, inbound

    async def fetch_missing(self, link: Any, refs: Any) -> bool:
        del link, refs
        return False

    async def countersign(self, link: Any, draft: Any) -> Any:
        del link
        return draft

    async def begin_turn(self, link: Any, batch: Any) -> Any:
        del link, batch
        return self

    async def prepare_event(self, inbound: Submission, verdict: Verdict) -> Prepared:
        del inbound
        return Prepared(visible=verdict.allowed)

    def final_writes(self) -> list[Any]:
        return []

    def on_committed(self) -> None:
        pass

    def on_rolled_back(self) -> None:
        pass

    async def stands(self, content: Any) -> Any:
        self._made += 1
        inbound = Submission(
            origin=NativeId("left", f"native-{self._made}"),
            room=NativeId("left", "a"),
            sender=ANN,
            content=content,
            ts=0,
            native=object(),
        )
        return (await self.ctx.submit([inbound]))[0]


def ruling(made: dict[str, Any]) -> ModuleType:
    """The plugin module of such networks."""
    return module(made, Ruling)
