"""Which events of a room's past a person may read: by the room's history visibility and their membership at
each event. The rule is that of Matrix, and holds for every network. SPEC: Matrix client-server API, "Room
History Visibility".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise, takewhile

from hansa.model.content import Membership


def position_of(seq: int, *, after: bool = False) -> int:
    """The place in a ``Timeline`` of the event of ``seq``; ``after``: between it and the next one."""
    return 2 * seq + after


@dataclass(frozen=True, slots=True)
class Timeline:
    """The values that something of a room had over its log. ``changes`` are ``(position, before, after)`` in
    order of position (``position_of``); ``now`` is the value after the last event.
    """

    changes: tuple[tuple[int, str, str], ...]
    now: str

    def value_at(self, seq: int) -> str:
        """The value after the event of ``seq``."""
        at = bisect_right(self.changes, position_of(seq), key=lambda change: change[0])
        if at:
            return self.changes[at - 1][2]
        return self.changes[0][1] if self.changes else self.now

    def values_around(self, seq: int) -> frozenset[str]:
        """The values on either side of the event of ``seq``: two where it changes the value."""
        at = bisect_left(self.changes, position_of(seq), key=lambda change: change[0])
        before = self.changes[at : at + 1]
        changed = before and before[0][0] == position_of(seq)
        return frozenset((self.value_at(seq), before[0][1])) if changed else frozenset((self.value_at(seq),))

    def has_later(self, seq: int, value: str) -> bool:
        """True if the value is ``value`` after the event of ``seq``, or at any later time."""
        if value in {self.value_at(seq), self.now}:
            return True
        later = takewhile(lambda change: change[0] > position_of(seq), reversed(self.changes))
        return any(change[2] == value for change in later)


def can_read_event(visibility: Timeline, membership: Timeline, seq: int) -> bool:
    """True if a person may read the event of ``seq``. ``visibility`` is the room's, ``membership`` the
    person's, whose values are those of ``Membership``, and empty where the person was a stranger.
    """
    visibilities, memberships = visibility.values_around(seq), membership.values_around(seq)
    if "world_readable" in visibilities or Membership.JOIN.value in memberships:
        return True
    if not membership.has_later(seq, Membership.JOIN.value):
        return False
    invited = "invited" in visibilities and Membership.INVITE.value in memberships
    return "shared" in visibilities or invited


def readable_ranges(
    visibility: Timeline, membership: Timeline, first: int, last: int
) -> list[tuple[int, int]]:
    """The parts of the log from ``first`` to ``last`` that a person may read, each by its first and its last
    seq, in order: see ``can_read_event``.
    """
    cuts = {first, last + 1}
    for position, _, _ in (*visibility.changes, *membership.changes):
        cuts.update(seq for seq in (position // 2, position // 2 + 1) if first < seq <= last)
    ranges: list[tuple[int, int]] = []
    for start, end in pairwise(sorted(cuts)):
        if start > last or not can_read_event(visibility, membership, start):
            continue
        if ranges and ranges[-1][1] == start - 1:
            start = ranges.pop()[0]  # noqa: PLW2901  # it goes on
        ranges.append((start, end - 1))
    return ranges
