"""What was said in a room while nobody of ours was in it: told to nobody as it happened, and fetched once we
are back.

It stands before our return and behind what was told last before, by depth. Who may read it is a question of
the history's visibility, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa_matrix.room.news import Item, News
from hansa_matrix.room.room import MatrixRoom


@dataclass(frozen=True, slots=True)
class Absence:
    """``since`` is the place in the stream of what was told last before, ``upto`` that of our return. What
    was said meanwhile has at least the depth ``floor``, by our count, and a smaller one than our return,
    ``top``.
    """

    since: int
    upto: int
    floor: int
    top: int


class Absences:
    """Found by our returns, of which a room has few."""

    def __init__(self, news: News) -> None:
        self._news = news

    async def of(self, room: MatrixRoom) -> list[Absence]:
        """Every absence from a room, oldest first. Without any told event before it, a return is where the
        room's timeline begins.
        """
        if not room.returns:
            return []
        found: list[Absence] = []
        first = await self._news.first(room.room_id, 0, 1)
        for event_id in room.returns:
            upto = await self._news.of(room.room_id, event_id)
            before = await self._news.last(room.room_id, upto, 1) if upto else []
            if not before:
                continue
            named = (event_id, before[0].ref, first[0].ref)
            loaded = await room.events.load(named, room.version)
            back, last, begin = (loaded.get(name) for name in named)
            if back is None or last is None or begin is None:
                continue
            floor = max(last.depth, begin.depth) + 1
            found.append(Absence(since=before[0].position, upto=upto, floor=floor, top=back.depth))
        return sorted(found, key=lambda one: one.upto)


def since_return(room: MatrixRoom, items: Sequence[Item]) -> Sequence[Item]:
    """What was told of a room from our last return on, if that is among it: what stands before was not
    followed by it.
    """
    if not room.returns:
        return items
    back = next((at for at in range(len(items) - 1, 0, -1) if items[at].ref in room.returns), 0)
    return items[back:]
