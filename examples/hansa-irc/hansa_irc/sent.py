"""What was sent, so that a repeated delivery is not shown twice. A row is written for each delivery after
the server confirmed it: a crash in between repeats one.
"""

from __future__ import annotations

from hansa import Collection, Delete, Delivery, LruCache, NetworkContext, Put, Schema, Value, Write

#: Deliveries of a room whose rows are kept. The core repeats a hundred at most.
KEPT = 500
_PRUNED_EVERY = 100
_DAY_MS = 86_400_000


def schema(owner: str) -> Schema:
    """The rows of one network."""
    sent = Collection(
        name="sent", key={"delivery": str}, fields={"room": str, "seq": int}, indexes=(("room", "seq"),)
    )
    return Schema(owner=owner, version=1, collections=(sent,))


class SentDeliveries:
    """The deliveries of a network."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._recent: LruCache[str, str] = LruCache(10_000)
        self._lines: LruCache[str, int] = LruCache(1000)
        self._count = 0

    async def find(self, delivery: Delivery) -> str | None:
        """The native id that a delivery got, None if it was not sent."""
        native = self._recent.get(delivery.key)
        if native is None:
            row = await self._ctx.store.get("sent", (delivery.key,))
            native = row.body.decode() if row is not None else None
        return native

    def lines_of(self, key: str) -> int:
        """The lines of a delivery that were confirmed, where a connection was lost in the middle."""
        return self._lines.get(key) or 0

    def on_lines(self, key: str, count: int) -> None:
        """So many lines of a delivery are confirmed."""
        self._lines.put(key, count)

    async def put(self, delivery: Delivery) -> str:
        """A delivery is confirmed. Returns its native id."""
        native, room = f"to {delivery.key}", delivery.link.native.id
        # A draft has no place in the log: its rows are kept for a day.
        drafted = not delivery.event.id
        place = self._ctx.clock.now() if drafted else delivery.event.seq
        fields: dict[str, Value] = {"room": f"draft {room}" if drafted else room, "seq": place}
        writes: list[Write] = [Put("sent", (delivery.key,), native.encode(), fields)]
        self._count += 1
        if self._count % _PRUNED_EVERY == 1:
            writes += await self._old(str(fields["room"]), place - (_DAY_MS if drafted else KEPT))
        await self._ctx.store.commit(writes)
        self._recent.put(delivery.key, native)
        self._lines.pop(delivery.key)
        return native

    async def _old(self, room: str, upto: int) -> list[Write]:
        rows = await self._ctx.store.scan("sent", index=("room", "seq"), equal=(room,), upto=upto, limit=1000)
        return [Delete("sent", row.key) for row in rows]
