"""How many transfers run at a time: in all, and for each name that takes part in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hansa.model.errors import Busy

#: Transfers at a time: of all kinds together; of one sender, link, address or host.
MAX_TRANSFERS, MAX_TRANSFERS_OF_ONE = 64, 8
#: Seconds after which a transfer that was refused may be tried again.
_RETRY_AFTER_S = 5.0


class TransferSlots:
    """Slots for transfers. A transfer that finds none free is refused and does not wait."""

    def __init__(self, in_all: int = MAX_TRANSFERS, of_one: int = MAX_TRANSFERS_OF_ONE) -> None:
        self._in_all = in_all
        self._of_one = of_one
        self._taken: Counter[str] = Counter()
        self.taken = 0

    @contextmanager
    def hold_slot(self, *names: str) -> Iterator[None]:
        """Takes a slot for as long as the block runs; it counts against each of ``names``. Raises ``Busy``
        where none is free.
        """
        if self.taken >= self._in_all or any(self._taken[name] >= self._of_one for name in names):
            raise Busy("too many files are being transferred: try again", after=_RETRY_AFTER_S)
        self.taken += 1
        self._taken.update(names)
        try:
            yield
        finally:
            self.taken -= 1
            self._taken.subtract(names)
            for name in names:
                if self._taken[name] <= 0:
                    del self._taken[name]
