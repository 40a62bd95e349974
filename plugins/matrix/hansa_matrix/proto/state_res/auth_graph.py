"""The part of a room's auth graph that a state resolution looks at, by small integers.

Event ids are met once, at loading; from there on an event is its index, and what is said of it stands in
lists. Every walk is a loop over an explicit stack: the depth of a graph is a peer's choice.

SPEC: Matrix v1.19, room versions 2 and 12, "State resolution", definitions: auth chain, auth difference,
conflicted state subgraph.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from hansa.model.errors import HansaError

from hansa_matrix.proto.auth_rules.state_keys import POWER_LEVELS
from hansa_matrix.proto.event import Pdu

T = TypeVar("T")
Fetch = Callable[[str], Pdu | None]

#: Events after which a walk pauses.
_STEP = 2000


def run_steps(steps: Generator[None, None, T]) -> T:
    """Runs steps to their end and returns the result, for a caller with nothing to do in between."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result


class MissingAuthEvents(HansaError):
    """``fetch_event`` gave None for events that the resolution needs: load ``ids`` and call again.

    Their auth chains will be needed next, so loading them together saves rounds.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = tuple(dict.fromkeys(ids))
        super().__init__(f"{len(self.ids)} events are not at hand")


class AuthGraph:
    """Events and their ``auth_events``, loaded as far as walks asked for.

    ``ids[i]`` is the id, ``pdus[i]`` the event and ``auth[i]`` the indices it cites (None: not loaded yet).
    """

    __slots__ = ("_fetch", "_index", "_missing", "auth", "ids", "pdus")

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._index: dict[str, int] = {}
        self._missing: list[str] = []
        self.ids: list[str] = []
        self.pdus: list[Pdu] = []
        self.auth: list[list[int] | None] = []

    def index_of(self, event_id: str) -> int:
        """The index of an event, loaded or not."""
        index = self._index.get(event_id)
        if index is None:
            index = self._index[event_id] = len(self.ids)
            self.ids.append(event_id)
            self.pdus.append(_NOWHERE)
            self.auth.append(None)
        return index

    def auth_indices(self, index: int) -> list[int]:
        """Returns the auth events of an event; loads the event."""
        edges = self.auth[index]
        if edges is None:
            pdu = self._fetch(self.ids[index])
            edges = self.auth[index] = []
            if pdu is None:
                self._missing.append(self.ids[index])
                return edges
            self.pdus[index] = pdu
            known = self._index
            for event_id in pdu.auth_events:
                cited = known.get(event_id)
                edges.append(self.index_of(event_id) if cited is None else cited)
        return edges

    def load_chain(self, roots: Iterable[int]) -> list[int]:
        """Load the roots and their auth chains: what this call loaded, each after all that it cites."""
        return run_steps(self.load_chain_steps(roots))

    def load_chain_steps(self, roots: Iterable[int]) -> Generator[None, None, list[int]]:
        """``load_chain``, with a pause every some thousand events. The loop calls no other function: in rooms
        of thousands it is most of a resolution.
        """
        ids, pdus, auth, known, fetch = self.ids, self.pdus, self.auth, self._index, self._fetch
        order: list[int] = []
        stack = list(roots)
        paused_at = _STEP
        while stack:
            index = stack.pop()
            if index < 0:
                order.append(~index)
                continue
            if auth[index] is not None:
                continue
            edges: list[int] = []
            unseen: list[int] = []
            auth[index] = edges
            pdu = fetch(ids[index])
            if pdu is None:
                self._missing.append(ids[index])
            else:
                pdus[index] = pdu
                for event_id in pdu.auth_events:
                    cited = known.get(event_id)
                    if cited is None:
                        cited = known[event_id] = len(ids)
                        ids.append(event_id)
                        pdus.append(_NOWHERE)
                        auth.append(None)
                        unseen.append(cited)
                    elif auth[cited] is None:
                        unseen.append(cited)
                    edges.append(cited)
            if unseen:
                stack.append(~index)
                stack += unseen
            else:
                order.append(index)
                if len(order) >= paused_at:
                    paused_at += _STEP
                    yield
        self.raise_missing()
        return order

    def fetch_event(self, event_id: str) -> Pdu | None:
        """One event without its auth chain. A missing one is noted for ``raise_missing``."""
        pdu = self._fetch(event_id)
        if pdu is None:
            self._missing.append(event_id)
        return pdu

    def raise_missing(self) -> None:
        """Raises MissingAuthEvents if any event requested so far is missing."""
        if self._missing:
            raise MissingAuthEvents(self._missing)

    def power_levels_of(self, index: int) -> int:
        """The power levels event that the event cites, -1 if none."""
        pdus = self.pdus
        for cited in self.auth[index] or ():
            pdu = pdus[cited]
            if pdu.type == POWER_LEVELS and pdu.state_key == "":
                return cited
        return -1

    def not_below(self, candidates: Iterable[int], tops: Iterable[str]) -> set[int]:
        """Those ``candidates`` that are none of the events ``tops`` and in the auth chain of none of them."""
        left = set(candidates)
        seen: set[int] = set()
        stack = [self.index_of(event_id) for event_id in tops]
        left.difference_update(stack)
        while stack and left:
            for cited in self.auth_indices(stack.pop()):
                if cited not in seen:
                    seen.add(cited)
                    left.discard(cited)
                    stack.append(cited)
        self.raise_missing()
        return left


# Stands where an event is named but not loaded, so that the lists need no None checks in the hot loops.
_NOWHERE = Pdu(
    event_id="",
    room_id="",
    type="",
    sender="",
    state_key=None,
    content={},
    prev_events=(),
    auth_events=(),
    depth=0,
    origin_server_ts=0,
    raw={},
    wire=b"",
)
