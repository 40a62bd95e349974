"""The outcomes of submissions, as those who wait for them get them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from hansa.bus.admission import PendingSubmission
from hansa.model.events import SubmitResult
from hansa.store.base import Conflict


def find_receipted(batch: Sequence[PendingSubmission], lost: Conflict) -> PendingSubmission | None:
    """The submission whose receipt is there already, if that is what was lost."""
    for item in batch:
        receipt = item.receipt
        if receipt is None or item.done.done():
            continue
        if receipt.key == lost.key and receipt.collection.rpartition("/")[2] == lost.collection:
            return item
    return None


def fail_items(items: Sequence[PendingSubmission], error: Exception) -> None:
    """Answer who submitted, unless they are answered, or went."""
    for item in items:
        if not item.done.done():
            item.done.set_exception(error)


def mark_read(done: asyncio.Future[SubmitResult]) -> None:
    """Marks a failure as read: its caller has gone, which is not an error."""
    if not done.cancelled():
        done.exception()


def answer_as_duplicate(done: asyncio.Future[SubmitResult], mine: PendingSubmission) -> None:
    """Answers a submission as the one of the same origin was answered."""
    if mine.done.done():
        return
    if done.cancelled():
        mine.done.cancel()
    elif (error := done.exception()) is not None:
        mine.done.set_exception(error)
    else:
        mine.done.set_result(replace(done.result(), duplicate=True))
