"""``until`` waits for what comes, and names what does not."""

from __future__ import annotations

import asyncio

import pytest
from hansa.testing import until


async def test_the_first_true_answer_is_given():
    answers = iter([None, 0, "", [], "there", "later"])
    assert await until(lambda: next(answers)) == "there"


async def test_a_condition_may_be_a_coroutine_function():
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)

    async def condition() -> bool:
        return event.is_set()

    assert await until(condition)


async def test_a_condition_that_holds_for_one_round_of_the_loop_is_seen():
    seen = []

    async def flash() -> None:
        await asyncio.sleep(0)
        seen.append(1)
        await asyncio.sleep(0)
        seen.clear()

    task = asyncio.ensure_future(flash())
    await until(lambda: seen)
    await task


async def test_what_does_not_come_is_named():
    with pytest.raises(TimeoutError, match="within 0 s: the door opens"):
        await until(lambda: False, 0.0, what="the door opens")
    with pytest.raises(TimeoutError, match=r"test_waiting\.py:\d+$"):
        await until(lambda: False, 0.0)
