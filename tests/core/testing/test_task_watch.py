"""A task that nothing can end does not hold up the test that finds it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, logging
from hansa.testing.task_watch import end_tasks

logging.disable()

async def immortal():
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            pass

async def main():
    task = asyncio.create_task(immortal())
    await asyncio.sleep(0)
    assert await end_tasks([task]) == [task]
    assert task not in asyncio.all_tasks()

asyncio.run(main())
print("ended", flush=True)
import os
os._exit(0)
"""


def test_a_task_that_swallows_its_end_too_is_left_behind():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "ended", done.stderr
