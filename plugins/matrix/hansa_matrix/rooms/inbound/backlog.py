"""How much memory the events take that wait to be judged, by who sent them and in all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hansa.model.bounded_json import values_in

from hansa_matrix.proto.event import Pdu

#: Bytes of one server's events, and of all, that wait: 10,000 events as most are, or 30 of 64 KiB of empty
#: objects.
MAX_BYTES_EACH, MAX_BYTES = 64 * 1024 * 1024, 256 * 1024 * 1024
#: Of all, what is kept for servers of which no more than the second waits: some that send much leave room for
#: those that send little.
RESERVED, LITTLE = 64 * 1024 * 1024, 1024 * 1024
_PER_VALUE = 75


def memory_size(pdu: Pdu) -> int:
    """Bytes of memory that an event takes, parsed and as it is on the wire."""
    return 2 * len(pdu.wire) + _PER_VALUE * values_in(pdu.wire)


class Backlog:
    """The PDUs that wait in the queues of all rooms."""

    def __init__(self) -> None:
        self.bytes = 0
        self._by_origin: dict[str, int] = {}

    def change(self, origin: str, size: int) -> None:
        """So many bytes more of one server, or fewer."""
        self.bytes += size
        left = self._by_origin.get(origin, 0) + size
        if left > 0:
            self._by_origin[origin] = left
        else:
            self._by_origin.pop(origin, None)

    def full(self, origin: str, size: int) -> bool:
        """True if there is no space for so many more bytes of one server. One server may take at most the
        free space, so that each further server that sends much leaves less to all of them, and something to
        the next.
        """
        mine = self._by_origin.get(origin, 0) + size
        if mine <= min(MAX_BYTES_EACH, MAX_BYTES - RESERVED - self.bytes):
            return False
        return mine > LITTLE or self.bytes + size > MAX_BYTES

    @contextmanager
    def reserved(self, origin: str, size: int) -> Iterator[None]:
        """Bytes of a transaction until its events wait in a line, or are judged: others come meanwhile."""
        self.change(origin, size)
        try:
            yield
        finally:
            self.change(origin, -size)
