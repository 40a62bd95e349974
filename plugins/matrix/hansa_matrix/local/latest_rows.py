"""Rows for announcements that repeat, such as receipts: of each only the last row is kept."""

from __future__ import annotations

from hansa import Delete, LruCache, Write

from hansa_matrix.local.client_stream import stream_write

_MAX_ROWS = 50_000


class LatestRows:
    """The positions of the last row of each announcement, of as many as fit in memory; after a restart one
    more row is left.

    A reader that has read up to a position before the removed row reads the new one.
    """

    def __init__(self) -> None:
        self._at: LruCache[tuple[str, str], int] = LruCache(_MAX_ROWS)

    def announce_writes(self, topic: str, ref: str) -> list[Write]:
        """Tell of something in place of the last time."""
        before = self._at.get((topic, ref))
        gone = [Delete("news", (before,))] if before is not None else []
        return [*gone, stream_write(topic, ref)]

    def on_row_committed(self, topic: str, ref: str, position: int) -> None:
        """The row is durable, at a position."""
        self._at.put((topic, ref), position)
