"""How much work one round of the event loop does for questions that many tasks ask at once.

Tasks that are ready run one after the other in the same round: fifty events that are judged in parallel hold
the loop for as long as all of them take. A task with work enters first, and reports afterwards how much it
weighed; work that is too much for this round waits for a later one, in order.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: The size of one round, in characters that are read (``weight_of``).
ROUND = 4096


class LoopBudget:
    """``enter``, work, ``spend``. Costs nothing while rounds have room."""

    def __init__(self) -> None:
        self._left = ROUND
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renewing = False

    async def enter(self) -> None:
        """Wait for a round that has room."""
        if self._left > 0 and not self._waiting:
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def spend(self, weight: int) -> None:
        """So much was done in this round."""
        self._left -= weight
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew_round)
        if self._left > 0:
            self._admit_waiting()

    def _renew_round(self) -> None:
        """Begins a new round: the task that has waited longest goes first. Another round follows as long as
        one waits.
        """
        self._left = ROUND
        self._renewing = False
        if self._admit_waiting():
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew_round)

    def _admit_waiting(self) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        return False
