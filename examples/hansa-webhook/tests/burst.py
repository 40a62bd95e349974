"""A Hansa in a process of its own, which a test kills: burst.py DATABASE URL SECRET COUNT."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import hansa_webhook
from hansa.http.client import HttpClient
from hansa.setup import ObserverSetup
from hansa.store import open_store
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config, module


async def main(database: Path, url: str, secret: str, count: int) -> None:
    """Says so many messages in two rooms, prints the id of each once it is stored, and stays."""
    made: dict[str, Actor] = {}
    options = hansa_webhook.Config(url=url, secret=secret)
    observer = ObserverSetup(name="archive", module=hansa_webhook, options=options)
    async with run_hansa(
        {"left": (module(made), Config())},
        rooms=[("left:a",), ("left:b",)],
        observers=[observer],
        store=open_store(f"sqlite:{database.name}", database.parent),
        http=HttpClient(private_networks=["127.0.0.0/8"]),
    ):
        for number in range(count):
            said = await made["left"].say("ab"[number % 2], "ann@x", f"message {number}")
            sys.stdout.write(f"{said.event.id}\n")
            sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
